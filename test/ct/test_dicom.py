"""Which series of a DICOM folder is chosen, in which order, and what is refused."""

from __future__ import annotations

import struct

import pydicom
import pytest
from pydicom.uid import EnhancedCTImageStorage, ExplicitVRBigEndian, SecondaryCaptureImageStorage

from balaitous.ct.dicom import select_series
from balaitous.errors import InputError
from balaitous.reading.patient import Patient
from helpers.dicom import CORONAL, edit, hu_volume, write_series
from helpers.images import refused

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


def cut(length):
    return lambda content: content[:length]


def zeros_from(start):
    return lambda content: content[:start] + bytes(len(content) - start)


def in_the_other_order(content):
    """The elements of a file in another order of bytes than its file meta information tells."""
    data = content[content.index(b"\x08\0\x08\0CS") :]
    return content[: -len(data)] + b"".join(
        struct.pack(">H", each) for each in struct.unpack(f"<{len(data) // 2}H", data)
    )


def without(tag):
    """The file with an element of two or three numbers renamed, so that it is one of another name."""
    return lambda content: content.replace(tag, b"\x21\0\x99\x10", 1)


DAMAGE = {
    "empty": (lambda content: b"", "is empty"),
    "zeroed": (lambda content: bytes(len(content)), "begins with zeros only"),
    "cut in the preamble": (cut(100), "begins with zeros only"),
    "cut after the preamble": (cut(132), "does not say what it is|damaged header"),
    "cut in the file meta information": (cut(200), "has no|does not say|damaged header"),
    "cut in the header": (cut(600), "has no|does not say|damaged header"),
    "cut in the pixels": (lambda content: content[:-20], "cut short"),
    "zeroed after the preamble": (zeros_from(132), "does not say|has no|damaged header"),
    "zeroed behind the start of the header": (zeros_from(400), "has no|damaged header|does not say"),
    "in another order of bytes": (in_the_other_order, "has no|damaged header|does not say"),
    "text": (lambda content: b"<html>404 not found</html>", "not readable as DICOM"),
    "a pointer": (lambda content: b"version https://git-lfs", "not readable as DICOM"),
    "without position": (without(b"\x20\0\x32\0"), "has no ImagePositionPatient"),
    "without direction": (without(b"\x20\0\x37\0"), "has no ImageOrientationPatient"),
    "without spacing": (without(b"\x28\0\x30\0"), "has no PixelSpacing"),
    "without rows": (without(b"\x28\0\x10\0"), "has no Rows"),
    "without series": (without(b"\x20\0\x0e\0"), "has none, 5 others have 1.2.3"),
    "with a damaged position": (lambda content: content.replace(b"-100\\-120\\", b"-1x0\\-120\\", 1), "damaged header"),
    "with another class": (
        lambda content: content.replace(b"1.2.840.10008.5.1.4.1.1.2\0", b"1.2.840.10008.5.1.4.1.9.2\0"),
        "is of a kind that DICOM does not know",
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("index", [0, -1])
def test_a_damaged_end_slice_is_named(tmp_path, damage, index):
    file = write_series(tmp_path, HU, uid="1.2.3", shuffle=False)[index]
    change, reason = DAMAGE[damage]
    file.write_bytes(change(file.read_bytes()))
    refused(tmp_path, f"{file.name}.*({reason})")


@pytest.mark.parametrize("naming", ["IM{:05d}", "1.2.840.113619.2.{}", "{:032x}", "I.{}", "ct_{}.IMA"])
@pytest.mark.parametrize("content", [b"", bytes(3000), b"<html>404 not found</html>"])
def test_what_is_named_as_the_slices_are_and_is_no_dicom_is_named(tmp_path, naming, content):
    files = write_series(tmp_path, HU, uid="1.2.3", shuffle=False)
    files = [file.rename(tmp_path / naming.format(7**9 + 31 * number)) for number, file in enumerate(files)]
    files[-1].write_bytes(content)
    refused(tmp_path, f"{files[-1].name} (is empty|begins with zeros only|is not readable as DICOM)")


def test_a_link_to_nothing_and_a_half_copied_slice_are_named(tmp_path):
    files = write_series(tmp_path, HU, shuffle=False)
    content = files[-1].read_bytes()
    files[-1].unlink()
    files[-1].symlink_to("nothing.dcm")
    refused(tmp_path, f"{files[-1].name} is a link to nothing|lies outside")
    files[-1].unlink()
    files[-1].with_suffix(".dcm.part").write_bytes(content[:100])
    refused(tmp_path, "slice005.dcm.part begins with zeros only")


@pytest.mark.parametrize("naming", ["slice{}.dcm", "IM{:05d}"])
def test_what_lies_beside_a_series_does_not_stop_it(tmp_path, naming):
    files = write_series(tmp_path, HU, uid="1.2.3", shuffle=False)
    files = [file.rename(tmp_path / naming.format(number)) for number, file in enumerate(files)]
    for name in (
        "README",
        "DICOMDIR",
        "report.pdf",
        "._" + files[0].name,
        ".DS_Store",
        "Thumbs.db",
        "VERSION",
        "a.json",
    ):
        (tmp_path / name).write_bytes(b"" if name == "VERSION" else bytes(200))
    write_series(tmp_path, HU[:1], uid="1.2.3", prefix="dose", SOPClassUID=SecondaryCaptureImageStorage)
    scout = {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"], "ImagePositionPatient": None}
    write_series(tmp_path, HU[:1], uid="1.2.3", prefix="scout", **scout)
    write_series(tmp_path / "other", HU[:1], uid="1.2.4", ImagePositionPatient=None)
    (tmp_path / "other" / "slice9.dcm").write_bytes(b"")
    assert list(select_series(tmp_path).files) == files


def test_a_damaged_file_of_another_series_does_not_matter(tmp_path):
    files = write_series(tmp_path, HU, uid="1.2.3")
    write_series(tmp_path, HU[:3], uid="1.2.4", prefix="other", PixelSpacing=None)
    assert list(select_series(tmp_path).files) == files


def test_files_without_preamble_class_and_uids_are_read(tmp_path):
    for file in write_series(tmp_path, HU, shuffle=False, SeriesInstanceUID=None):
        edit(file, SOPClassUID="", StudyInstanceUID="")
        if file.name == "slice000.dcm":
            content = file.read_bytes()  # no preamble and no file meta information either
            file.write_bytes(content[content.index(b"\x08\0\x08\0CS") :])
    chosen = select_series(tmp_path)
    assert (chosen.uid, len(chosen.slices)) == ("", 6)


def test_a_slice_in_the_other_order_of_bytes_that_says_so_is_read(tmp_path):
    files = write_series(tmp_path, HU, shuffle=False)
    dataset = pydicom.dcmread(files[-1])
    dataset.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    pydicom.dcmwrite(files[-1], dataset, implicit_vr=False, little_endian=False)
    assert list(select_series(tmp_path).files) == files


def test_the_series_that_was_read_and_the_others_are_told(tmp_path):
    soft = {"ConvolutionKernel": "B30f", "SliceThickness": "1.5"}
    write_series(tmp_path / "a", HU, uid="1.2.2", **soft)
    write_series(tmp_path / "b", HU, uid="1.2.3", ConvolutionKernel=["I70f", "3"], SliceThickness="1.250")
    write_series(tmp_path / "c", HU[:4], uid="1.2.4", SliceThickness="0", orientation=CORONAL)
    chosen = select_series(tmp_path)
    assert chosen.told == "B30f, 1.5 mm, 6 slices"
    assert chosen.others == "I70f/3, 1.25 mm, 6 slices (1.2.3); 4 slices (1.2.4)"
    assert (
        select_series(tmp_path, "1.2.4").others == "B30f, 1.5 mm, 6 slices (1.2.2); I70f/3, 1.25 mm, 6 slices (1.2.3)"
    )


def test_many_other_series_are_counted(tmp_path):
    write_series(tmp_path, HU, uid="1.2.0")
    for number in range(11):
        write_series(tmp_path, HU[:2], uid=f"1.3.{10 + number}", prefix=f"s{number:02d}_")
    assert select_series(tmp_path).others.endswith("2 slices (1.3.17); and 3 more")
