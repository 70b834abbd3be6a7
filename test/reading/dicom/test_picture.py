"""One DICOM frame as a picture: the order of modality, values of interest and presentation, every kind of pixels."""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom import dcmread, dcmwrite
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.pixels import apply_voi, apply_windowing, convert_color_space
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    RLELossless,
)

from balaitous.errors import InputError
from balaitous.reading.dicom.picture import look_up, window
from balaitous.reading.pictures import read_picture

RNG = np.random.default_rng(0)
SHAPE = (20, 30)  # Y, X
STORED = RNG.integers(0, 4096, SHAPE).astype(np.uint16)
RGB = np.dstack([np.add.outer(np.arange(20), np.arange(30)) * each % 250 for each in (2, 3, 4)]).astype(np.uint8)
PERCENTILES = "12 bit: 0.1…99.9 percentiles"


def dicom(path: Path, pixels: np.ndarray | bytes = STORED, syntax=ExplicitVRLittleEndian, **elements) -> Path:
    """A radiograph of 12 bits; `elements` overwrite or, when None, remove some."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = DigitalXRayImageStorageForPresentation, "1.2.3"
    meta.TransferSyntaxUID = syntax
    image = FileDataset(str(path), {}, file_meta=meta, preamble=bytes(128))
    big = syntax == ExplicitVRBigEndian
    data = (
        pixels if isinstance(pixels, bytes) else pixels.astype(pixels.dtype.newbyteorder(">" if big else "<")).tobytes()
    )
    values = {
        "SOPClassUID": DigitalXRayImageStorageForPresentation,
        "SOPInstanceUID": "1.2.3",
        "Modality": "DX",
        "Rows": SHAPE[0],
        "Columns": SHAPE[1],
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "BitsAllocated": 16,
        "BitsStored": 12,
        "HighBit": elements.get("BitsStored", 12) - 1,
        "PixelRepresentation": 0,
        "PixelData": data + b"\0" * (len(data) % 2),
        **elements,
    }
    for key, value in values.items():
        if value is not None:
            setattr(image, key, value)
    image["PixelData"].VR = "OB" if values["BitsAllocated"] == 8 or syntax.is_encapsulated else "OW"
    dcmwrite(path, image, enforce_file_format=True)
    return path


def colour(path: Path, pixels: np.ndarray | bytes = RGB, syntax=ExplicitVRLittleEndian, **elements) -> Path:
    """An ultrasound still in RGB."""
    kinds = {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB", "PlanarConfiguration": 0}
    return dicom(path, pixels, syntax, **{**kinds, "BitsAllocated": 8, "BitsStored": 8, **elements})


def refused(path: Path, reason: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(InputError, match=reason) as caught:
            read_picture(path)
    assert str(caught.value).startswith(str(path))
    assert str(caught.value).isprintable()


def table(entries: list[int], first: int, bits: int, vr: str = "US") -> Dataset:
    item = Dataset()
    item.LUTDescriptor = [len(entries) % 65536, first, bits]
    item["LUTDescriptor"].VR = "SS" if first < 0 else "US"
    if vr == "OW":
        item.LUTData = np.asarray(entries, "<u2").tobytes()
    else:
        item.LUTData = entries
    item["LUTData"].VR = vr
    return item


# --- values and grey --------------------------------------------------------------------------------------------------


def test_without_a_window_the_picture_s_own_percentiles_count(tmp_path):
    picture = read_picture(dicom(tmp_path / "film.dcm"))
    low, high = np.percentile(STORED, (0.1, 99.9))
    np.testing.assert_allclose(picture.grey, np.clip((STORED - low) / (high - low), 0, 1), atol=1e-6)
    assert picture.grey.dtype == np.float32
    assert np.array_equal(picture.values, STORED)
    assert (picture.name, picture.bits, picture.colour, picture.spacing_mm) == ("film", 12, 0.0, None)
    assert picture.converted == (f"{PERCENTILES} ({low:g}…{high:g}) to 0…1",)


def test_8_bit_is_divided_by_255(tmp_path):
    grey = RNG.integers(0, 256, SHAPE).astype(np.uint8)
    picture = read_picture(dicom(tmp_path / "a.dcm", grey, BitsAllocated=8, BitsStored=8))
    assert np.array_equal(picture.grey, grey.astype(np.float32) / np.float32(255))
    assert picture.converted == ()


def test_a_window_shows_what_lies_in_it(tmp_path):
    picture = read_picture(dicom(tmp_path / "a.dcm", WindowCenter=2000, WindowWidth=1000))
    np.testing.assert_allclose(picture.grey, window(STORED, 2000, 1000))
    assert (picture.grey[STORED <= 1500] == 0).all()
    assert (picture.grey[STORED > 2499] == 1).all()
    assert picture.converted == ("window 2000, 1000 (LINEAR)",)


def test_of_several_windows_the_first_counts(tmp_path):
    one = read_picture(dicom(tmp_path / "a.dcm", WindowCenter=2000, WindowWidth=1000))
    several = read_picture(dicom(tmp_path / "b.dcm", WindowCenter=[2000, 40], WindowWidth=[1000, 400]))
    assert np.array_equal(one.grey, several.grey)


def test_rescale_comes_before_the_window(tmp_path):
    options = {"RescaleSlope": 2, "RescaleIntercept": -1024, "WindowCenter": 1000, "WindowWidth": 3000}
    picture = read_picture(dicom(tmp_path / "a.dcm", **options))
    np.testing.assert_allclose(picture.grey, window(STORED * 2.0 - 1024, 1000, 3000))
    assert np.array_equal(picture.values, STORED)
    assert picture.converted == ("rescaled by 2 and -1024", "window 1000, 3000 (LINEAR)")


def test_monochrome1_is_inverted_last(tmp_path):
    for options in ({}, {"WindowCenter": 2000, "WindowWidth": 1000}, {"VOILUTSequence": [table([0, 9, 255], 100, 8)]}):
        plain = read_picture(dicom(tmp_path / "a.dcm", **options))
        inverted = read_picture(dicom(tmp_path / "b.dcm", PhotometricInterpretation="MONOCHROME1", **options))
        np.testing.assert_allclose(inverted.grey, 1 - plain.grey, atol=1e-6)
        assert np.array_equal(inverted.values, STORED)
        assert inverted.converted == (*plain.converted, "MONOCHROME1 inverted")


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize(("center", "width"), [(2000.0, 1000.0), (0.5, 1.0), (-100.0, 4096.0), (40.0, 2.5)])
def test_windows_follow_the_standard_and_pydicom(function, center, width):
    x = np.arange(-3000, 3000)
    found = window(x, center, width, function)
    # PS3.3, C.11.2.1.2.1, C.11.2.1.3.1 and C.11.2.1.3.2, written out, with ymin 0 and ymax 1
    if function == "LINEAR":
        expected = [
            0
            if v <= center - 0.5 - (width - 1) / 2
            else 1
            if v > center - 0.5 + (width - 1) / 2
            else (v - (center - 0.5)) / (width - 1) + 0.5
            for v in x
        ]
    elif function == "LINEAR_EXACT":
        expected = [
            0 if v <= center - width / 2 else 1 if v > center + width / 2 else (v - center) / width + 0.5 for v in x
        ]
    else:
        with np.errstate(over="ignore"):
            expected = 1 / (1 + np.exp(-4 * (x - center) / width))
    np.testing.assert_allclose(found, expected, atol=1e-6)
    header = Dataset()
    header.PhotometricInterpretation, header.BitsStored, header.PixelRepresentation = "MONOCHROME2", 16, 0
    header.WindowCenter, header.WindowWidth, header.VOILUTFunction = center, width, function
    with np.errstate(over="ignore"):
        np.testing.assert_allclose(found, apply_windowing(x, header) / 65535, atol=1e-6)


def test_the_function_of_a_window_is_the_file_s(tmp_path):
    path = dicom(tmp_path / "a.dcm", WindowCenter=2000, WindowWidth=1000, VOILUTFunction="SIGMOID")
    picture = read_picture(path)
    np.testing.assert_allclose(picture.grey, 1 / (1 + np.exp(-4 * (STORED - 2000.0) / 1000)), atol=1e-6)
    assert picture.converted == ("window 2000, 1000 (SIGMOID)",)
    refused(dicom(tmp_path / "b.dcm", WindowCenter=1, WindowWidth=1, VOILUTFunction="CUBIC"), "found 'CUBIC'")


@pytest.mark.parametrize("width", [0, -5, 0.5])
def test_a_window_that_is_none_leaves_the_percentiles(tmp_path, width):
    picture = read_picture(dicom(tmp_path / "a.dcm", WindowCenter=2000, WindowWidth=width))
    assert picture.converted[0].startswith(PERCENTILES)
    exact = dicom(tmp_path / "b.dcm", WindowCenter=2000, WindowWidth=width, VOILUTFunction="LINEAR_EXACT")
    assert read_picture(exact).converted[0].startswith("window" if width == 0.5 else PERCENTILES)


@pytest.mark.parametrize("vr", ["US", "OW"])
def test_a_voi_table_wins_over_a_window(tmp_path, vr):
    entries = list(range(0, 1024, 1))
    options = {"VOILUTSequence": [table(entries, 1000, 10, vr)], "WindowCenter": 1, "WindowWidth": 1}
    picture = read_picture(dicom(tmp_path / "a.dcm", **options))
    np.testing.assert_allclose(picture.grey, np.clip(STORED.astype(float) - 1000, 0, 1023) / 1023, atol=1e-6)
    assert picture.converted == ("VOI LUT",)


def test_a_modality_table_comes_first(tmp_path):
    lut = table(list(range(4095, -1, -1)), 0, 12)
    picture = read_picture(dicom(tmp_path / "a.dcm", ModalityLUTSequence=[lut], WindowCenter=2000, WindowWidth=1000))
    np.testing.assert_allclose(picture.grey, window(4095 - STORED.astype(int), 2000, 1000))
    assert picture.converted == ("modality LUT", "window 2000, 1000 (LINEAR)")


@pytest.mark.parametrize("bits", [8, 10, 16])
def test_tables_are_pydicom_s_where_those_are_right(bits):
    entries = RNG.integers(0, 2**bits, 200).tolist()
    header = Dataset()
    header.VOILUTSequence = [table(entries, 50, bits)]
    values = np.arange(0, 300).reshape(15, 20)
    found, depth = look_up(values, header.VOILUTSequence[0])
    assert np.array_equal(found, apply_voi(values, header))
    assert depth == bits


def test_a_long_table_of_8_bit_entries_is_not_cut_at_256():
    """In pydicom 3.0 the index is as short as the entries."""
    entries = [k // 16 for k in range(4096)]
    found, _ = look_up(np.arange(4096), table(entries, 0, 8))
    assert found.tolist() == entries


def test_tables_of_packed_bytes_and_negative_numbers():
    item = table([0, 1, 2, 3], 0, 8)
    del item.LUTData
    item.add_new("LUTData", "OW", bytes([0, 1, 2, 3]))
    assert look_up(np.array([0, 3, 9]), item)[0].tolist() == [0, 3, 3]
    below_and_above = np.array([-3, -2, -1, 0, 1, 2])
    for first in (-2, 2**16 - 2):
        assert look_up(below_and_above, table([5, 6, 7, 8], first, 8))[0].tolist() == [5, 5, 6, 7, 8, 8]
    item.LUTData = bytes(1)
    with pytest.raises(InputError, match="expected a table of 4 entries"):
        look_up(below_and_above, item)


@given(
    st.lists(st.integers(0, 4095), min_size=320, max_size=320),
    st.floats(-5000, 5000),
    st.floats(-10, 5000),
    st.sampled_from(["LINEAR", "LINEAR_EXACT", "SIGMOID"]),
    st.sampled_from(["MONOCHROME1", "MONOCHROME2"]),
)
@settings(deadline=None, max_examples=30)
def test_grey_lies_between_black_and_white(tmp_path_factory, numbers, center, width, function, photometric):
    path = tmp_path_factory.mktemp("d") / "a.dcm"
    pixels = np.array(numbers, np.uint16)
    center, width = (float(f"{each:.6g}") for each in (center, width))
    shape = {"Rows": 16, "Columns": 20, "PhotometricInterpretation": photometric}
    picture = read_picture(
        dicom(path, pixels, WindowCenter=center, WindowWidth=width, VOILUTFunction=function, **shape)
    )
    assert np.array_equal(picture.values.ravel(), pixels)
    assert 0 <= picture.grey.min() <= picture.grey.max() <= 1


# --- pixels -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian])
def test_native_pixels(tmp_path, syntax):
    assert np.array_equal(read_picture(dicom(tmp_path / "a.dcm", syntax=syntax)).values, STORED)


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("compressor", ["JPEG", "JPEG2000"])
def test_compressed_pixels_are_decoded_without_loss(tmp_path, compressor, photometric):
    file = tmp_path / "itk.dcm"
    image = sitk.GetImageFromArray(STORED)
    sitk.WriteImage(image, str(file), useCompression=True, imageIO="GDCMImageIO", compressor=compressor)
    packed = dcmread(file)
    frames = list(generate_frames(packed.PixelData, number_of_frames=1))
    syntax = {"JPEG": JPEGLosslessSV1, "JPEG2000": JPEG2000Lossless}[compressor]
    options = {"BitsStored": 16, "PhotometricInterpretation": photometric, "RescaleSlope": 1, "RescaleIntercept": -9}
    path = dicom(tmp_path / "a.dcm", encapsulate(frames), syntax, WindowCenter=2000, WindowWidth=1000, **options)
    picture = read_picture(path)
    assert np.array_equal(picture.values, STORED)
    expected = window(STORED - 9.0, 2000, 1000)
    np.testing.assert_allclose(picture.grey, expected if photometric.endswith("2") else 1 - expected, atol=1e-6)


def test_run_length_encoded_pixels(tmp_path):
    for name, write in (("grey", dicom), ("colour", colour)):
        plain = read_picture(write(tmp_path / f"{name}.dcm"))
        dataset = dcmread(tmp_path / f"{name}.dcm")
        dataset.compress(RLELossless, generate_instance_uid=False)
        dataset.save_as(tmp_path / f"{name}_rle.dcm")
        assert np.array_equal(read_picture(tmp_path / f"{name}_rle.dcm").values, plain.values)


def test_signed_numbers_and_bits_beside_them(tmp_path):
    signed = RNG.integers(-2048, 2048, SHAPE).astype(np.int16)
    picture = read_picture(dicom(tmp_path / "a.dcm", signed, PixelRepresentation=1))
    assert np.array_equal(picture.values, signed)
    overlaid = STORED | (RNG.integers(0, 16, SHAPE).astype(np.uint16) << 12)  # an overlay in the upper four bits
    assert np.array_equal(read_picture(dicom(tmp_path / "b.dcm", overlaid)).values, STORED)


def subsampled(ybr: np.ndarray) -> bytes:
    pairs = [ybr[:, ::2, 0], ybr[:, 1::2, 0], ybr[:, ::2, 1], ybr[:, ::2, 2]]
    return np.stack(pairs, axis=-1).tobytes()


def test_colours(tmp_path):
    ybr = convert_color_space(RGB, "RGB", "YBR_FULL")
    planes = {"PlanarConfiguration": 1}
    for tolerance, path in (
        (0, colour(tmp_path / "rgb.dcm")),
        (0, colour(tmp_path / "planes.dcm", RGB.transpose(2, 0, 1), **planes)),
        (1, colour(tmp_path / "ybr.dcm", ybr, PhotometricInterpretation="YBR_FULL")),
        (15, colour(tmp_path / "422.dcm", subsampled(ybr), PhotometricInterpretation="YBR_FULL_422")),
    ):
        picture = read_picture(path)
        assert np.abs(picture.values.astype(int) - RGB).max() <= tolerance, path
        luma = np.asarray(Image.fromarray(picture.values).convert("L"))
        assert np.array_equal(picture.grey * 255, luma)
        assert picture.colour > 0.5
        assert (picture.bits, picture.converted[-1]) == (8, "RGB to luma")


@pytest.mark.parametrize("photometric", ["YBR_FULL_422", "YBR_FULL", "RGB"])
@pytest.mark.parametrize("subsampling", [0, 2])
def test_colours_in_jpeg_are_those_that_the_jpeg_tells(tmp_path, photometric, subsampling):
    stream = io.BytesIO()
    Image.fromarray(RGB).save(stream, "JPEG", quality=95, subsampling=subsampling)
    path = colour(
        tmp_path / "a.dcm", encapsulate([stream.getvalue()]), JPEGBaseline8Bit, PhotometricInterpretation=photometric
    )
    assert np.abs(read_picture(path).values.astype(int) - np.asarray(Image.open(stream))).max() <= 1


def test_a_palette(tmp_path):
    index = RNG.integers(0, 256, SHAPE).astype(np.uint8)
    tables = [RNG.integers(0, 65536, 256).astype("<u2") for _ in range(3)]
    elements = {}
    for name, entries in zip(("Red", "Green", "Blue"), tables, strict=True):
        elements[f"{name}PaletteColorLookupTableDescriptor"] = [256, 0, 16]
        elements[f"{name}PaletteColorLookupTableData"] = entries.tobytes()
    kind = {"PhotometricInterpretation": "PALETTE COLOR", "BitsAllocated": 8, "BitsStored": 8}
    picture = read_picture(dicom(tmp_path / "a.dcm", index, **kind, **elements))
    assert np.array_equal(picture.values, np.dstack([(entries >> 8)[index] for entries in tables]))
    assert picture.converted == ("palette to RGB", "RGB to luma")


# --- what the header says ---------------------------------------------------------------------------------------------


def test_spacing_is_x_y_and_says_which_it_is(tmp_path):
    both = {"PixelSpacing": [0.2, 0.1], "ImagerPixelSpacing": [0.4, 0.3]}
    picture = read_picture(dicom(tmp_path / "a.dcm", **both))
    assert (picture.spacing_mm, picture.converted[0]) == ((0.1, 0.2), "spacing from PixelSpacing")
    picture = read_picture(dicom(tmp_path / "b.dcm", ImagerPixelSpacing=[0.4, 0.3]))
    assert (picture.spacing_mm, picture.converted[0]) == ((0.3, 0.4), "spacing from ImagerPixelSpacing")
    picture = read_picture(dicom(tmp_path / "c.dcm", PixelSpacing=[0, 0.1], ImagerPixelSpacing=[0.4, 0.3]))
    assert picture.spacing_mm == (0.3, 0.4)


def test_age_and_sex_come_from_the_header_then_from_a_side_car(tmp_path):
    path = dicom(tmp_path / "film.dcm", PatientAge="045Y")
    (tmp_path / "film.json").write_text('{"age": 50, "sex": "M"}')
    patient = read_picture(path).patient
    assert (patient.age_years, patient.age_source, patient.sex, patient.sex_source) == (45, "dicom", 1.0, "sidecar")


@pytest.mark.parametrize("name", ["IM0001", "1.2.840.10008", "film.DCM", "film.dicom"])
def test_dicom_needs_no_ending(tmp_path, name):
    assert np.array_equal(read_picture(dicom(tmp_path / name)).values, STORED)


# --- defects ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("elements", "reason"),
    [
        ({"NumberOfFrames": 30}, "found 30; give the frame as a picture, or a model that reads clips"),
        ({"Rows": 1, "Columns": 1}, "at least 16 × 16 pixels"),
        ({"Rows": 60_000, "Columns": 60_000}, "at most 67,108,864 pixels"),
        ({"Rows": 5000, "Columns": 5000}, "expected 50,000,000 bytes of pixels"),
        ({"Rows": 21}, "expected 1,260 bytes of pixels in .*, found 1,200; it is cut short"),
        ({"PhotometricInterpretation": "HSV"}, "found 'HSV' with 1 numbers a pixel"),
        ({"SamplesPerPixel": 3}, "found 'MONOCHROME2' with 3 numbers a pixel"),
        ({"BitsAllocated": 64}, "found 12 of 64"),
        ({"BitsStored": 17}, "found 17 of 16"),
        ({"HighBit": 15}, "found 12 of 16"),
        ({"Rows": None}, "expected a readable DICOM file, found a damaged one"),
        ({"RescaleSlope": "nan", "RescaleIntercept": "0"}, "expected numbers to rescale by, found nan and 0.0"),
        ({"VOILUTSequence": [Dataset()]}, "found a damaged one"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "expected"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*nan:UserWarning")
def test_what_is_no_picture(tmp_path, elements, reason):
    refused(dicom(tmp_path / "a.dcm", **elements), reason)


def test_no_pixels(tmp_path):
    path = dicom(tmp_path / "a.dcm")
    dataset = dcmread(path)
    del dataset.PixelData
    dataset.save_as(path)
    refused(path, "expected a DICOM file with pixels, found none")


def test_no_dicom_a_piece_of_it_and_deflated(tmp_path):
    path = dicom(tmp_path / "a.dcm")
    content = path.read_bytes()
    for size in (4, 131, 140, 400, len(content) - 300):
        path.write_bytes(content[:size])
        refused(path, "expected")
    path.write_bytes(b"no DICOM at all " * 20)
    refused(path, "found a damaged one")
    refused(dicom(path, syntax=DeflatedExplicitVRLittleEndian), "expected no deflated DICOM, found one in a.dcm")


def test_an_image_of_another_size_than_the_header_says(tmp_path):
    stream = io.BytesIO()
    Image.new("L", (300, 200)).save(stream, "JPEG")
    path = dicom(tmp_path / "a.dcm", encapsulate([stream.getvalue()]), JPEGBaseline8Bit, BitsAllocated=8, BitsStored=8)
    refused(path, "expected a compressed image of 20 × 30 grey pixels of at most 8 bits .* found 200 × 300")


def test_a_jpeg_of_many_scans(tmp_path):
    stream = io.BytesIO()
    Image.fromarray(RGB[..., 0]).save(stream, "JPEG")
    frame = stream.getvalue()[:-2] + b"\xff\xda\0\x02" * 60 + b"\xff\xd9"
    path = dicom(tmp_path / "a.dcm", encapsulate([frame]), JPEGBaseline8Bit, BitsAllocated=8, BitsStored=8)
    refused(path, "at most 50 scans in a JPEG, found 61")


@pytest.mark.data
def test_a_real_slice(data):
    """JPEG lossless, as the scanner wrote it."""
    path = sorted((data / "ct/covid_P001_dicom").iterdir())[70]
    picture = read_picture(path)
    expected = dcmread(path, stop_before_pixels=True)
    assert picture.grey.shape == (expected.Rows, expected.Columns)
    assert picture.spacing_mm == pytest.approx((float(expected.PixelSpacing[1]), float(expected.PixelSpacing[0])))
    assert 0.05 < picture.grey.mean() < 0.95
