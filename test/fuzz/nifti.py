"""NIfTI-1 and NIfTI-2, plain and gzipped: an input that is not gzipped is read in both forms."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

from fuzz.metaimage import VOXELS
from fuzz.reading import read_or_refuse

TOKENS = [
    *(struct.pack(f"{order}f", value) for order in "<>" for value in (float("nan"), float("inf"), -1, 1e30, 352)),
    *(struct.pack(f"{order}h", value) for order in "<>" for value in (-1, 0, 1, 7, 64, 1024, 2304, 32767)),
    *(b"n+1\0", b"ni1\0", b"n+2\0\r\n\x1a\n", b"\x1f\x8b\x08"),
]


def header(order: str) -> bytes:
    """A header of 352 bytes, of `VOXELS` as int16."""
    return b"".join(
        [
            struct.pack(f"{order}i36x", 348),
            struct.pack(f"{order}8h14x", 3, 5, 4, 3, 1, 1, 1, 1),
            struct.pack(f"{order}hhh", 4, 16, 0),
            struct.pack(f"{order}8f", 1, 1, 1, 1, 0, 0, 0, 0),
            struct.pack(f"{order}fff", 352, 1, 0),
            bytes(132),
            struct.pack(f"{order}hh", 1, 1),
            struct.pack(f"{order}6f", 0, 0, 0, 0, 0, 0),
            struct.pack(f"{order}12f", 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0),
            b"\0" * 16 + b"n+1\0" + bytes(4),
        ]
    )


def header_2(order: str) -> bytes:
    """A header of 544 bytes likewise, of NIfTI-2."""
    content = bytearray(544)
    for place, kind, *numbers in (
        (0, "i8shh", 540, b"n+2\0\r\n\x1a\n", 4, 16),
        (16, "8q", 3, 5, 4, 3, 1, 1, 1, 1),
        (104, "8d", 1, 1, 1, 1, 0, 0, 0, 0),
        (168, "qdd", 544, 1, 0),
        (344, "ii", 1, 1),
        (400, "12d", 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0),
    ):
        struct.pack_into(order + kind, content, place, *numbers)
    return bytes(content)


def seeds() -> list[bytes]:
    plain = header("<") + VOXELS
    return [
        plain,
        header(">") + VOXELS,
        header_2("<") + VOXELS,
        gzip.compress(plain, mtime=0),
        gzip.compress(plain[:400]) + gzip.compress(plain[400:]),
    ]


def check(data: bytes, folder: Path) -> None:
    (folder / "scan.nii").write_bytes(data)
    read_or_refuse(folder / "scan.nii")
    if not data.startswith(b"\x1f\x8b"):
        data = gzip.compress(data, compresslevel=1)
    (folder / "packed.nii.gz").write_bytes(data)
    read_or_refuse(folder / "packed.nii.gz")
