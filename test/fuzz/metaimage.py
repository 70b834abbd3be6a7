"""MetaImage: attached, compressed, and with its voxels in other files."""

from __future__ import annotations

import zlib
from pathlib import Path

from fuzz.reading import read_or_refuse
from helpers.dicom import hu_volume

VOXELS = hu_volume((3, 4, 5)).tobytes()
HEADER = (
    "ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\nCompressedData = {compressed}\n"
    "{more}TransformMatrix = 1 0 0 0 1 0 0 0 1\nOffset = 0 0 0\nElementSpacing = 1 1 1\nDimSize = 5 4 3\n"
    "PatientAge = 045Y\nElementType = MET_SHORT\nElementDataFile = {file}\n"
)
TOKENS = [
    *(
        b"LIST\n",
        b"LOCAL\n",
        b"../",
        b"/",
        b"%d",
        b"%n",
        b"%s",
        b"slice%d.raw 0 2 1",
        b"nan",
        b"inf",
        b"-1",
        b"0",
        b"1e99",
    ),
    *(b"99999999999999999999", b"65535", b"2147483648", b"MET_DOUBLE", b"MET_CHAR", b"MET_LONG_LONG", b"MET_STRING"),
    *(b"HeaderSize = ", b"CompressedDataSize = ", b"ElementNumberOfChannels = ", b"ElementDataFile = ", b"NDims = "),
    *(b" = ", b":", b"\n", b"\r", b"\0", b"True", b"False"),
]


def seeds() -> list[bytes]:
    packed = zlib.compress(VOXELS)
    attached = [("False", "", VOXELS), ("True", f"CompressedDataSize = {len(packed)}\n", packed)]
    outside = ["voxels.raw", "slice%d.raw 0 2 1", "LIST\nslice0.raw\nslice1.raw\nslice2.raw"]
    return [
        *(HEADER.format(compressed=each, more=more, file="LOCAL").encode() + data for each, more, data in attached),
        *(HEADER.format(compressed="False", more="", file=name).encode() for name in outside),
    ]


def check(data: bytes, folder: Path) -> None:
    (folder / "voxels.raw").write_bytes(VOXELS)
    for number in range(3):
        (folder / f"slice{number}.raw").write_bytes(VOXELS[number * 40 : (number + 1) * 40])
    (folder / "scan.mhd").write_bytes(data)
    read_or_refuse(folder / "scan.mhd")
