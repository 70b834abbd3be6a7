"""Reading, orienting, resampling and writing of CT volumes, and one clear line for every input that is none."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import struct
import tempfile
import zipfile
from itertools import permutations, product
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from helpers import ROOT
from helpers.dicom import CORONAL, hu_volume, write_series

from balaitous.ct.patient import Patient
from balaitous.ct.volume import CT, read_ct, read_labels, resample, scan_name, write_mha
from balaitous.errors import InputError, MaskError

DATA = Path(os.environ.get("BALAITOUS_DATA", ROOT.parent / "shared" / "data")) / "ct"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"real scans are not at {DATA} (BALAITOUS_DATA)")

HU = hu_volume()
SPACING_MM, ORIGIN_MM = (0.7, 0.8, 2.5), (-123.4, 17.9, -301.7)
ORIENTATIONS = ["".join(letters) for axes in permutations(("LR", "PA", "SI")) for letters in product(*axes)]


def image_of(hu=HU, orientation="LPS", spacing_mm=SPACING_MM, origin_mm=ORIGIN_MM) -> sitk.Image:
    """SimpleITK image of LPS voxels, stored in another orientation (the letters say where the axes point)."""
    image = sitk.GetImageFromArray(hu)
    image.SetSpacing(spacing_mm)
    image.SetOrigin(origin_mm)
    return sitk.DICOMOrient(image, orientation)


def written(image, path, compressed=True) -> Path:
    sitk.WriteImage(image, os.fspath(path), useCompression=compressed)
    return path


def ct_of(hu, spacing_mm=SPACING_MM) -> CT:
    return CT(hu, spacing_mm, ORIGIN_MM, tuple(np.eye(3).ravel()), (False,) * 3, "scan", "scan.mha", None, Patient())


def as_published(stored: sitk.Image, spacing_mm) -> np.ndarray:
    """The published package's resampling of the stored image, then LPS."""
    size = (np.array(stored.GetSize()) * np.array(stored.GetSpacing()) / np.array(spacing_mm)).astype(int).tolist()
    resampled = sitk.Resample(
        *(stored, size, sitk.Transform(), sitk.sitkLinear, stored.GetOrigin()),
        *(spacing_mm, stored.GetDirection(), 0.0, stored.GetPixelID()),
    )
    return sitk.GetArrayFromImage(sitk.DICOMOrient(resampled, "LPS"))


def in_stored_order(values, orientation) -> tuple:
    return tuple(
        values[next(k for k, pair in enumerate(("LR", "PA", "SI")) if letter in pair)] for letter in orientation
    )


# Reading


@pytest.mark.parametrize("ending", [".mha", ".mhd", ".nii", ".nii.gz", ".nrrd", ".nhdr"])
@pytest.mark.parametrize("compressed", [True, False])
def test_every_format_gives_the_same_volume(tmp_path, ending, compressed):
    ct = read_ct(written(image_of(), tmp_path / f"scan{ending}", compressed))
    np.testing.assert_array_equal(ct.hu, HU)
    assert ct.hu.dtype == np.int16
    assert ct.spacing_mm == pytest.approx(SPACING_MM)
    assert ct.origin_mm == pytest.approx(ORIGIN_MM)
    assert ct.direction == pytest.approx(np.eye(3).ravel())
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
    assert ct.spacing_mm == pytest.approx(SPACING_MM)
    assert ct.origin_mm == pytest.approx(ORIGIN_MM)
    assert ct.direction == pytest.approx(np.eye(3).ravel())
    assert ct.reversed_axes == tuple(letter in orientation for letter in "RAI")
    assert in_stored_order((0, 1, 2), orientation) == tuple(np.argsort(ct.stored_axes))


@given(
    st.sampled_from(ORIENTATIONS),
    st.tuples(*[st.integers(-30, 30)] * 3),
)
@settings(max_examples=30, deadline=None)
def test_every_voxel_of_an_oblique_volume_keeps_its_place(tmp_path_factory, orientation, degrees):
    stored = image_of(orientation=orientation)
    turn = np.reshape(sitk.Euler3DTransform((0, 0, 0), *np.radians(degrees)).GetMatrix(), (3, 3))
    stored.SetDirection((turn @ np.reshape(stored.GetDirection(), (3, 3))).ravel())
    ct = read_ct(written(stored, tmp_path_factory.mktemp("oblique") / "scan.mha"))
    read = sitk.GetImageFromArray(np.ascontiguousarray(ct.hu))
    read.SetSpacing(ct.spacing_mm)
    read.SetOrigin(ct.origin_mm)
    read.SetDirection(ct.direction)
    for index in [(0, 0, 0), (7, 6, 5), (3, 1, 4)]:
        stored_index = stored.TransformPhysicalPointToIndex(read.TransformIndexToPhysicalPoint(index))
        assert stored[stored_index] == read[index]
    assert (np.diag(np.reshape(ct.direction, (3, 3))) > 0).all()


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
    assert ct.spacing_mm == pytest.approx((0.8, 0.7, 2.5), abs=1e-4)
    assert ct.reversed_axes == (reversed_, reversed_, False)
    assert (ct.series_uid, ct.name, ct.patient.age_years) == ("1.2.3", "series", 39.0)
    if not reversed_:
        assert ct.origin_mm == pytest.approx((-100.0, -120.0, -300.0))
        assert np.reshape(ct.direction, (3, 3))[:, 1] == pytest.approx(orientation[3:], abs=1e-6)
    assert len(files) == ct.hu.shape[0]


