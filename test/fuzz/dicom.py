"""DICOM: one slice of three, native, JPEG, JPEG 2000 or RLE; the other two are as they should be."""

from __future__ import annotations

import struct
import tempfile
from functools import cache
from io import BytesIO
from pathlib import Path

import pydicom
import SimpleITK as sitk
from pydicom.encaps import encapsulate
from pydicom.uid import ImplicitVRLittleEndian, RLELossless

from fuzz.reading import read_or_refuse
from helpers.dicom import hu_volume, write_series

UID = "1.2.3"
EMPTY_ITEM = struct.pack("<HHI", 0xFFFE, 0xE000, 0)
OPEN_SEQUENCE = struct.pack("<HH2sHI", 0x0018, 0x9999, b"SQ", 0, 0xFFFFFFFF) + EMPTY_ITEM[:4] + b"\xff" * 4
TOKENS = [
    *(b"1.2.840.10008.1.2.1.99", b"1.2.840.10008.1.2.4.80", b"1.2.840.10008.1.2.4.50", b"1.2.840.10008.1.2.2"),
    *(
        b"\xff\xff\xff\xff",
        b"\xfe\xff\xff\xff",
        b"\0\0\0\0",
        b"\xff\x7f",
        b"SQ\0\0",
        b"UN\0\0",
        b"OB\0\0",
        b"OW\0\0",
        b"nan",
    ),
    *(
        EMPTY_ITEM,
        EMPTY_ITEM * 1000,
        OPEN_SEQUENCE,
        OPEN_SEQUENCE * 500,
        b"\xfe\xff\xdd\xe0\0\0\0\0",
        b"\\",
        b"inf",
        b"1e308",
    ),
    *(
        b"\xff\xd8",
        b"\xff\x4f\xff\x51",
        b"\xff\xc3",
        b"\xff\xf7",
        b"\xff\xda",
        b"\xff\xd9",
        b"\x28\0\x08\0IS\x04\0999 ",
    ),
]


@cache
def slices() -> list[bytes]:
    """Three slices of one series, native."""
    with tempfile.TemporaryDirectory() as folder:
        files = write_series(Path(folder), hu_volume((3, 16, 16)), uid=UID, shuffle=False, PatientAge="045Y")
        return [file.read_bytes() for file in files]


def seeds() -> list[bytes]:
    native = slices()[1]
    return [
        native,
        in_syntax(native, ImplicitVRLittleEndian),
        run_length(native),
        *map(compressed, ("JPEG", "JPEG2000")),
    ]


def in_syntax(content: bytes, syntax: str) -> bytes:
    dataset = pydicom.dcmread(BytesIO(content))
    dataset.file_meta.TransferSyntaxUID = syntax
    out = BytesIO()
    dataset.save_as(out, implicit_vr=syntax == ImplicitVRLittleEndian, little_endian=True)
    return out.getvalue()


def run_length(content: bytes) -> bytes:
    dataset = pydicom.dcmread(BytesIO(content))
    dataset.compress(RLELossless, generate_instance_uid=False)
    return written(dataset)


def compressed(compressor: str) -> bytes:
    """The middle slice with its pixels compressed by GDCM."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "slice.dcm")
        file.write_bytes(slices()[1])
        image = sitk.Cast(sitk.ReadImage(str(file)) + 1024, sitk.sitkUInt16)
        sitk.WriteImage(image, str(file), useCompression=True, imageIO="GDCMImageIO", compressor=compressor)
        packed = pydicom.dcmread(file)
    dataset = pydicom.dcmread(BytesIO(slices()[1]))
    dataset.file_meta.TransferSyntaxUID = packed.file_meta.TransferSyntaxUID
    for keyword in ("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"):
        setattr(dataset, keyword, getattr(packed, keyword))
    dataset.PixelData = encapsulate(list(pydicom.encaps.generate_frames(packed.PixelData, number_of_frames=1)))
    return written(dataset)


def written(dataset: pydicom.Dataset) -> bytes:
    out = BytesIO()
    dataset.save_as(out)
    return out.getvalue()


def check(data: bytes, folder: Path) -> None:
    for number, content in enumerate((slices()[0], data, slices()[2])):
        (folder / f"{number}.dcm").write_bytes(content)
    read_or_refuse(folder)
