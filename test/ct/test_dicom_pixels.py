"""Stored numbers become Hounsfield units: padding, unused bits, order of bytes, inverted display, transfer syntaxes."""

from __future__ import annotations

import numpy as np
import pydicom
import pytest
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian, RLELossless

from balaitous.ct.volume import read_ct
from helpers.dicom import hu_volume, write_series
from helpers.images import refused

HU = hu_volume((4, 16, 16))
EDGE = np.zeros((16, 16), bool)
EDGE[:3], EDGE[:, -2:] = True, True
PADDED = np.where(EDGE, -1024, HU)


def write_stored(folder, stored, intercept=-1024, **tags):
    """A series of stored numbers; negative ones and those above 65,535 as their lowest 16 bits."""
    return write_series(folder, stored.astype(np.int32) - 1024, RescaleIntercept=str(intercept), **tags)


@pytest.mark.parametrize(
    ("value", "limit", "intercept", "signed"),
    [
        (63536, None, -1024, 0),
        (4095, None, -1024, 0),
        (0, None, -1024, 0),
        (0, None, 0, 1),
        (40, None, 0, 1),
        (-2000, None, 0, 1),
        (63536, None, 0, 1),  # -2000, as an unsigned number
        (2000, 2005, -1024, 0),
        (2005, 2000, -1024, 0),
        (-2000, -1500, 0, 1),
        (63536, 65535, -1024, 0),
        (32767, None, 0, 1),
    ],
)
@pytest.mark.parametrize("syntax", ["explicit", "implicit", "run lengths"])
def test_padding_at_the_edge_is_air(tmp_path, value, limit, intercept, signed, syntax):
    stored = HU.astype(int) - intercept
    stored[:, EDGE] = value
    if limit is not None:
        stored[:, 0] = limit
    tags = {"PixelPaddingValue": value % 65536} | ({"PixelPaddingRangeLimit": limit % 65536} if limit else {})
    for file in write_stored(tmp_path, stored, intercept, PixelRepresentation=signed):
        dataset = pydicom.dcmread(file)
        for keyword, number in tags.items():
            dataset.add_new(keyword, "US", number)
        if syntax == "implicit":
            dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
            for keyword, number in tags.items():
                dataset[keyword].VR = "SS" if signed else "US"
                dataset[keyword].value = number - 65536 if signed and number > 32767 else number
        if syntax == "run lengths":
            dataset.compress(RLELossless, generate_instance_uid=False)
        dataset.save_as(file, implicit_vr=None if syntax != "implicit" else True)
    np.testing.assert_array_equal(read_ct(tmp_path).hu, PADDED)


def test_the_row_tells_that_padding_was_read_as_air(tmp_path):
    stored = np.where(EDGE, 63536, HU.astype(int) + 1024)
    write_stored(tmp_path / "padded", stored, PixelPaddingValue=63536)
    write_stored(tmp_path / "air", np.where(EDGE, 0, HU.astype(int) + 1024), PixelPaddingValue=0)
    assert read_ct(tmp_path / "padded").series == "4 slices, padding read as air"
    assert read_ct(tmp_path / "air").series == "4 slices"


def test_water_inside_the_body_is_no_padding(tmp_path):
    hu = HU.copy()
    hu[:, 8, 8], hu[:, 10:12, 5] = 0, 0
    write_stored(tmp_path, np.where(EDGE, 0, hu), 0, PixelRepresentation=1, PixelPaddingValue=0)
    np.testing.assert_array_equal(read_ct(tmp_path).hu, np.where(EDGE, -1024, hu))


def test_padding_that_no_tissue_has_is_air_wherever_it_lies(tmp_path):
    stored = HU.astype(int) + 1024
    stored[:, 8, 8] = 63536
    write_stored(tmp_path, stored, PixelPaddingValue=63536)
    assert (read_ct(tmp_path).hu[:, 8, 8] == -1024).all()


def test_padding_of_more_bits_than_pixels_have_is_air_and_bone_of_the_same_lower_bits_is_not(tmp_path):
    stored = np.where(EDGE, 63536, HU.astype(int) + 1024)
    stored[:, 8, 8] = 63536 % 4096
    write_stored(tmp_path, stored, BitsStored=12, HighBit=11, PixelPaddingValue=63536)
    hu = read_ct(tmp_path).hu
    assert (hu[:, EDGE] == -1024).all()
    assert (hu[:, 8, 8] == 63536 % 4096 - 1024).all()


def test_padding_without_a_tag_is_refused(tmp_path):
    write_stored(tmp_path, np.where(EDGE, 63536, HU.astype(int) + 1024))
    refused(tmp_path, "at most 32767.*, found .*-?[0-9]+ to 62512")


def test_unused_bits_are_left_out_and_the_sign_is_kept(tmp_path):
    unsigned, signed = HU.astype(int) + 1024, HU.astype(int)
    write_stored(tmp_path / "overlay", unsigned | 0x8000, BitsStored=12, HighBit=11)
    write_stored(tmp_path / "signed", signed & 0x0FFF, 0, BitsStored=12, HighBit=11, PixelRepresentation=1)
    for name in ("overlay", "signed"):
        np.testing.assert_array_equal(read_ct(tmp_path / name).hu, HU)


def test_an_inverted_display_inverts_no_hounsfield_unit(tmp_path):
    write_series(tmp_path, HU, PhotometricInterpretation="MONOCHROME1")
    np.testing.assert_array_equal(read_ct(tmp_path).hu, HU)


def test_slices_in_several_transfer_syntaxes_are_read_alike(tmp_path):
    files = write_series(tmp_path, HU)
    for file, syntax in zip(files, (ExplicitVRBigEndian, ImplicitVRLittleEndian, RLELossless), strict=False):
        dataset = pydicom.dcmread(file)
        if syntax == RLELossless:
            dataset.compress(RLELossless, generate_instance_uid=False)
        elif syntax == ExplicitVRBigEndian:
            dataset.PixelData = np.frombuffer(dataset.PixelData, "<u2").astype(">u2").tobytes()
        dataset.file_meta.TransferSyntaxUID = syntax
        little = syntax != ExplicitVRBigEndian
        pydicom.dcmwrite(file, dataset, implicit_vr=syntax == ImplicitVRLittleEndian, little_endian=little)
    np.testing.assert_array_equal(read_ct(tmp_path).hu, HU)


def test_fractions_of_a_hounsfield_unit_are_kept(tmp_path):
    write_series(tmp_path, HU, RescaleSlope="0.5", RescaleIntercept="-1000.25")
    hu = read_ct(tmp_path).hu
    assert hu.dtype == np.float32
    np.testing.assert_array_equal(hu, np.maximum((HU + 1024) * 0.5 - 1000.25, -1024).astype(np.float32))
