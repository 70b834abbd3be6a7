"""Numbers that are no volume in Hounsfield units."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk

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


@pytest.mark.parametrize(
    ("hu", "reason"),
    [
        (with_one(np.nan), "found NaN or infinity"),
        (with_one(-np.inf), "found NaN or infinity"),
        (np.full_like(HU, -700), "found nothing but -700 to -700 in it"),
        (np.where(HU > 0, -2000, -1500).astype(np.int16), "found nothing but -2000 to -1500 in it"),
        ((HU > 0).astype(np.uint8), "found whole numbers from 0 to 1: this looks like a label mask"),
        (np.where(HU > 0, 2, 0).astype(np.int16), "found whole numbers from 0 to 2: this looks like a label mask"),
        ((HU + 1024).astype(np.uint16), r"expected Hounsfield units .* subtract 1024"),
        (with_one(60000, "int32"), "at most 32767"),
        (((HU + 1024) / 3000).astype(np.float32), "expected Hounsfield units"),
    ],
)
def test_numbers_that_are_no_hounsfield_units_are_refused(tmp_path, hu, reason):
    refused(written(image_of(hu), tmp_path / "scan.nrrd"), reason)


@pytest.mark.data
def test_a_real_lung_mask_is_not_taken_for_a_ct(data):
    refused(data / "ct/lowres_id001_lungmask.nii.gz", "this looks like a label mask")
