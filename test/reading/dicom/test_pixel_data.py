"""DICOM that a reader must not see: lengths, sequences, frames and compressed images that are not what they tell."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import pydicom
import pytest
from pydicom.encaps import encapsulate
from pydicom.uid import DeflatedExplicitVRLittleEndian, JPEG2000Lossless, JPEGLosslessSV1, JPEGLSLossless, RLELossless

from balaitous.ct.volume import read_ct
from balaitous.errors import InputError
from fuzz import dicom as dicom_target
from helpers.dicom import hu_volume, write_series
from helpers.headers import bomb
from helpers.images import HU, refused


def test_a_slice_without_all_its_pixels_is_named(tmp_path):
    file = write_series(tmp_path, HU)[3]
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(InputError, match=f"expected 112 bytes of pixels in {file.name}, found 92; it is cut short"):
        read_ct(tmp_path)


def one_changed(folder: Path, change) -> Path:
    """A series of which one file is changed: `change` gets its dataset, or its bytes and gives others."""
    file = write_series(folder, hu_volume((4, 16, 16)), shuffle=False)[1]
    if (content := change(file.read_bytes())) is not None:
        file.write_bytes(content)
    return folder


def with_before(content: bytes, tag: bytes, more: bytes) -> bytes:
    """Bytes of a slice with more before the element of a tag."""
    place = content.index(tag)
    return content[:place] + more + content[place:]


def sequence(tag: tuple[int, int], body: bytes, length: int | None = None) -> bytes:
    return struct.pack("<HH2sHI", *tag, b"SQ", 0, len(body) if length is None else length) + body


OPEN = 0xFFFFFFFF


ITEM, OPEN_ITEM = struct.pack("<HHI", 0xFFFE, 0xE000, 0), struct.pack("<HHI", 0xFFFE, 0xE000, OPEN)


ITEM_END, SEQUENCE_END = struct.pack("<HHI", 0xFFFE, 0xE00D, 0), struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)


SAMPLES_PER_PIXEL, PIXEL_DATA = b"\x28\0\2\0US", b"\xe0\x7f\x10\0O"


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: sequence((0x21, 0x1001), ITEM * 20_000 + SEQUENCE_END, OPEN), "20,000 sequence items"),
        (lambda: sequence((0x21, 0x1001), ITEM * 100_000), "100,000 sequence items"),
        (lambda: sequence((0x21, 0x1001), OPEN_ITEM * 1, OPEN) * 3000, "damaged header"),
        (
            lambda: sequence((0x21, 0x1001), (OPEN_ITEM + sequence((0x21, 0x1001), b"", OPEN)) * 20_000),
            "20,000 sequence items",
        ),
        (
            lambda: struct.pack("<HH2sHI", 0x21, 0x1001, b"OB", 0, 0xF0000000),
            "slice001.dcm has no PixelSpacing, Rows, Columns",
        ),
    ],
    ids=["items", "items of told length", "nested", "nested of told length", "4 GB"],
)
def test_sequences_that_would_end_a_reader_are_refused(tmp_path, make, reason):
    refused(one_changed(tmp_path / "series", lambda content: with_before(content, SAMPLES_PER_PIXEL, make())), reason)


def test_a_length_that_lies_between_the_tags_of_an_image_reaches_no_other_reader(tmp_path):
    lying = sequence(
        (0x51, 0x1001), ITEM[:4] + struct.pack("<I", 12) + struct.pack("<HH2sHI", 9, 1, b"OB", 0, 0x7FFFFFF0)
    )
    folder = one_changed(tmp_path / "series", lambda content: with_before(content, PIXEL_DATA, lying))
    assert read_ct(folder).hu.shape == (4, 16, 16)


def test_deflated_dicom_is_refused_before_it_is_inflated(tmp_path):
    def deflated(content: bytes) -> bytes:
        header = pydicom.dcmread(io.BytesIO(content), stop_before_pixels=True)
        header.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
        out = io.BytesIO()
        header.save_as(out)
        return out.getvalue() + bomb(-15)

    refused(one_changed(tmp_path / "series", deflated), "damaged header .deflated; write it in another transfer syntax")


def test_frames_colours_and_odd_pixels_are_refused(tmp_path):
    write_series(tmp_path / "frames", HU, NumberOfFrames=100_000)
    write_series(tmp_path / "colours", HU, SamplesPerPixel=3, PhotometricInterpretation="RGB", PlanarConfiguration=0)
    for name in ("frames", "colours"):
        refused(tmp_path / name, "found 6 × CT image with several frames or colours")
    write_series(tmp_path / "bits", HU, BitsAllocated=65535)
    refused(tmp_path / "bits", "expected 7 × 8 pixels of 8, 16 or 32 bits")
    write_series(tmp_path / "huge", HU, Rows=18_000, Columns=18_000)
    refused(tmp_path / "huge", "expected 1,944,000,000 pixels as the headers declare|expected .* bytes of pixels")


@pytest.mark.parametrize("tag", ["ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "RescaleSlope"])
@pytest.mark.filterwarnings("ignore:Invalid value for VR DS")
def test_numbers_that_are_none_are_refused(tmp_path, tag):
    size = {"ImagePositionPatient": 3, "ImageOrientationPatient": 6, "PixelSpacing": 2, "RescaleSlope": 1}[tag]
    write_series(tmp_path / "series", HU, **{tag: ["nan"] * size})
    refused(tmp_path / "series", "damaged header .not all numbers in")


def jpeg(marker: int, rows: int, columns: int) -> bytes:
    return b"\xff\xd8\xff" + struct.pack(">BHBHHB3B", marker, 11, 16, rows, columns, 1, 1, 0x11, 0) + bytes(64)


def jpeg2000(rows: int, columns: int, components=1, tile=None, depth=15) -> bytes:
    tile = tile or (columns, rows)
    size = struct.pack(">H8IH", 0, columns, rows, 0, 0, *tile, 0, 0, components) + bytes((depth, 1, 1)) * components
    return b"\xff\x4f\xff\x51" + struct.pack(">H", len(size) + 2) + size + bytes(64)


@pytest.mark.parametrize(
    ("syntax", "image", "reason"),
    [
        (JPEGLosslessSV1, jpeg(0xC3, 60_000, 60_000), "found 60000 × 60000 with 1 colours"),
        (JPEGLSLossless, jpeg(0xF7, 60_000, 60_000), "found 60000 × 60000 with 1 colours"),
        (JPEG2000Lossless, jpeg2000(20_000, 20_000), "found 20000 × 20000 with 1 colours"),
        (JPEG2000Lossless, jpeg2000(16, 16, components=16_000), "with 16000 colours"),
        (JPEG2000Lossless, jpeg2000(16, 2**32 - 1, tile=(1, 1)), "a JPEG 2000 image of 68719476720 tiles"),
        (JPEG2000Lossless, b"\0\0\0\x0cjP  ", "expected JPEG, JPEG-LS or JPEG 2000"),
        (JPEGLosslessSV1, b"\xff\xd8\xff\xe0\0\0", "is damaged"),
        (JPEGLosslessSV1, b"\xff\xd8\xff" + jpeg(0xC3, 7, 8)[2:], "no frame at the beginning"),
        (JPEG2000Lossless, jpeg2000(7, 8, depth=31), "found 7 × 8 with 1 colours of 32 bits"),
        (RLELossless, b"\2\0\0\0" + bytes(60), "is damaged"),
        (RLELossless, bytes(64), "is damaged"),  # no segments: GDCM divided by their number
        (RLELossless, b"\2\0\0\0" + bytes(4000), "expected at most 2 × 512 bytes of run-length encoded pixels"),
    ],
)
def test_a_compressed_image_that_tells_another_size_is_refused(tmp_path, syntax, image, reason):
    def encapsulated(content: bytes) -> bytes:
        dataset = pydicom.dcmread(io.BytesIO(content))
        dataset.file_meta.TransferSyntaxUID = syntax
        dataset.PixelData = encapsulate([image])
        return dicom_target.written(dataset)

    refused(one_changed(tmp_path / "series", encapsulated), reason)


@pytest.mark.parametrize("precision", [17, 18, 255])
def test_a_jpeg_with_more_bits_than_a_pixel_has_is_refused(tmp_path, precision):
    first, _, last = dicom_target.slices()
    middle = bytearray(next(seed for seed in dicom_target.seeds() if b"\xff\xd8\xff\xc3" in seed))
    middle[middle.index(b"\xff\xd8\xff\xc3") + 6] = precision
    for name, content in zip("abc", (first, middle, last), strict=True):
        (tmp_path / f"{name}.dcm").write_bytes(content)
    refused(tmp_path, f"at most 16 bits in b.dcm, found 16 × 16 with 1 colours of {precision} bits")
