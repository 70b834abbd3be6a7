"""Reading, orienting and writing of CT volumes and their masks."""

from __future__ import annotations

import dataclasses
import json
import struct
import zipfile

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st

from balaitous.ct.volume import read_ct, read_labels, scan_name, write_mha, write_volume
from balaitous.errors import InputError, MaskError
from balaitous.reading.patient import Patient
from helpers.dicom import CORONAL, write_series
from helpers.images import HU, ORIENTATIONS, ORIGIN_MM, SPACING_MM, ct_of, image_of, in_stored_order, written

# Reading


@pytest.mark.parametrize("ending", [".mha", ".mhd", ".nii", ".nii.gz", ".nrrd", ".nhdr"])
@pytest.mark.parametrize("compressed", [True, False])
def test_every_format_gives_the_same_volume(tmp_path, ending, compressed):
    ct = read_ct(written(image_of(), tmp_path / f"scan{ending}", compressed))
    np.testing.assert_array_equal(ct.hu, HU)
    assert ct.hu.dtype == np.int16
    assert ct.grid.spacing_mm == pytest.approx(SPACING_MM)
    assert ct.grid.origin_mm == pytest.approx(ORIGIN_MM)
    assert ct.grid.direction == pytest.approx(np.eye(3).ravel())
    assert (ct.name, ct.series_uid, ct.patient) == ("scan", None, Patient())


@pytest.mark.parametrize("ending", [".mha", ".nii.gz", ".nrrd"])
def test_endings_may_be_in_capitals(tmp_path, ending):
    path = written(image_of(), tmp_path / f"scan{ending}").rename(tmp_path / f"SCAN{ending.upper()}")
    np.testing.assert_array_equal(read_ct(path).hu, HU)
    assert read_ct(path).name == "SCAN"


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_every_stored_orientation_gives_the_same_volume(tmp_path, orientation):
    ct = read_ct(written(image_of(orientation=orientation), tmp_path / "scan.mha"))
    np.testing.assert_array_equal(ct.hu, HU)
    assert ct.grid.spacing_mm == pytest.approx(SPACING_MM)
    assert ct.grid.origin_mm == pytest.approx(ORIGIN_MM)
    assert ct.grid.direction == pytest.approx(np.eye(3).ravel())
    assert ct.stored.reversed == tuple(letter in orientation for letter in "RAI")
    assert in_stored_order((0, 1, 2), orientation) == tuple(np.argsort(ct.stored.axes))


@given(
    st.sampled_from(ORIENTATIONS),
    st.tuples(*[st.integers(-30, 30)] * 3),
)
@settings(max_examples=30)
def test_every_voxel_of_an_oblique_volume_keeps_its_place(tmp_path_factory, orientation, degrees):
    stored = image_of(orientation=orientation)
    turn = np.reshape(sitk.Euler3DTransform((0, 0, 0), *np.radians(degrees)).GetMatrix(), (3, 3))
    stored.SetDirection((turn @ np.reshape(stored.GetDirection(), (3, 3))).ravel())
    ct = read_ct(written(stored, tmp_path_factory.mktemp("oblique") / "scan.mha"))
    read = sitk.GetImageFromArray(np.ascontiguousarray(ct.hu))
    read.SetSpacing(ct.grid.spacing_mm)
    read.SetOrigin(ct.grid.origin_mm)
    read.SetDirection(ct.grid.direction)
    for index in [(0, 0, 0), (7, 6, 5), (3, 1, 4)]:
        stored_index = stored.TransformPhysicalPointToIndex(read.TransformIndexToPhysicalPoint(index))
        assert stored[stored_index] == read[index]
    assert (np.diag(np.reshape(ct.grid.direction, (3, 3))) > 0).all()


