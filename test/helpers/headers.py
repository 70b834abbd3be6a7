"""Files written byte by byte, so that their headers can say anything."""

from __future__ import annotations

import gzip
import re
import struct
import zipfile
import zlib
from pathlib import Path

from fuzz import metaimage, nifti, nrrd

VOXELS = metaimage.VOXELS  # (3, 4, 5), int16
BOMB_BYTES = 64 * 2**20


def meta_image(folder: Path, file="LOCAL", data=VOXELS, name="scan.mhd", **fields) -> Path:
    """A MetaImage header with other or more fields, and what follows it."""
    header = metaimage.HEADER.format(compressed="False", more="", file=file)
    for key, value in fields.items():
        line = f"{key} = {value}\n"
        header, known = re.subn(f"^{key} = .*\n", line, header, flags=re.MULTILINE)
        header = header if known else line + header
    (folder / name).write_bytes(header.encode() + data)
    return folder / name


def nrrd_image(folder: Path, more="", data=VOXELS, encoding="raw", **fields) -> Path:
    """A NRRD header with other fields, more lines, and what follows it."""
    header = nrrd.HEADER.format(encoding=encoding, more=f"{more}\n")
    for key, value in fields.items():
        header = re.sub(f"^{key}: .*$", f"{key}: {value}", header, flags=re.MULTILINE)
    (folder / "scan.nhdr").write_bytes(header.encode() + data)
    return folder / "scan.nhdr"


def nifti_image(folder: Path, name="scan.nii", order="<", data=VOXELS, packed=None, **values) -> Path:
    """A NIfTI-1 file with other values at bytes of its header, as ``at_108=("f", 352.0)``; gzipped as its name says.

    Its header, in the given byte order, is that of `VOXELS`: (3, 4, 5), int16, with both transforms the identity.
    """
    return _nifti(folder / name, bytearray(nifti.header(order) + data), order, packed, values)


def nifti_2_image(folder: Path, name="scan.nii", order="<", data=VOXELS, packed=None, **values) -> Path:
    """A NIfTI-2 file likewise."""
    return _nifti(folder / name, bytearray(nifti.header_2(order) + data), order, packed, values)


def _nifti(path: Path, content: bytearray, order: str, packed: bool | None, values: dict) -> Path:
    for place, (kind, *numbers) in values.items():
        kind = kind if kind[0] in "<>" else order + kind
        struct.pack_into(kind, content, int(place.removeprefix("at_")), *numbers)
    packed = path.name.endswith(".gz") if packed is None else packed
    path.write_bytes(gzip.compress(content) if packed else content)
    return path


def with_slices(folder: Path, names=("slice0.raw", "slice1.raw", "slice2.raw")) -> None:
    for number, name in enumerate(names):
        (folder / name).write_bytes(VOXELS[number * 40 : (number + 1) * 40])


def bomb(wbits: int) -> bytes:
    """Zeros, deflated a thousandfold: as zlib (15), gzip (31) or without a frame (−15)."""
    packer = zlib.compressobj(9, zlib.DEFLATED, wbits)
    return b"".join(packer.compress(bytes(2**20)) for _ in range(BOMB_BYTES // 2**20)) + packer.flush()


def make_bomb(folder: Path, kind: str) -> Path:
    if kind == "mha":
        data = bomb(15)
        return meta_image(folder, "LOCAL", data, CompressedData="True", CompressedDataSize=len(data))
    if kind == "nrrd":
        return nrrd_image(folder, data=bomb(31), encoding="gzip")
    if kind == "nii.gz":
        path = nifti_image(folder, "scan.nii.gz")
        path.write_bytes(path.read_bytes() + bomb(31))
        return path
    if kind == "side-car":
        (folder / "scan.json").write_bytes(b" " * BOMB_BYTES)
        return meta_image(folder)
    path = folder / "series.zip"
    method = {"zip bzip2": zipfile.ZIP_BZIP2, "zip lzma": zipfile.ZIP_LZMA, "zip": zipfile.ZIP_DEFLATED}[kind]
    with zipfile.ZipFile(path, "w", method) as packed:
        packed.writestr("a.dcm", bytes(BOMB_BYTES))
    return path
