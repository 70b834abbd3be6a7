"""Pictures: PNG, JPEG, TIFF and one DICOM frame, of every mode that is read.

The first byte of an input says which of the four it is.
"""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from balaitous.reading.pictures import read_picture
from fuzz import dicom
from fuzz.reading import refusal_in_words

ENDINGS = (".png", ".jpg", ".tif", ".dcm")
PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
TOKENS = [
    *(b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND", b"acTL", b"eXIf", b"iCCP", b"zTXt"),
    *(
        b"\xff\xd8",
        b"\xff\xc0",
        b"\xff\xc2",
        b"\xff\xc4",
        b"\xff\xda",
        b"\xff\xd9",
        b"\xff\xdb",
        b"\xff\xe1",
        b"\xff\xee",
    ),
    *(
        b"\xff\xdd\0\x04\0\x01",
        b"\xff\xff\xff\xff",
        b"\0\0\0\0",
        b"\xff\x7f",
        b"\0\0\x80\0",
        b"II*\0",
        b"MM\0*",
        b"Exif\0\0",
    ),
    *(struct.pack("<HHII", tag, 4, 1, value) for tag in (256, 257, 262, 277, 278, 284) for value in (0, 2, 2**31)),
    *(b"RGB ", b"YBR_FULL_422", b"PALETTE COLOR", b"MONOCHROME1", b"SIGMOID ", b"nan ", b"1e308 ", b"\\"),
    struct.pack("<HH2sHI", 0x0028, 0x3010, b"SQ", 0, 0xFFFFFFFF),
]


def seeds() -> list[bytes]:
    ramp = Image.fromarray(np.arange(400, dtype=np.uint16).reshape(20, 20))
    grey = Image.fromarray(np.add.outer(np.arange(20), np.arange(20)).astype(np.uint8) * 6)
    exif = Image.Exif()
    exif[274] = 6
    saved = [
        *((0, grey.convert(mode), {}) for mode in ("1", "L", "P", "LA", "RGBA")),
        *((0, ramp, {}), (0, grey, {"exif": exif})),
        *((1, grey, {}), (1, grey.convert("RGB"), {"progressive": True}), (1, grey, {"exif": exif})),
        *((2, grey, {}), (2, ramp, {}), (2, grey.convert("RGBA"), {"compression": "tiff_lzw"})),
        *((2, grey, {"compression": "tiff_adobe_deflate"}), (2, grey.convert("P"), {}), (2, ramp.convert("F"), {})),
        (2, grey.convert("1"), {"compression": "packbits"}),
    ]
    return [
        *(bytes([kind]) + written(kind, image, **options) for kind, image, options in saved),
        *map(frame, dicom.seeds()),
    ]


def written(kind: int, image: Image.Image, **options) -> bytes:
    out = io.BytesIO()
    image.save(out, ("PNG", "JPEG", "TIFF")[kind], **options)
    return out.getvalue()


def frame(content: bytes) -> bytes:
    return b"\3" + content


def with_checksums(content: bytes) -> bytes:
    """A PNG in which the checksum of every whole chunk is right, so that not each mutation ends there."""
    place, parts = len(PNG_MAGIC), [content[: len(PNG_MAGIC)]]
    while len(head := content[place : place + 8]) == 8:
        end = place + 8 + struct.unpack(">I", head[:4])[0]
        if end + 4 > len(content):
            break
        parts += [content[place:end], struct.pack(">I", zlib.crc32(content[place + 4 : end]))]
        place = end + 4
    return b"".join([*parts, content[place:]])


def check(data: bytes, folder: Path) -> None:
    ending = ENDINGS[data[0] % len(ENDINGS)] if data else ENDINGS[0]
    path = folder / f"picture{ending}"
    path.write_bytes(with_checksums(data[1:]) if ending == ".png" else data[1:])
    with refusal_in_words(path):
        picture = read_picture(path)
        assert picture.grey.ndim == 2, picture.grey.shape
        assert picture.grey.dtype == np.float32, picture.grey.dtype
        assert picture.values.shape[:2] == picture.grey.shape, picture.values.shape
        assert 0 <= picture.grey.min() <= picture.grey.max() <= 1  # NaN is not either
