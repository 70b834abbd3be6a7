"""Side-cars: JSON beside a scan that is as it should be."""

from __future__ import annotations

from pathlib import Path

from fuzz import metaimage
from fuzz.reading import read_or_refuse

TOKENS = [
    *(
        b"[" * 5000,
        b'{"age":' * 2000,
        b"1e999",
        b"-0",
        b"NaN",
        b"Infinity",
        b"null",
        b"true",
        b"9" * 5000,
        b'"045Y"',
        b"\\ud800",
    ),
    *(b"\xff\xfe", b"\xef\xbb\xbf", b"\0", b'"age"', b'"sex"', b'"PatientSex"', b"{}", b"[]", b"0.5", b'"\\u001b[2J"'),
]


def seeds() -> list[bytes]:
    return [b'{"age": 45, "sex": "M"}', b'{"PatientAge": "045Y", "PatientSex": "F"}', b'{"age": null, "more": [1, {}]}']


def check(data: bytes, folder: Path) -> None:
    (folder / "scan.mha").write_bytes(metaimage.seeds()[0])
    (folder / "scan.json").write_bytes(data)
    read_or_refuse(folder / "scan.mha")
