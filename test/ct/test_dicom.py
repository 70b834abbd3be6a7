"""Which series of a DICOM folder is chosen, in which order, and what is refused."""

from __future__ import annotations

import pytest
from pydicom.uid import EnhancedCTImageStorage, SecondaryCaptureImageStorage

from balaitous.ct.dicom import select_series
from balaitous.errors import InputError
from balaitous.reading.patient import Patient
from helpers.dicom import CORONAL, hu_volume, write_series

HU = hu_volume()


def test_slices_are_ordered_by_position_whatever_their_names(tmp_path):
    files = write_series(tmp_path, HU, uid="1.2.3")
    chosen = select_series(tmp_path)
    assert chosen.uid == "1.2.3"
    assert list(chosen.files) == files


def test_slices_are_ordered_along_the_normal_of_a_prone_patient(tmp_path):
    files = write_series(tmp_path, HU, orientation=(-1.0, 0.0, 0.0, 0.0, -1.0, 0.0))
    assert list(select_series(tmp_path).files) == files


def test_the_largest_axial_series_is_chosen_and_others_can_be_named(tmp_path):
    write_series(tmp_path / "a", HU[:4], uid="1.2.1")
    largest_axial = write_series(tmp_path / "b" / "deep", HU, uid="1.2.2")
    coronal = write_series(tmp_path / "c", hu_volume((9, 7, 8)), uid="1.2.3", orientation=CORONAL)
    assert list(select_series(tmp_path).files) == largest_axial
    assert list(select_series(tmp_path, "1.2.3").files) == coronal
    with pytest.raises(InputError, match=r"expected series 1\.2\.9, found 1\.2\.1 \(4 slices\); 1\.2\.2 \(6 slices\)"):
        select_series(tmp_path, "1.2.9")


def test_a_series_of_coronal_reformats_only_is_not_taken_for_the_ct(tmp_path):
    write_series(tmp_path, HU, uid="1.2.3", orientation=CORONAL)
    with pytest.raises(InputError, match=r"found no axial one in 1\.2\.3 \(6 slices\); choose one by its UID"):
        select_series(tmp_path)


def test_localizers_secondary_captures_and_other_files_are_left_out(tmp_path):
    files = write_series(tmp_path, HU, uid="1.2.3")
    write_series(
        tmp_path,
        HU[:1],
        uid="1.2.3",
        prefix="scout",
        orientation=CORONAL,
        ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"],
    )
    write_series(tmp_path, HU[:1], uid="1.2.3", prefix="dose", SOPClassUID=SecondaryCaptureImageStorage)
    (tmp_path / "notes.txt").write_text("not an image")
    assert list(select_series(tmp_path).files) == files


def test_what_lies_in_a_folder_without_ct_is_named(tmp_path):
    write_series(tmp_path, HU[:2], SOPClassUID=SecondaryCaptureImageStorage)
    write_series(tmp_path, HU[:1], prefix="multi", SOPClassUID=EnhancedCTImageStorage)
    (tmp_path / "notes.txt").write_text("not an image")
    with pytest.raises(
        InputError,
        match=r"found 2 × DICOM of another kind \(CT\); 1 × multi-frame CT without .*; 1 × not DICOM; give a CT",
    ):
        select_series(tmp_path)


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(InputError, match="expected a folder with a CT series in DICOM, found no file"):
        select_series(tmp_path)


def test_a_file_that_is_there_twice_counts_once(tmp_path):
    files = write_series(tmp_path / "a", HU)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "copy.dcm").write_bytes(files[2].read_bytes())
    assert list(select_series(tmp_path).files) == files


def test_age_and_sex_come_from_the_headers(tmp_path):
    write_series(tmp_path, HU, PatientAge="039Y", PatientSex="M")
    assert select_series(tmp_path).patient == Patient(39.0, "dicom", 1.0, "dicom")


