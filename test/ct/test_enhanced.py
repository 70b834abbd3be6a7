"""Enhanced CT: one stack is read as single files are, whatever more is refused by its name."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pydicom
import pytest
from pydicom.uid import ImplicitVRLittleEndian, LegacyConvertedEnhancedCTImageStorage, RLELossless

from balaitous.ct.volume import read_ct
from fuzz import dicom as dicom_target
from helpers.dicom import AXIAL, CORONAL, edit, hu_volume, item, write_enhanced, write_series
from helpers.images import refused

HU = hu_volume()


def test_a_file_is_read_as_its_slices_in_single_files_are(tmp_path):
    write_enhanced(tmp_path / "multi" / "ct.dcm", HU, PatientAge="039Y", PatientSex="F")
    write_series(tmp_path / "single", HU, uid="1.2.3", PatientAge="039Y", PatientSex="F")
    multi, single = (read_ct(tmp_path / name) for name in ("multi", "single"))
    np.testing.assert_array_equal(multi.hu, single.hu)
    assert (multi.grid, multi.stored, multi.patient) == (single.grid, single.stored, single.patient)
    assert (multi.series_uid, multi.series) == ("1.2.3", "2.5 mm, 6 slices")


def test_frames_are_ordered_by_position(tmp_path):
    write_enhanced(tmp_path / "ct.dcm", HU[::-1], step_mm=-2.5, first=0)
    np.testing.assert_array_equal(read_ct(tmp_path).hu, HU)


def test_several_files_make_one_stack(tmp_path):
    write_enhanced(tmp_path / "b.dcm", HU[:2])
    write_enhanced(tmp_path / "a.dcm", HU[2:], first=2)
    np.testing.assert_array_equal(read_ct(tmp_path).hu, HU)


def test_legacy_converted_ct_and_implicit_elements_are_read(tmp_path):
    file = write_enhanced(tmp_path / "ct.dcm", HU, SOPClassUID=LegacyConvertedEnhancedCTImageStorage)
    file.write_bytes(dicom_target.in_syntax(file.read_bytes(), ImplicitVRLittleEndian))
    np.testing.assert_array_equal(read_ct(tmp_path).hu, HU)


def test_groups_of_a_frame_itself_are_read(tmp_path):
    def rescaled(index):
        return {"PixelValueTransformationSequence": {"RescaleIntercept": "-1024", "RescaleSlope": "1"}}

    file = write_enhanced(tmp_path / "ct.dcm", HU, each=rescaled)
    dataset = pydicom.dcmread(file)
    del dataset.SharedFunctionalGroupsSequence[0].PixelValueTransformationSequence
    dataset.save_as(file)
    np.testing.assert_array_equal(read_ct(tmp_path).hu, HU)


def test_run_lengths_are_read(tmp_path):
    file = write_enhanced(tmp_path / "ct.dcm", HU)
    dataset = pydicom.dcmread(file)
    dataset.compress(RLELossless, generate_instance_uid=False)
    dataset.save_as(file)
    np.testing.assert_array_equal(read_ct(tmp_path).hu, HU)


@pytest.mark.parametrize("compressor", ["JPEG", "JPEG2000"])
def test_compressed_frames_are_read(tmp_path, compressor):
    single = pydicom.dcmread(BytesIO(dicom_target.compressed(compressor)))
    image = next(pydicom.encaps.generate_frames(single.PixelData, number_of_frames=1))
    syntax = single.file_meta.TransferSyntaxUID
    wanted = pydicom.dcmread(BytesIO(dicom_target.slices()[1])).pixel_array.astype(int) - 1024
    bits = {"BitsStored": 16, "HighBit": 15}
    write_enhanced(tmp_path / "ct.dcm", np.stack([wanted] * 3), compressed=(syntax, [image] * 3), **bits)
    np.testing.assert_array_equal(read_ct(tmp_path).hu, np.stack([wanted] * 3))


def test_a_compressed_frame_of_another_size_is_refused(tmp_path):
    single = pydicom.dcmread(BytesIO(dicom_target.compressed("JPEG")))
    image = next(pydicom.encaps.generate_frames(single.PixelData, number_of_frames=1))
    write_enhanced(tmp_path / "ct.dcm", HU[:3], compressed=(single.file_meta.TransferSyntaxUID, [image] * 3))
    refused(tmp_path, "expected a compressed image of 7 × 8 grey pixels .* in ct.dcm, frame 1, found 16 × 16")


def place(z_mm: float) -> dict:
    return {"ImagePositionPatient": ["-100", "-120", f"{z_mm:g}"]}


@pytest.mark.parametrize(
    ("group", "values", "reason"),
    [
        ("FrameContent", lambda k: {"StackID": str(1 + k // 3)}, r"one stack, found 2: 1 \(3 frames\), 2 \(3"),
        ("FrameContent", lambda k: {"TemporalPositionIndex": 1 + k % 2}, r"one point in time, found 2: 1 \(3"),
        (
            "CardiacSynchronization",
            lambda k: {"NominalPercentageOfCardiacPhase": 40.0 + 30 * (k % 2)},
            r"one phase of the heart, found 2: 40.0 \(3 frames\), 70.0",
        ),
        ("CTImageFrameType", lambda k: {"FrameType": ["DERIVED", str(k)]}, "one type of frame, found 6"),
        (
            "PlanePosition",
            lambda k: place(2.5 * (k // 2)),
            "one slice a position, found 3 of 5 steps without a move .such as from ct.dcm, frame 1 to ct.dcm, frame 2",
        ),
        (
            "PlanePosition",
            lambda k: place(2.5 * k + 2 * (k > 3)),
            "ct.dcm, frame 4 and ct.dcm, frame 5 are 4.50 mm apart",
        ),
        (
            "PixelValueTransformation",
            lambda k: {"RescaleIntercept": "0" if k == 2 else "-1024", "RescaleSlope": "1"},
            "ct.dcm, frame 3 has the RescaleIntercept 0, the others have -1024",
        ),
        (
            "PlaneOrientation",
            lambda k: {"ImageOrientationPatient": [str(each) for each in (AXIAL if k else CORONAL)]},
            "slices of one orientation",
        ),
    ],
    ids=["stacks", "times", "heart", "types", "positions", "steps", "rescale", "orientation"],
)
def test_what_is_no_single_regular_stack_is_refused_by_its_name(tmp_path, group, values, reason):
    file = write_enhanced(tmp_path / "ct.dcm", HU)
    dataset = pydicom.dcmread(file)
    for index, frame in enumerate(dataset.PerFrameFunctionalGroupsSequence):
        setattr(frame, f"{group}Sequence", [item(**values(index))])
    dataset.save_as(file)
    refused(tmp_path, reason)


@pytest.mark.parametrize(
    ("tags", "reason"),
    [
        ({"NumberOfFrames": 7}, "damaged header .6 descriptions of 7 frames"),
        ({"NumberOfFrames": 2**31 - 1}, "expected at most 2,147,483,648 voxels, ct.dcm declares 2147483647 frames"),
        ({"Rows": 7000, "Columns": 8000}, "336,000,000 pixels as the headers declare, found"),
        ({"PixelData": bytes(100)}, "expected 672 bytes of pixels in ct.dcm, found 100; it is cut short"),
        ({"PerFrameFunctionalGroupsSequence": None}, "1 × multi-frame CT without positions, directions or"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, "found 1 × localizer"),
        ({"SharedFunctionalGroupsSequence": None}, "found 1 × multi-frame CT without positions"),
    ],
)
def test_a_file_that_holds_other_frames_than_it_declares_is_refused(tmp_path, tags, reason):
    write_enhanced(tmp_path / "ct.dcm", HU, **tags)
    refused(tmp_path, reason)


def test_sequences_without_end_are_refused_before_they_are_read(tmp_path):
    file = write_enhanced(tmp_path / "ct.dcm", HU)
    dataset = pydicom.dcmread(file)
    dataset.SharedFunctionalGroupsSequence[0].UnassignedSharedConvertedAttributesSequence = [item()] * 3000
    dataset.save_as(file)
    refused(tmp_path, "expected 6 frames, ct.dcm has 3,0.. sequence items")


def test_a_series_in_several_files_of_which_one_lost_its_frames_is_refused(tmp_path):
    write_enhanced(tmp_path / "a.dcm", HU[:3])
    edit(write_enhanced(tmp_path / "b.dcm", HU[3:], first=3), PerFrameFunctionalGroupsSequence=None)
    refused(tmp_path, "every file of the series to be whole, b.dcm has frames without place")
