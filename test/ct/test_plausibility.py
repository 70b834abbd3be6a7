"""Numbers that are no volume in Hounsfield units."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk

from balaitous.ct.volume import read_ct
from balaitous.errors import InputError
from helpers.images import HU, image_of, refused, written


def test_images_that_are_no_single_volume_are_refused(tmp_path):
    refused(written(image_of()[:, :, 0], tmp_path / "flat.mha"), r"found a 2-D image \(8 × 7\)")
    refused(
        written(sitk.JoinSeries([image_of(), image_of()]), tmp_path / "4d.nrrd"), r"found a 4-D image \(8 × 7 × 6 × 2\)"
    )
    refused(
        written(image_of()[:, :, :1], tmp_path / "one.nii"), r"found one slice \(8 × 7 × 1\); give the whole series"
    )
    colour = sitk.GetImageFromArray(np.zeros((4, 5, 6, 3), np.uint8), isVector=True)
    refused(
        written(colour, tmp_path / "rgb.mha"), "expected one number a voxel, found a vector of 8-bit unsigned integer"
    )


def with_one(value, kind="float32") -> np.ndarray:
    hu = HU.astype(kind)
    hu[2, 3, 4] = value
    return hu


STORED = (HU + 1024).clip(0)
AIRLESS = HU.clip(-160, 240)


@pytest.mark.parametrize(
    ("hu", "reason"),
    [
        (with_one(np.nan), "found NaN or infinity; write the image again without them"),
        (with_one(-np.inf), "found NaN or infinity"),
        (with_one(np.nan, "float64"), "found NaN or infinity"),
        (np.full_like(HU, -700), "found nothing but -700 in it"),
        (np.zeros(HU.shape, np.float32), "found nothing but 0 in it"),
        (np.where(HU > 0, -2000, -1500).astype(np.int16), "nothing but -2000 to -1500 in it, no denser than air"),
        ((HU > 0).astype(np.uint8), "found whole numbers from 0 to 1: this looks like a label mask"),
        (np.where(HU > 0, 2, 0).astype(np.int16), "found whole numbers from 0 to 2: this looks like a label mask"),
        ((STORED // 16).astype(np.uint8), "found whole numbers from .* 8-bit picture; give the CT itself"),
        ((STORED / 16).astype(np.float32), "looks like an 8-bit picture or a display window"),
        (STORED.astype(np.uint16), r"expected Hounsfield units .* stored values; .* \(often: subtract 1024\)"),
        (STORED.astype(np.float32), r"stored values; .* \(often: subtract 1024\)"),
        ((STORED * 16).astype(np.uint16), "looks like a 16-bit picture or stored values"),
        ((STORED / 3000).astype(np.float32), "looks like an image that was normalised"),
        ((HU / 1000).astype(np.float32), "looks like an image that was normalised"),
        (((HU - HU.mean()) / HU.std()).astype(np.float32), "looks like an image that was normalised"),
        (AIRLESS, "from -160 to 240: without air it looks like a CT cut to a display window"),
        (with_one(63536, "int32"), r"at most 32767\), found .* to 63536: the highest may be padding \(63536 is −2000"),
    ],
)
def test_numbers_that_are_no_hounsfield_units_are_refused_for_what_they_look_like(tmp_path, hu, reason):
    for name in ("scan.nrrd", "scan.nii.gz", "scan.mha"):
        path = written(image_of(hu), tmp_path / name)
        refused(path, reason)
        with pytest.raises(InputError) as caught:
            read_ct(path)
        assert ("subtract 1024" in str(caught.value)) == ("subtract 1024" in reason)


@pytest.mark.data
def test_a_real_lung_mask_is_not_taken_for_a_ct(data):
    refused(data / "ct/lowres_id001_lungmask.nii.gz", "this looks like a label mask")