def test_padding_below_air_is_clamped_and_rescaling_applied(tmp_path):
    padded = HU.copy()
    padded[:, 0] = -3024
    ct = read_ct(written(image_of(padded), tmp_path / "scan.mha"))
    np.testing.assert_array_equal(ct.hu, np.maximum(padded, -1024))

    raw = bytearray(written(image_of(HU // 2), tmp_path / "rescaled.nii").read_bytes())
    raw[112:120] = struct.pack("<ff", 2.0, 0.5)  # scl_slope, scl_inter
    (tmp_path / "rescaled.nii").write_bytes(raw)
    ct = read_ct(tmp_path / "rescaled.nii")
    assert ct.hu.dtype == np.float32
    np.testing.assert_allclose(ct.hu, (HU // 2) * 2 + 0.5)


@pytest.mark.parametrize(
    ("stored", "read"),
    [("int16", "int16"), ("int32", "int16"), ("int64", "int16"), ("float32", "float32"), ("float64", "float32")],
)
def test_integers_become_int16_and_floats_float32(tmp_path, stored, read):
    ct = read_ct(written(image_of(HU.astype(stored)), tmp_path / "scan.nrrd"))
    assert ct.hu.dtype == read
    np.testing.assert_array_equal(ct.hu, HU)


def test_a_fourth_axis_of_one_volume_is_dropped(tmp_path):
    ct = read_ct(written(sitk.JoinSeries([image_of(orientation="LAS")]), tmp_path / "scan.mha"))
    np.testing.assert_array_equal(ct.hu, HU)


@pytest.mark.parametrize(
    ("path", "name"),
    [("a/scan.nii.gz", "scan"), ("scan.v2.MHA", "scan.v2"), ("series.zip", "series"), ("scan.txt", "scan.txt")],
)
def test_a_scan_is_named_after_its_file_without_endings(path, name):
    assert scan_name(path) == name


# Age and sex


def test_age_and_sex_come_from_the_header_first_then_from_the_sidecar(tmp_path):
    image = image_of()
    image.SetMetaData("PatientAge", "045Y")
    path = written(image, tmp_path / "scan.mha")
    (tmp_path / "scan.json").write_text(json.dumps({"age": 70, "sex": "F"}))
    assert read_ct(path).patient == Patient(45.0, "header", 0.0, "sidecar")


def test_a_sidecar_may_lie_beside_a_dicom_folder(tmp_path):
    write_series(tmp_path / "series", HU, PatientSex="M")
    (tmp_path / "series.json").write_text(json.dumps({"PatientAge": "045Y"}))
    assert read_ct(tmp_path / "series").patient == Patient(45.0, "sidecar", 1.0, "dicom")


def test_a_wrong_sidecar_names_itself_and_the_scan(tmp_path):
    path = written(image_of(), tmp_path / "scan.mha")
    (tmp_path / "scan.json").write_text('{"age": 300}')
    with pytest.raises(InputError, match=r"scan\.mha: side-car scan\.json: age must be between 0 and 120"):
        read_ct(path)


# DICOM


@pytest.mark.parametrize(
    "orientation", [(1, 0, 0, 0, 1, 0), (-1, 0, 0, 0, -1, 0), (1, 0, 0, 0, 0.984807753, 0.173648178)]
)
def test_a_dicom_series_lies_where_its_headers_say(tmp_path, orientation):
    files = write_series(tmp_path / "series", HU, uid="1.2.3", orientation=orientation, PatientAge="039Y")
    ct = read_ct(tmp_path / "series")
    reversed_ = orientation[0] < 0
    np.testing.assert_array_equal(ct.hu, HU[:, ::-1, ::-1] if reversed_ else HU)
    assert ct.grid.spacing_mm == pytest.approx((0.8, 0.7, 2.5), abs=1e-4)
    assert ct.stored.reversed == (reversed_, reversed_, False)
    assert (ct.series_uid, ct.name, ct.patient.age_years) == ("1.2.3", "series", 39.0)
    assert (ct.series, ct.other_series) == ("6 slices", None)
    if not reversed_:
        assert ct.grid.origin_mm == pytest.approx((-100.0, -120.0, -300.0))
        assert np.reshape(ct.grid.direction, (3, 3))[:, 1] == pytest.approx(orientation[3:], abs=1e-6)
    assert len(files) == ct.hu.shape[0]


def test_a_named_coronal_series_is_turned_to_lps(tmp_path):
    write_series(tmp_path, HU, uid="1.2.3", orientation=CORONAL)
    ct = read_ct(tmp_path, series="1.2.3")
    # Slices run along +y, their rows along x, their columns along −z.
    np.testing.assert_array_equal(ct.hu, HU.transpose(1, 0, 2)[::-1])


# Writing


def test_what_is_written_is_read_again(tmp_path):
    ct = dataclasses.replace(ct_of(HU), patient=Patient(45.0, "argument", 1.0, "argument"))
    write_mha(tmp_path / "scan.mha", ct)
    header = (tmp_path / "scan.mha").read_bytes().split(b"LOCAL")[0].decode()
    assert "PatientAge = 045Y" in header
    assert "PatientSex = M" in header
    assert "CompressedData = True" in header
    again = read_ct(tmp_path / "scan.mha")
    np.testing.assert_array_equal(again.hu, ct.hu)
    assert again.patient == Patient(45.0, "header", 1.0, "header")
    assert again.grid.origin_mm == pytest.approx(ct.grid.origin_mm)


# Masks


@pytest.mark.parametrize("orientation", ORIENTATIONS[::7])
def test_a_mask_is_seen_as_its_ct_is_however_either_is_stored(tmp_path, orientation):
    ct = read_ct(written(image_of(), tmp_path / "scan.mha"))
    labels = np.arange(HU.size, dtype=np.uint8).reshape(HU.shape) % 3
    mask = written(image_of(labels, orientation), tmp_path / "mask.nii.gz")
    np.testing.assert_array_equal(read_labels(mask, ct), labels)


@pytest.mark.parametrize(
    ("changed", "found"),
    [
        ({"hu": HU[1:]}, "found \\d+ × \\d+ × \\d+ voxels"),
        ({"origin_mm": tuple(np.add(ORIGIN_MM, (0, 0, 2)))}, "a corner of it 2 mm away"),
        ({"spacing_mm": tuple(np.multiply(SPACING_MM, 2))}, "mm away"),
    ],
)
def test_a_mask_on_another_grid_than_its_ct_is_refused(tmp_path, changed, found):
    ct = read_ct(written(image_of(), tmp_path / "scan.mha"))
    mask = written(image_of(**{"hu": HU} | changed), tmp_path / "mask.mha")
    with pytest.raises(MaskError, match=rf"mask.mha: expected a mask on the grid of .*scan.mha .*{found}"):
        read_labels(mask, ct)


@pytest.mark.parametrize("ending", [".mha", ".nii.gz", ".nrrd"])
@pytest.mark.parametrize("orientation", ORIENTATIONS[::11])
def test_a_mask_is_written_on_the_grid_of_its_ct(tmp_path, orientation, ending):
    ct = read_ct(written(image_of(orientation=orientation), tmp_path / "scan.mha"))
    mask = ct.hu > 0
    write_volume(tmp_path / f"mask{ending}", mask, ct.grid)
    assert np.array_equal(read_labels(tmp_path / f"mask{ending}", ct), mask.astype(np.uint8))


def test_voxels_of_another_shape_than_the_grid_are_refused(tmp_path):
    ct = ct_of(HU)
    with pytest.raises(ValueError, match="must have the grid's shape"):
        write_volume(tmp_path / "mask.mha", ct.hu[1:], ct.grid)
    with pytest.raises(ValueError, match="must have the grid's shape"):
        dataclasses.replace(ct, hu=ct.hu[1:])


def test_a_missing_or_damaged_mask_is_refused(tmp_path):
    ct = read_ct(written(image_of(), tmp_path / "scan.mha"))
    (tmp_path / "text.mha").write_text("no image")
    for name, reason in (("nowhere.mha", "no such file"), ("text.mha", "expected")):
        with pytest.raises(MaskError, match=f"{name}: expected the mask of .*scan.mha: .*{reason}"):
            read_labels(tmp_path / name, ct)


def test_a_series_cannot_be_chosen_in_an_image_file(tmp_path):
    with pytest.raises(InputError, match=r"scan\.mha: expected a DICOM folder or zip to choose series 1\.2 from"):
        read_ct(written(image_of(), tmp_path / "scan.mha"), series="1.2")


# Real scans


@pytest.mark.slow
@pytest.mark.data
def test_the_real_dicom_series_and_its_zip_are_read(data, tmp_path):
    folder = data / "ct/covid_P001_dicom"
    ct = read_ct(folder)
    assert ct.hu.shape == (148, 512, 512)
    assert ct.hu.min() == -1024
    assert ct.grid.spacing_mm == pytest.approx((0.748046875, 0.748046875, 2.0))
    assert ct.patient == Patient(39.0, "dicom", 1.0, "dicom")
    with zipfile.ZipFile(tmp_path / "P001.zip", "w") as packed:
        for file in folder.iterdir():
            packed.write(file, f"P001/{file.name}")
    np.testing.assert_array_equal(read_ct(tmp_path / "P001.zip").hu, ct.hu)