def test_a_named_coronal_series_is_turned_to_lps(tmp_path):
    write_series(tmp_path, HU, uid="1.2.3", orientation=CORONAL)
    ct = read_ct(tmp_path, series="1.2.3")
    # Slices run along +y, their rows along x, their columns along −z.
    np.testing.assert_array_equal(ct.hu, HU.transpose(1, 0, 2)[::-1])


def test_a_zip_gives_the_same_volume_as_its_folder_and_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "scratch"))
    (tmp_path / "scratch").mkdir()
    files = write_series(tmp_path / "series" / "deep", HU, uid="1.2.3", PatientSex="F")
    with zipfile.ZipFile(tmp_path / "series.zip", "w") as packed:
        for file in files:
            packed.write(file, file.relative_to(tmp_path))
    folder, unzipped = read_ct(tmp_path / "series"), read_ct(tmp_path / "series.zip")
    np.testing.assert_array_equal(unzipped.hu, folder.hu)
    assert dataclasses.replace(unzipped, hu=None, path="") == dataclasses.replace(folder, hu=None, path="")
    assert list((tmp_path / "scratch").iterdir()) == []


@pytest.mark.parametrize("member", ["../out.dcm", "/out.dcm", "a/../../out.dcm", "C:\\out.dcm", "..\\out.dcm"])
def test_a_zip_member_outside_the_folder_is_refused(tmp_path, member):
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as packed:
        packed.writestr(zipfile.ZipInfo(member), b"x")
    with pytest.raises(InputError, match=r"bad\.zip: expected plain files inside the zip's own folder, found"):
        read_ct(tmp_path / "bad.zip")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.zip"]


def test_a_zip_with_a_link_or_too_much_in_it_is_refused(tmp_path, monkeypatch):
    with zipfile.ZipFile(tmp_path / "link.zip", "w") as packed:
        link = zipfile.ZipInfo("link.dcm")
        link.external_attr = 0o120777 << 16
        packed.writestr(link, "/etc/passwd")
    with pytest.raises(InputError, match="which is a link or points outside"):
        read_ct(tmp_path / "link.zip")
    monkeypatch.setenv("BALAITOUS_MAX_GIB", "1e-9")
    with pytest.raises(InputError, match=r"expected at most 1e-09 GiB in the zip.*or raise BALAITOUS_MAX_GIB"):
        read_ct(tmp_path / "link.zip")


def test_a_damaged_zip_is_refused(tmp_path):
    (tmp_path / "bad.zip").write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(InputError, match=r"bad\.zip: expected a whole zip file of a DICOM folder, cannot unpack it"):
        read_ct(tmp_path / "bad.zip")


def test_a_slice_without_all_its_pixels_is_named(tmp_path):
    file = write_series(tmp_path, HU)[3]
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(InputError, match=f"expected 112 bytes of pixels in {file.name}, found 92; it is cut short"):
        read_ct(tmp_path)


# Resampling

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
@settings(max_examples=60, deadline=None)
def test_resampling_agrees_with_the_published_package_voxel_by_voxel(orientation, old_mm, new_mm, origin_mm, kind):
    stored = image_of(hu_volume((9, 10, 11)).astype(kind), orientation, old_mm, origin_mm)
    size = [int(n * old / new) for n, old, new in zip((11, 10, 9), old_mm, new_mm, strict=True)]
    if min(size) < 1 or old_mm == new_mm:
        return
    ct, stored = read_both(stored)
    resampled = resample(ct, new_mm)
    np.testing.assert_array_equal(resampled.hu, as_published(stored, in_stored_order(new_mm, orientation)))
    assert resampled.hu.dtype == kind
    assert resampled.spacing_mm == new_mm


