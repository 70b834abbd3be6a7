"""Which files are DICOM, with or without the preamble, and what their headers say; no pixels are read here.

A DICOM file begins with 128 bytes of anything and the letters DICM, then its elements (PS3.10, 7.1). Old archives and
some scanners leave that beginning out: such a file is known by its first elements.
"""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import BinaryIO

from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_dataset, read_partial
from pydicom.tag import BaseTag, Tag
from pydicom.uid import (
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    EnhancedCTImageStorage,
    LegacyConvertedEnhancedCTImageStorage,
)
from pydicom.values import converters

ENHANCED_CT_CLASSES = (EnhancedCTImageStorage, LegacyConvertedEnhancedCTImageStorage)
CT_CLASSES = (CTImageStorage, *ENHANCED_CT_CLASSES)
PREAMBLE_BYTES, DICOM_MARK = 128, b"DICM"
START_BYTES = 2048  # enough for the elements that a file without preamble is known by
FIRST_GROUPS = (0x0002, 0x0008)  # of a file without preamble: file meta information, or the study and the object
KNOWN_FIRST_ELEMENTS = 3  # in growing order, that no other format begins with
LONGEST_FIRST_ELEMENT = 1024  # bytes; they hold UIDs, codes and dates
LONG_LENGTH_VRS = (b"OB", b"OW", b"UN", b"UT", b"SQ", b"UC", b"UR")  # with a length of four bytes after two reserved
MAXIMUM_HEADER_BYTES = 2**21  # of what a reader of single tags goes through; a CT slice has a few thousand


def looks_like_dicom(path: Path) -> bool:
    """Whether a file is DICOM by its first bytes, with the preamble or without it; False of what is no file.

    Raises
    ------
    OSError : it cannot be read
    """
    if not path.is_file():  # to open a pipe is to wait for ever
        return False
    with path.open("rb") as file:
        return _starts_as_dicom(file.read(START_BYTES))


def _starts_as_dicom(start: bytes) -> bool:
    if start[PREAMBLE_BYTES:].startswith(DICOM_MARK):
        return True
    return any(_starts_with_elements(start, order) for order in "<>")


def _starts_with_elements(start: bytes, order: str) -> bool:
    """Whether bytes begin with elements of the groups that DICOM begins with, in this order of bytes."""
    place, last = 0, (0, -1)
    for _ in range(KNOWN_FIRST_ELEMENTS):
        if place + 8 > len(start):
            return False
        tag = struct.unpack_from(f"{order}HH", start, place)
        vr = start[place + 4 : place + 6]
        if vr.decode("latin-1") not in converters:  # implicit
            (length,) = struct.unpack_from(f"{order}I", start, place + 4)
            place += 8
        elif vr in LONG_LENGTH_VRS:
            if place + 12 > len(start):
                return False
            (length,) = struct.unpack_from(f"{order}I", start, place + 8)
            place += 12
        else:
            (length,) = struct.unpack_from(f"{order}H", start, place + 6)
            place += 8
        if tag[0] not in FIRST_GROUPS or tag <= last or length > LONGEST_FIRST_ELEMENT:
            return False
        place, last = place + length, tag
    return True


def to_elements(stream: BinaryIO) -> None:
    """Move a stream from a file's start to its first element.

    Raises
    ------
    InvalidDicomError : if it is no DICOM file
    """
    start = stream.read(START_BYTES)
    if not _starts_as_dicom(start):
        raise InvalidDicomError("no DICOM file")
    has_preamble = start[PREAMBLE_BYTES:].startswith(DICOM_MARK)
    stream.seek(PREAMBLE_BYTES + len(DICOM_MARK) if has_preamble else 0)


def read_file_meta(stream: BinaryIO) -> Dataset:
    """The elements that a DICOM file begins with, which tell its transfer syntax; nothing else is read.

    Raises
    ------
    InvalidDicomError : if it is no DICOM file
    """
    to_elements(stream)
    return read_dataset(stream, False, True, stop_when=lambda tag, *_: Tag(tag).group != 2)


def read_header(file: Path, tags: list[BaseTag | int], most_bytes: int = MAXIMUM_HEADER_BYTES) -> FileDataset:
    """Some tags of a DICOM file; nothing behind the last of them is read.

    Raises
    ------
    InvalidDicomError : if it is no DICOM file
    Exception : of any kind, where its header is damaged, or longer than `most_bytes`
    """
    if not file.is_file():  # to open a pipe is to wait for ever
        raise InvalidDicomError("not a file")
    with _Header(file, most_bytes) as stream:
        meta = read_file_meta(stream)
        if meta.get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian:  # pydicom and GDCM inflate it whole
            if meta.get("MediaStorageSOPClassUID") in CT_CLASSES:
                raise ValueError("deflated; write it in another transfer syntax")
            return FileDataset(file, {}, file_meta=FileMetaDataset(meta))
        stream.seek(0)
        last = max(map(int, tags))
        return read_partial(stream, stop_when=lambda tag, *_: int(tag) > last, specific_tags=tags, force=True)


class _Header(io.BufferedReader):
    """A file of which only so many bytes can be read: sequences of empty items would take pydicom minutes."""

    def __init__(self, file: Path, most_bytes: int) -> None:
        super().__init__(io.FileIO(file))
        self.most = self.left = most_bytes

    def read(self, size: int | None = -1, /) -> bytes:
        self.left -= self.most if size is None or size < 0 else size
        if self.left < 0:
            raise ValueError(f"longer than {self.most:,} bytes")
        return super().read(size)
