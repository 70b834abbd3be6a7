"""JPEG files with nothing but their image (ITU-T T.81, B)."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator

from balaitous.errors import InputError
from balaitous.reading.picture_files import PictureFile, check_ratio, check_size
from balaitous.reading.picture_files.tiff import orientation_of

START, END = b"\xff\xd8", b"\xff\xd9"
HUFFMAN = {0xC0, 0xC1, 0xC2}  # baseline, extended, progressive: the frames that Pillow decodes
FRAMES = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
SCAN = 0xDA
WITHOUT_LENGTH = {0x00, 0x01, *range(0xD0, 0xDA)}  # which make no sense between segments
APPLICATIONS, COMMENT = set(range(0xE0, 0xF0)), 0xFE
COLOUR_APPLICATIONS = {0xE0, 0xEE}  # JFIF and Adobe, which tell what the channels are
EXIF_APPLICATION, EXIF = 0xE1, b"Exif\0\0"
MAXIMUM_RATIO = 512  # pixels a byte: one bit for each block of 8 × 8 in the first scan
MAXIMUM_SEGMENTS = 2**12
MAXIMUM_SCANS = 50  # each goes over all pixels; progressive JPEG have about ten
END_OF_SCAN = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]", re.DOTALL)  # neither a byte of the image nor a restart


def walk_jpeg(content: bytes) -> PictureFile:
    """A JPEG without comments, profiles, thumbnails and what follows its end, such as a second picture.

    Raises
    ------
    InputError : it is not whole, or not of a kind that is read; other damage may raise anything
    """
    kept, orientation, scans = [START], 1, 0
    frame: tuple[int, int] | None = None
    for marker, data, segment in _segments(content):
        if marker in FRAMES:
            if frame is not None:
                raise InputError("expected one image in a JPEG, found two; save it again")
            frame = _check_frame(marker, data)
        scans += marker == SCAN
        if marker == EXIF_APPLICATION and data.startswith(EXIF):
            orientation = orientation_of(data[len(EXIF) :])
        if marker not in APPLICATIONS - COLOUR_APPLICATIONS | {COMMENT}:
            kept.append(segment)
    if frame is None or not scans:
        raise InputError("expected a JPEG with an image, found none; copy it again")
    if scans > MAXIMUM_SCANS:
        raise InputError(f"expected at most {MAXIMUM_SCANS} scans in a JPEG, found {scans:,}; save it as PNG")
    width, height = frame
    check_size(width, height)
    check_ratio(width * height, len(content), MAXIMUM_RATIO)
    return PictureFile(b"".join([*kept, END]), width, height, bits=8, orientation=orientation)


def _check_frame(marker: int, data: bytes) -> tuple[int, int]:
    """Width and height of a frame that Pillow decodes."""
    bits, height, width, channels = struct.unpack(">BHHB", data[:6])
    if marker not in HUFFMAN or bits != 8:
        kind = f"one of {bits} bits" if marker in HUFFMAN else "a lossless, arithmetic or hierarchical one"
        raise InputError(f"expected a baseline or progressive JPEG of 8 bits, found {kind}; save it as PNG")
    if channels not in (1, 3):
        what = "CMYK" if channels == 4 else f"{channels} channels"
        raise InputError(f"expected a grey or RGB JPEG, found {what}; save it as grey or RGB")
    return width, height


def _segments(content: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """Marker, data and all bytes of each segment, with the image that follows a scan's, up to the end of the image."""
    place = len(START)
    for _ in range(MAXIMUM_SEGMENTS):
        while content[place : place + 2] == b"\xff\xff":  # padding
            place += 1
        if content[place : place + 2] == END:
            return
        start, marker, length = struct.unpack(">BBH", content[place : place + 4].ljust(4, b"\0"))
        end = place + 2 + length
        if start != 0xFF or marker in WITHOUT_LENGTH or length < 2 or end > len(content):
            raise InputError("expected a whole JPEG, found one that is cut short or damaged; copy it again")
        data = content[place + 4 : end]
        if marker == SCAN:
            found = END_OF_SCAN.search(content, end)
            end = found.start() if found else len(content)
        yield marker, data, content[place:end]
        place = end
    raise InputError(f"expected at most {MAXIMUM_SEGMENTS:,} segments of a JPEG, found more; save it again")