@given(SPACINGS, SPACINGS)
@settings(max_examples=30, deadline=None)
def test_resample_keeps_the_physical_extent_to_less_than_a_voxel(old_mm, new_mm):
    ct = ct_of(hu_volume((20, 21, 22)), old_mm)
    resampled = resample(ct, new_mm)
    for n, old, m, new in zip((22, 21, 20), old_mm, resampled.hu.shape[::-1], new_mm, strict=True):
        assert -1e-9 <= n * old - m * new < new + 1e-9
    assert resampled.origin_mm == pytest.approx(ct.origin_mm)


@pytest.mark.parametrize("orientation", ["LPS", "RAS", "SLP"])
def test_resampling_a_ramp_in_mm_gives_the_same_ramp(orientation):
    z, y, x = np.meshgrid(np.arange(20) * 2.5, np.arange(21) * 0.8, np.arange(22) * 0.7, indexing="ij")
    ramp = (3 * z + 5 * y + 7 * x - 900).astype(np.float32)
    ct, _ = read_both(image_of(ramp, orientation))
    resampled = resample(ct, (1.1, 1.3, 5.0))
    k, j, i = np.meshgrid(*map(np.arange, resampled.hu.shape), indexing="ij")
    start = np.array(resampled.origin_mm) - np.array(ct.origin_mm)
    expected = 3 * (k * 5.0 + start[2]) + 5 * (j * 1.3 + start[1]) + 7 * (i * 1.1 + start[0]) - 900
    np.testing.assert_allclose(resampled.hu, expected, atol=1e-2)


def test_resampling_to_the_same_spacing_changes_nothing():
    ct = ct_of(HU)
    assert resample(ct, SPACING_MM) is ct


def test_resampling_a_volume_built_in_memory_matches_the_one_read_from_a_file(tmp_path):
    ct = dataclasses.replace(ct_of(HU), reversed_axes=(False, True, False))
    stored = image_of(orientation="LAS")
    np.testing.assert_array_equal(resample(ct, (1.5, 1.5, 5.0)).hu, as_published(stored, (1.5, 1.5, 5.0)))


def test_a_volume_thinner_than_one_new_voxel_is_refused():
    with pytest.raises(InputError, match=r"scan\.mha: expected a chest, found 5\.6 × 5\.6 × 3 mm"):
        resample(ct_of(HU, (0.7, 0.8, 0.5)))


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
    assert again.origin_mm == pytest.approx(ct.origin_mm)


# Input that cannot be used


def refused(path, reason, **arguments) -> None:
    """Reading ends in one line that starts with the path and matches `reason`."""
    with pytest.raises(InputError, match=reason) as caught:
        read_ct(path, **arguments)
    message = str(caught.value)
    assert message.startswith(f"{path}: expected ")
    assert "\n" not in message
    assert len(message) < 500


def test_a_missing_path_is_refused(tmp_path):
    refused(tmp_path / "none.mha", "found nothing; check the path")


def test_an_unknown_ending_is_refused_with_those_that_are_read(tmp_path):
    (tmp_path / "scan.txt").write_text("text")
    (tmp_path / "slice.dcm").write_text("text")
    refused(tmp_path / "scan.txt", r"expected \.mha, \.mhd, \.nii\.gz, .* found '\.txt'")
    refused(tmp_path / "slice.dcm", "a single DICOM file; give its folder")


