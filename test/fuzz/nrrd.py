"""NRRD: attached raw and gzip, detached, in a list of files."""

from __future__ import annotations

import gzip
from pathlib import Path

from fuzz.metaimage import VOXELS
from fuzz.reading import read_or_refuse

HEADER = (
    "NRRD0005\n# made by a fuzz target\ntype: short\ndimension: 3\nspace: left-posterior-superior\nsizes: 5 4 3\n"
    "space directions: (1,0,0) (0,1,0) (0,0,1)\nkinds: domain domain domain\nendian: little\nencoding: {encoding}\n"
    "space origin: (0,0,0)\nPatientAge:=045Y\n{more}"
)
TOKENS = [
    *(
        b"data file: ",
        b"LIST\n",
        b"../",
        b"/",
        b"-",
        b"slice%d.raw 0 2 1",
        b"%n%d",
        b"byte skip: ",
        b"line skip: ",
        b"-1",
    ),
    *(
        b"nan",
        b"inf",
        b"none",
        b"0",
        b"99999999999999999999",
        b"2147483648",
        b"double",
        b"block",
        b"block size: 9",
        b"hex",
    ),
    *(b"ascii", b"gzip", b"raw", b"bzip2", b": ", b":=", b"\n", b"\n\n", b"\r", b"\0", b"vector", b"3-vector"),
]


def seeds() -> list[bytes]:
    detached = [
        "data file: voxels.raw\n",
        "data file: slice%d.raw 0 2 1\n",
        "data file: LIST\nslice0.raw\nslice1.raw\n",
    ]
    return [
        HEADER.format(encoding="raw", more="\n").encode() + VOXELS,
        HEADER.format(encoding="gzip", more="\n").encode() + gzip.compress(VOXELS, mtime=0),
        *(HEADER.format(encoding="raw", more=f"byte skip: 0\n{each}").encode() for each in detached),
    ]


def check(data: bytes, folder: Path) -> None:
    (folder / "voxels.raw").write_bytes(VOXELS)
    for number in range(3):
        (folder / f"slice{number}.raw").write_bytes(VOXELS[number * 40 : (number + 1) * 40])
    (folder / "scan.nhdr").write_bytes(data)
    read_or_refuse(folder / "scan.nhdr")