def test_a_missing_slice_is_refused(tmp_path):
    files = write_series(tmp_path, HU, uid="1.2.3")
    files[2].unlink()
    with pytest.raises(
        InputError,
        match=rf"series 1\.2\.3: expected slices 2\.50 mm apart, {files[1].name} and {files[3].name} are 5\.00 mm",
    ):
        select_series(tmp_path)


def test_positions_rounded_by_the_scanner_are_regular_enough(tmp_path):
    for index in range(12):
        position = ["-100", "-120", f"{index * 0.625:.1f}"]
        write_series(tmp_path, HU[:1], uid="1.2.3", prefix=f"{index}_", ImagePositionPatient=position)
    assert len(select_series(tmp_path).files) == 12


def test_two_slices_at_one_position_are_refused(tmp_path):
    write_series(tmp_path, HU, uid="1.2.3")
    write_series(tmp_path, HU, uid="1.2.3", prefix="second")
    with pytest.raises(InputError, match="expected one slice a position, found 6 of 11 steps without a move"):
        select_series(tmp_path)


def test_another_series_is_proposed_when_the_largest_is_broken(tmp_path):
    write_series(tmp_path / "a", HU, uid="1.2.1")[2].unlink()
    write_series(tmp_path / "b", HU[:4], uid="1.2.2")
    with pytest.raises(InputError, match=r"choose another series: 1\.2\.1 \(5 slices\); 1\.2\.2 \(4 slices\)"):
        select_series(tmp_path)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"orientation": CORONAL}, r"one orientation, found 1 like odd000.dcm and 6 like slice\d+.dcm"),
        ({"spacing_mm": (0.7, 0.9)}, r"expected one pixel spacing, found \[\(0\.7, 0\.8\), \(0\.7, 0\.9\)\] mm"),
        ({"Rows": 6}, r"expected slices of one size, found \[\(6, 8\), \(7, 8\)\]"),
    ],
)
def test_a_slice_that_does_not_fit_the_others_is_refused(tmp_path, change, reason):
    write_series(tmp_path, HU, uid="1.2.3")
    write_series(tmp_path, HU[:1], uid="1.2.3", prefix="odd", **change)
    with pytest.raises(InputError, match=reason):
        select_series(tmp_path)


def test_a_tilted_gantry_is_named_with_its_angle(tmp_path):
    write_series(tmp_path, HU, drift_mm=0.25)
    with pytest.raises(InputError, match=r"drift by 1\.2 mm sideways: a gantry tilt of 5\.7°"):
        select_series(tmp_path)


def test_one_slice_is_refused(tmp_path):
    write_series(tmp_path, HU[:1])
    with pytest.raises(InputError, match="found one slice; give the whole series"):
        select_series(tmp_path)


@pytest.mark.parametrize(
    ("tags", "reason"),
    [
        ({"PixelSpacing": ["0", "0"]}, "expected a pixel spacing in mm"),
        ({"ImageOrientationPatient": ["1", "0", "0", "1", "0", "0"]}, "no axial one"),
        ({"Rows": 65535, "Columns": 65535}, "expected at most 2,147,483,648 voxels"),
        ({"ImagePositionPatient": None}, "6 × CT image without position, direction or spacing"),
    ],
)
def test_headers_that_make_no_volume_are_refused(tmp_path, tags, reason):
    write_series(tmp_path, HU, **tags)
    with pytest.raises(InputError, match=reason):
        select_series(tmp_path)


def test_a_damaged_header_is_named(tmp_path):
    file = write_series(tmp_path, HU)[0]
    file.write_bytes(file.read_bytes().replace(b"-100\\-120", b"-1x0\\-120"))
    with pytest.raises(InputError, match=f"{file.name} has a damaged header") as caught:
        select_series(tmp_path)
    assert "\n" not in str(caught.value)


def test_an_oblique_axial_series_is_read(tmp_path):
    oblique = (1.0, 0.0, 0.0, 0.0, 0.984807753, 0.173648178)
    files = write_series(tmp_path, HU, orientation=oblique)
    assert list(select_series(tmp_path).files) == files