@pytest.mark.parametrize("ending", [".mha", ".mhd", ".nii", ".nii.gz", ".nrrd"])
def test_text_an_empty_file_and_an_lfs_pointer_are_no_images(tmp_path, ending, capfd):
    path = tmp_path / f"scan{ending}"
    path.write_text("hello, I am a text\n" * 40)
    refused(path, "header|not what its ending says")
    path.write_bytes(b"")
    refused(path, "found an empty file")
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    refused(path, "git-LFS pointer")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("ending", [".mha", ".mhd", ".nii", ".nii.gz", ".nrrd"])
@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize("damage", ["cut in the middle", "last byte gone"])
def test_a_file_that_is_cut_short_is_refused(tmp_path, ending, compressed, damage, capfd):
    path = written(image_of(hu_volume((20, 30, 40))), tmp_path / f"scan{ending}", compressed)
    voxels = next((each for each in tmp_path.iterdir() if each.suffix in {".raw", ".zraw"}), path)
    whole = voxels.read_bytes()
    voxels.write_bytes(whole[: len(whole) // 2] if damage == "cut in the middle" else whole[:-1])
    refused(path, "cut short|header")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("ending", [".mha", ".mhd", ".nii.gz", ".nrrd"])
def test_damaged_compressed_voxels_are_refused(tmp_path, ending, capfd):
    path = written(image_of(hu_volume((20, 30, 40))), tmp_path / f"scan{ending}")
    voxels = next((each for each in tmp_path.iterdir() if each.suffix == ".zraw"), path)
    damaged = bytearray(voxels.read_bytes())
    damaged[-3000] ^= 0xFF
    voxels.write_bytes(damaged)
    refused(path, "damaged|not what its ending says")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("DimSize", "10000 10000 10000", "expected at most 2,147,483,648 voxels, .* 10000 × 10000 × 10000"),
        ("DimSize", "-8 7 6", "expected at most 2,147,483,648 voxels"),
        ("DimSize", "1000 1000 1000", "expected 2,000,000,000 bytes of voxels as its header declares"),
        ("DimSize", "8 7 0", "found one slice"),
        ("DimSize", None, "expected a MetaImage header with DimSize"),
        ("ElementSpacing", "0 1 1", r"expected voxel sizes in mm, found \(0\.0"),
        ("ElementSpacing", "-1 1 1", r"expected voxel sizes in mm, found \(-1\.0"),
        ("ElementSpacing", "nan 1 1", "expected voxel sizes in mm"),
        ("ElementSpacing", "700 700 700", r"expected voxel sizes in mm, found \(700\.0"),
        ("TransformMatrix", "1 0.4 0 0 1 0 0 0 1", "expected axes at right angles"),
        ("TransformMatrix", "0 0 0 0 0 0 0 0 0", "expected axes at right angles"),
        ("ElementType", "MET_NOTHING", "expected a readable image"),
        ("ElementDataFile", "gone.raw", r"expected its voxels in gone\.raw"),
    ],
)
@pytest.mark.parametrize("compressed", [True, False])
def test_a_header_that_cannot_be_true_is_refused(tmp_path, key, value, reason, compressed, capfd):
    path = written(image_of(), tmp_path / "scan.mha", compressed)
    line = b"" if value is None else f"{key} = {value}\n".encode()
    path.write_bytes(re.sub(f"{key} = .*\n".encode(), line, path.read_bytes(), count=1))
    refused(path, reason)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(("value", "reason"), [(None, "expected CompressedDataSize"), ("50", "cut short")])
def test_compressed_voxels_of_untold_or_wrong_length_are_refused(tmp_path, value, reason, capfd):
    path = written(image_of(), tmp_path / "scan.mha")
    line = b"" if value is None else f"CompressedDataSize = {value}\n".encode()
    path.write_bytes(re.sub(b"CompressedDataSize = .*\n", line, path.read_bytes(), count=1))
    refused(path, reason)
    assert capfd.readouterr() == ("", "")


def test_a_sheared_nifti_is_refused_without_noise(tmp_path, capfd):
    raw = bytearray(written(image_of(), tmp_path / "scan.nii").read_bytes())
    raw[252:256] = struct.pack("<hh", 0, 1)  # qform_code, sform_code
    raw[280:328] = struct.pack("<12f", 1, 0.3, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0)
    (tmp_path / "scan.nii").write_bytes(raw)
    refused(tmp_path / "scan.nii", "ITK only supports orthonormal direction cosines")
    assert capfd.readouterr() == ("", "")


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


@needs_data
@pytest.mark.data
def test_the_real_dicom_series_and_its_zip_are_read(tmp_path):
    folder = DATA / "covid_P001_dicom"
    ct = read_ct(folder)
    assert ct.hu.shape == (148, 512, 512)
    assert ct.hu.min() == -1024
    assert ct.spacing_mm == pytest.approx((0.748046875, 0.748046875, 2.0))
    assert ct.patient == Patient(39.0, "dicom", 1.0, "dicom")
    with zipfile.ZipFile(tmp_path / "P001.zip", "w") as packed:
        for file in folder.iterdir():
            packed.write(file, f"P001/{file.name}")
    np.testing.assert_array_equal(read_ct(tmp_path / "P001.zip").hu, ct.hu)


@needs_data
@pytest.mark.data
@pytest.mark.parametrize("name", ["lowres_id001.nii.gz", "lungdx_A0001_native.mha"])
def test_real_scans_are_resampled_as_the_published_package_does(name):
    resampled = resample(read_ct(DATA / name))
    np.testing.assert_array_equal(resampled.hu, as_published(sitk.ReadImage(str(DATA / name)), (1.5, 1.5, 5.0)))


@needs_data
@pytest.mark.data
def test_a_real_lung_mask_is_not_taken_for_a_ct():
    refused(DATA / "lowres_id001_lungmask.nii.gz", "this looks like a label mask")
