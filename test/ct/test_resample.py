"""Resampling: the published package's, voxel by voxel, and nothing lost on the way."""

from __future__ import annotations

import dataclasses
import os
import tempfile
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st

from balaitous.ct.grid import StoredOrder
from balaitous.ct.volume import CT, read_ct, resample
from balaitous.errors import InputError
from helpers.dicom import hu_volume
from helpers.images import HU, ORIENTATIONS, SPACING_MM, ct_of, image_of, in_stored_order, written


def as_published(stored: sitk.Image, spacing_mm) -> np.ndarray:
    """The published package's resampling of the stored image, then LPS."""
    size = (np.array(stored.GetSize()) * np.array(stored.GetSpacing()) / np.array(spacing_mm)).astype(int).tolist()
    resampled = sitk.Resample(
        *(stored, size, sitk.Transform(), sitk.sitkLinear, stored.GetOrigin()),
        *(spacing_mm, stored.GetDirection(), 0.0, stored.GetPixelID()),
    )
    return sitk.GetArrayFromImage(sitk.DICOMOrient(resampled, "LPS"))


SPACINGS = st.tuples(*[st.floats(0.3, 6.0)] * 3)


def read_both(stored) -> tuple[CT, sitk.Image]:
    """What `read_ct` and SimpleITK read from a file of the image."""
    with tempfile.TemporaryDirectory() as folder:
        path = written(stored, Path(folder) / "scan.nrrd")
        return read_ct(path), sitk.ReadImage(os.fspath(path))


@given(
    st.sampled_from(ORIENTATIONS),
    SPACINGS,
    SPACINGS,
    st.tuples(*[st.floats(-500, 500)] * 3),
    st.sampled_from(["int16", "float32"]),
)
@settings(max_examples=60)
def test_resampling_agrees_with_the_published_package_voxel_by_voxel(orientation, old_mm, new_mm, origin_mm, kind):
    stored = image_of(hu_volume((9, 10, 11)).astype(kind), orientation, old_mm, origin_mm)
    size = [int(n * old / new) for n, old, new in zip((11, 10, 9), old_mm, new_mm, strict=True)]
    if min(size) < 1 or old_mm == new_mm:
        return
    ct, stored = read_both(stored)
    resampled = resample(ct, new_mm)
    np.testing.assert_array_equal(resampled.hu, as_published(stored, in_stored_order(new_mm, orientation)))
    assert resampled.hu.dtype == kind
    assert resampled.grid.spacing_mm == new_mm


@given(SPACINGS, SPACINGS)
@settings(max_examples=30)
def test_resample_keeps_the_physical_extent_to_less_than_a_voxel(old_mm, new_mm):
    ct = ct_of(hu_volume((20, 21, 22)), old_mm)
    resampled = resample(ct, new_mm)
    for n, old, m, new in zip((22, 21, 20), old_mm, resampled.hu.shape[::-1], new_mm, strict=True):
        assert -1e-9 <= n * old - m * new < new + 1e-9
    assert resampled.grid.origin_mm == pytest.approx(ct.grid.origin_mm)


@pytest.mark.parametrize("orientation", ["LPS", "RAS", "SLP"])
def test_resampling_a_ramp_in_mm_gives_the_same_ramp(orientation):
    z, y, x = np.meshgrid(np.arange(20) * 2.5, np.arange(21) * 0.8, np.arange(22) * 0.7, indexing="ij")
    ramp = (3 * z + 5 * y + 7 * x - 900).astype(np.float32)
    ct, _ = read_both(image_of(ramp, orientation))
    resampled = resample(ct, (1.1, 1.3, 5.0))
    k, j, i = np.meshgrid(*map(np.arange, resampled.hu.shape), indexing="ij")
    start = np.array(resampled.grid.origin_mm) - np.array(ct.grid.origin_mm)
    expected = 3 * (k * 5.0 + start[2]) + 5 * (j * 1.3 + start[1]) + 7 * (i * 1.1 + start[0]) - 900
    np.testing.assert_allclose(resampled.hu, expected, atol=1e-2)


def test_resampling_to_the_same_spacing_changes_nothing():
    ct = ct_of(HU)
    assert resample(ct, SPACING_MM) is ct


def test_resampling_a_volume_built_in_memory_matches_the_one_read_from_a_file(tmp_path):
    ct = dataclasses.replace(ct_of(HU), stored=StoredOrder(reversed=(False, True, False)))
    stored = image_of(orientation="LAS")
    np.testing.assert_array_equal(resample(ct, (1.5, 1.5, 5.0)).hu, as_published(stored, (1.5, 1.5, 5.0)))


def test_a_volume_thinner_than_one_new_voxel_is_refused():
    with pytest.raises(InputError, match=r"scan\.mha: expected a chest, found 5\.6 × 5\.6 × 3 mm"):
        resample(ct_of(HU, (0.7, 0.8, 0.5)))


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.parametrize("name", ["lowres_id001.nii.gz", "lungdx_A0001_native.mha"])
def test_real_scans_are_resampled_as_the_published_package_does(data, name):
    resampled = resample(read_ct(data / "ct" / name))
    np.testing.assert_array_equal(resampled.hu, as_published(sitk.ReadImage(str(data / "ct" / name)), (1.5, 1.5, 5.0)))
