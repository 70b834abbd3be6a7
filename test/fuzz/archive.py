"""Zips of a DICOM folder."""

from __future__ import annotations

import zipfile
from io import BytesIO
from pathlib import Path

from fuzz.dicom import slices
from fuzz.reading import read_or_refuse

TOKENS = [
    *(b"PK\1\2", b"PK\3\4", b"PK\5\6", b"PK\6\6", b"PK\6\7", b"../", b"/", b"\\", b"\0", b"C:", b"\xff\xff\xff\xff"),
    *(b"\xff\xff", b"\0\0\0\0", b"\x0c\0", b"\x0e\0", b"\x08\0", b"\x01\0", b"a/" * 40),
]


def seeds() -> list[bytes]:
    return [packed(zipfile.ZIP_DEFLATED), packed(zipfile.ZIP_STORED), packed(zipfile.ZIP_LZMA)]


def packed(method: int) -> bytes:
    out = BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for number, content in enumerate(slices()):
            archive.writestr(zipfile.ZipInfo(f"series/{number}.dcm"), content, method)
    return out.getvalue()


def check(data: bytes, folder: Path) -> None:
    (folder / "series.zip").write_bytes(data)
    read_or_refuse(folder / "series.zip")
