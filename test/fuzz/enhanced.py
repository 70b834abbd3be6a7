"""Enhanced CT: one file of four frames, native or with run lengths."""

from __future__ import annotations

import tempfile
from functools import cache
from io import BytesIO
from pathlib import Path

import pydicom
from pydicom.uid import RLELossless

from fuzz.dicom import TOKENS, written
from fuzz.reading import read_or_refuse
from helpers.dicom import hu_volume, write_enhanced

__all__ = ["TOKENS", "check", "seeds"]


@cache
def seeds() -> list[bytes]:
    with tempfile.TemporaryDirectory() as folder:
        native = write_enhanced(Path(folder, "ct.dcm"), hu_volume((4, 16, 16))).read_bytes()
    packed = pydicom.dcmread(BytesIO(native))
    packed.compress(RLELossless, generate_instance_uid=False)
    return [native, written(packed)]


def check(data: bytes, folder: Path) -> None:
    (folder / "ct.dcm").write_bytes(data)
    read_or_refuse(folder)
