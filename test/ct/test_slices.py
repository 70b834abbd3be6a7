"""Slices of one series tell the same of their numbers; one that does not is named, with what the others have."""

from __future__ import annotations

import numpy as np
import pytest
from pydicom.dataset import Dataset

from balaitous.ct.dicom import select_series
from balaitous.ct.volume import read_ct
from balaitous.errors import InputError
from helpers.dicom import edit, hu_volume, write_series
from helpers.images import refused

HU = hu_volume()


def series_with_one_odd_slice(folder, index=2, others=None, **tags):
    """A series whose slices have the tags `others`, but for one."""
    files = write_series(folder, HU, shuffle=False, **(others or {}))
    edit(files[index], **tags)
    return files[index].name


@pytest.mark.parametrize("index", [0, 2, 5])
@pytest.mark.parametrize(
    ("others", "odd", "reason"),
    [
        ({}, {"RescaleIntercept": None}, "NAME has no RescaleIntercept, the others have -1024"),
        ({}, {"RescaleIntercept": None, "RescaleSlope": None}, "NAME has no RescaleIntercept, the others have -1024"),
        ({}, {"RescaleIntercept": ""}, "NAME has no RescaleIntercept, the others have -1024"),
        ({}, {"RescaleIntercept": "0"}, "NAME has the RescaleIntercept 0, the others have -1024"),
        ({}, {"RescaleSlope": None}, "NAME has no RescaleSlope, the others have 1"),
        ({}, {"RescaleSlope": "2"}, "NAME has the RescaleSlope 2, the others have 1"),
        (
            {"RescaleSlope": None, "RescaleIntercept": None},
            {"RescaleIntercept": "-1024"},
            "NAME has the RescaleIntercept -1024, the others have none",
        ),
        ({}, {"RescaleType": "US"}, "NAME has the RescaleType US, the others have HU"),
        ({}, {"PixelRepresentation": 1}, "NAME has the PixelRepresentation 1, the others have 0"),
        ({}, {"PixelRepresentation": None}, "NAME has no PixelRepresentation, the others have 0"),
        ({}, {"BitsStored": 12, "HighBit": 11}, "NAME has the BitsStored 12, the others have 16"),
        ({}, {"BitsAllocated": 8}, "NAME has the BitsAllocated 8, the others have 16"),
        ({}, {"HighBit": 14}, "NAME has the HighBit 14, the others have 15"),
        (
            {},
            {"PhotometricInterpretation": "MONOCHROME1"},
            "NAME has the PhotometricInterpretation MONOCHROME1, .* have MONOCHROME2",
        ),
        ({}, {"PixelPaddingValue": 0}, "NAME has the PixelPaddingValue 0, the others have none"),
        ({"PixelPaddingValue": 0}, {"PixelPaddingValue": 9}, "NAME has the PixelPaddingValue 9, the others have 0"),
        (
            {"FrameOfReferenceUID": "1.5"},
            {"FrameOfReferenceUID": "1.6"},
            "NAME has the FrameOfReferenceUID 1.6, the others have 1.5",
        ),
        (
            {"FrameOfReferenceUID": "1.5"},
            {"FrameOfReferenceUID": None},
            "NAME has no FrameOfReferenceUID, the others have 1.5",
        ),
        ({}, {"ModalityLUTSequence": [Dataset()]}, "NAME has the ModalityLUTSequence a table, the others have none"),
        ({"PatientAge": "040Y"}, {"PatientAge": "071Y"}, "NAME has the PatientAge 71, the others have 40"),
        ({"PatientSex": "M"}, {"PatientSex": "F"}, "NAME has the PatientSex 0, the others have 1"),
        ({}, {"PixelSpacing": ["0.7", "0.9"]}, r"one pixel spacing, found \[.*\] mm \(NAME is unlike most"),
        ({}, {"Rows": 6}, r"slices of one size, found \[\(6, 8\), \(7, 8\)\] \(NAME is unlike most"),
    ],
)
def test_a_slice_that_tells_another_thing_is_named(tmp_path, index, others, odd, reason):
    name = series_with_one_odd_slice(tmp_path, index, others, **odd)
    refused(
        tmp_path,
        reason.replace("NAME", name)
        if "NAME" in reason
        else f"{name} {reason}"
        if reason.startswith("has")
        else reason,
    )


def test_most_slices_are_right_and_the_rest_is_counted(tmp_path):
    files = write_series(tmp_path, HU, shuffle=False)
    for file in files[:2]:
        edit(file, RescaleIntercept="0")
    refused(tmp_path, f"{files[0].name} has the RescaleIntercept 0 .2 slices like it., the others have -1024")


@pytest.mark.parametrize(
    "same",
    [{"RescaleIntercept": "-1024.0"}, {"RescaleType": "HU"}, {"RescaleSlope": "1.000"}, {"ConvolutionKernel": "B30f"}],
)
def test_what_means_the_same_is_read(tmp_path, same):
    series_with_one_odd_slice(tmp_path, **same)
    np.testing.assert_array_equal(read_ct(tmp_path).hu, HU)


def test_age_that_only_some_slices_tell_counts(tmp_path):
    series_with_one_odd_slice(tmp_path, PatientAge="040Y", PatientSex="F")
    patient = read_ct(tmp_path).patient
    assert (patient.age_years, patient.sex) == (40.0, 0.0)


@pytest.mark.parametrize(
    ("tags", "reason"),
    [
        ({"ModalityLUTSequence": [Dataset()]}, "expected a rescale slope and intercept, .* has a modality LUT"),
        ({"RescaleType": "Z_EFF"}, "expected Hounsfield units, .* has the RescaleType 'Z_EFF'"),
        ({"RescaleSlope": "0"}, "expected a RescaleSlope, .* has 0"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "expected grey slices, .* 'PALETTE COLOR'"),
        (
            {"BitsStored": 12, "HighBit": 15},
            "expected numbers in the lowest bits of a pixel, .* 12 of 16 .* HighBit 15",
        ),
        ({"BitsStored": 17, "HighBit": 16}, "expected numbers in the lowest bits of a pixel, .* 17 of 16 bits"),
    ],
)
def test_numbers_that_are_no_hounsfield_units_are_refused(tmp_path, tags, reason):
    write_series(tmp_path, HU, **tags)
    refused(tmp_path, reason)


def test_another_series_may_be_as_odd_as_it_likes(tmp_path):
    files = write_series(tmp_path / "a", HU, uid="1.2.1")
    write_series(tmp_path / "b", HU[:3], uid="1.2.2", RescaleType="Z_EFF", ModalityLUTSequence=[Dataset()])
    assert list(select_series(tmp_path).files) == files
    with pytest.raises(InputError, match="modality LUT"):
        select_series(tmp_path, "1.2.2")


def test_a_copy_of_a_slice_that_tells_another_thing_is_refused(tmp_path):
    files = write_series(tmp_path, HU)
    (tmp_path / "copy.dcm").write_bytes(files[2].read_bytes())
    edit(tmp_path / "copy.dcm", RescaleIntercept="0")
    refused(tmp_path, "expected one RescaleIntercept in all slices, copy.dcm|one slice a position")
