"""The formats of image files, MetaImage, NRRD and NIfTI: one record each, and where a header says its voxels are.

SimpleITK's readers go wherever a header sends them: to any file of the machine, to standard input, to a pattern that C
formats. So headers are read here first, and only what is understood completely goes on. What no CT is stored as is
refused: voxels written as text, bzip2, a file a slice, NIfTI in two files.

References
----------
MetaImage: https://itk.org/Wiki/ITK/MetaIO/Documentation · NRRD: https://teem.sourceforge.net/nrrd/format.html
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from balaitous.errors import InputError
from balaitous.reading.integrity import StoredVoxels, check_inside
from balaitous.reading.nifti import locate_nifti

MAXIMUM_HEADER_BYTES = 2**20
MAXIMUM_LINE_BYTES = 32_000  # longer ones end MetaIO's reading, as do keys of more than 498
MAXIMUM_KEY_LENGTH = 400
DIMENSIONS = tuple("123456789")  # what MetaIO can hold; three are wanted, which is checked later
MM_NAMES = {"", "mm", "?", "???", "millimeter", "millimeters"}  # of the unit of distances, or of one that is not told
ANATOMICAL_SPACES = {  # the NRRD spaces that tell where left, back and up are
    *("lps", "left-posterior-superior", "ras", "right-anterior-superior", "las", "left-anterior-superior"),
}
AXIS_KEYS = ("DimSize", "ElementSpacing", "ElementSize", "Offset", "Position", "Origin", "CenterOfRotation")
MATRIX_KEYS = ("TransformMatrix", "Rotation", "Orientation")
NO_VOXEL_SIZE = "its header tells no voxel size: 1 mm along each axis is taken"


@dataclass(frozen=True)
class ImageFormat:
    """A format of image files.

    Attributes
    ----------
    name : for people
    endings : of its files' names
    image_io : SimpleITK's reader of it; None: `balaitous.reading.nifti` reads it
    locate : where the voxels of a file are
    voxel_file : the name of the file beside a header that has its voxels, as the header tells it; None: it has them
        itself. None where a header never names another file
    """

    name: str
    endings: tuple[str, ...]
    image_io: str | None
    locate: Callable[[Path], StoredVoxels]
    voxel_file: Callable[[Path], str | None] | None = None


def format_of(path: Path) -> ImageFormat:
    """The format that a file's name promises.

    Raises
    ------
    InputError : none of `FORMATS`
    """
    for each in FORMATS:
        if path.name.lower().endswith(each.endings):
            return each
    raise InputError(f"expected {', '.join(IMAGE_ENDINGS)}, found {path.suffix or 'no ending'!r}; convert it")


def locate_voxels(path: Path) -> StoredVoxels:
    """Where the voxels of an image file are, in a file of its own folder.

    Raises
    ------
    InputError
        The header is not of the format that the file's name promises, says a thing twice, or names a data file that is
        not there or lies outside the folder.
    """
    return format_of(path).locate(path)


def voxel_file_of(path: Path) -> str | None:
    """The name of the file beside a header that has its voxels; None of any file that has them itself.

    Raises
    ------
    InputError : as `locate_voxels`, as far as the header goes
    """
    voxel_file = format_of(path).voxel_file
    return voxel_file(path) if voxel_file else None


def _locate_metaimage(path: Path) -> StoredVoxels:
    with path.open("rb") as file:
        fields, offset = _metaimage_fields(file)
    missing = [key for key in ("NDims", "DimSize", "ElementType") if key not in fields]
    if missing:
        raise InputError(f"expected a MetaImage header with {', '.join(missing)}, found none; write the file again")
    if fields["NDims"] not in DIMENSIONS:
        raise InputError(f"expected a 3-D volume, found NDims = {fields['NDims'][:40]}; give one volume")
    _check_numbers(fields)
    if fields.get("BinaryData", "True")[:1] not in {"T", "t", "1"}:
        raise InputError("expected voxels in binary form, found another BinaryData than True; write the file again")
    _check_scale(fields)
    doubts = () if {"ElementSpacing", "ElementSize"} & fields.keys() else (NO_VOXEL_SIZE,)
    local = fields["ElementDataFile"].upper() == "LOCAL"
    compressed = fields.get("CompressedData", "False")[:1] in {"T", "t", "1"}
    skipped = _whole_number(fields.get("HeaderSize", "0"), "HeaderSize")
    if skipped and (local or compressed):
        raise InputError("expected voxels right after the header, found HeaderSize; write the file again without it")
    told = fields.get("CompressedDataSize", "")
    if compressed and local and not told.isdigit():  # SimpleITK would read garbage
        raise InputError(
            "expected CompressedDataSize in the header of compressed MetaImage, found none; write it again"
        )
    length = int(told[:18]) if compressed and told.isdigit() else None
    if local:
        return _declared(StoredVoxels(path, offset, compressed, length, doubts=doubts))
    beside = _beside(path, fields["ElementDataFile"])
    return _declared(StoredVoxels(beside, max(0, skipped), compressed, length, doubts=doubts))


def _check_numbers(fields: dict[str, str]) -> None:
    """Numbers an axis are as many as axes, which are told before: else MetaIO stops, in several lines on stderr."""
    axes, keys = int(fields["NDims"]), list(fields)
    for key, count in {**dict.fromkeys(AXIS_KEYS, axes), **dict.fromkeys(MATRIX_KEYS, axes**2)}.items():
        numbers = fields.get(key, "").split()[:count]
        if key in fields and (len(numbers) < count or not all(map(_is_number, numbers))):
            raise InputError(f"expected {count} numbers in {key}, found {fields[key][:40]!r}; write the file again")
        if key in fields and keys.index(key) < keys.index("NDims"):
            raise InputError(f"expected NDims before {key} in a MetaImage header, found it after; write the file again")


def _check_scale(fields: dict[str, str]) -> None:
    """SimpleITK takes stored numbers and distances as they are, whatever a MetaImage header says of their scale."""
    for key, plain in (("ElementToIntensityFunctionSlope", 1.0), ("ElementToIntensityFunctionOffset", 0.0)):
        if key in fields and not (_is_number(fields[key]) and float(fields[key]) == plain):
            raise InputError(
                f"expected Hounsfield units as they are, found {key} = {fields[key][:40]}; apply it to the voxels"
            )
    _check_unit(fields.get("DistanceUnits", ""), "DistanceUnits")


def _check_unit(text: str, name: str) -> None:
    if text.strip().lower() not in MM_NAMES:
        raise InputError(f"expected distances in mm, found {name} {text[:40]!r}; write the file again in mm")


def _is_number(text: str) -> bool:
    """NaN is told later; a number that is too large for one, MetaIO cannot read."""
    try:
        return not math.isinf(float(text))
    except ValueError:
        return False


def _metaimage_voxel_file(path: Path) -> str | None:
    with path.open("rb") as file:
        fields, _ = _metaimage_fields(file)
    return None if fields["ElementDataFile"].upper() == "LOCAL" else fields["ElementDataFile"]


def _metaimage_fields(file: BinaryIO) -> tuple[dict[str, str], int]:
    """Lines ``Key = value``, of which ElementDataFile is the last; and the byte after it."""
    fields: dict[str, str] = {}
    while "ElementDataFile" not in fields:
        line = os.fsdecode(file.readline(2 * MAXIMUM_LINE_BYTES))
        key, separator, value = (part.strip() for part in line.partition("="))
        # MetaIO ends keys at ":" and "\r" too: whoever writes these means it to read another header than we do.
        odd = not key.isprintable() or ":" in key or len(key) > MAXIMUM_KEY_LENGTH or len(line) > MAXIMUM_LINE_BYTES
        if not separator or odd or file.tell() > MAXIMUM_HEADER_BYTES:
            raise InputError("expected a MetaImage header (Key = value lines), found none; is it a MetaImage file?")
        if key in fields:
            raise InputError(f"expected each key of the MetaImage header once, found {key} twice; write the file again")
        fields[key] = _single_file(value) if key == "ElementDataFile" else value
    return fields, file.tell()


def _declared(voxels: StoredVoxels) -> StoredVoxels:
    """The voxels, once their file is known to hold the compressed bytes that the header tells: MetaIO trusts it."""
    if voxels.declared_length is not None and voxels.length < voxels.declared_length:
        raise InputError(
            f"expected {voxels.declared_length:,} compressed bytes as its header declares, {voxels.file.name} "
            f"holds {voxels.length:,}; the file is cut short or its header wrong: copy it again"
        )
    return voxels


def _locate_nrrd(path: Path) -> StoredVoxels:
    with path.open("rb") as file:
        fields = _nrrd_fields(file)
        offset = file.tell()
    encoding = fields.get("encoding", "").lower()
    if encoding not in {"raw", "gz", "gzip"}:
        raise InputError(f"expected NRRD with encoding raw or gzip, found {encoding or 'none'!r}; write the file again")
    compressed = encoding != "raw"
    skipped = _whole_number(fields.get("byteskip", "0"), "byte skip")
    if fields.get("lineskip", "0") != "0" or (skipped and compressed):
        raise InputError("expected voxels right after the header, found lines or bytes to skip; write the file again")
    doubts = _nrrd_doubts(fields)
    if "datafile" not in fields:
        return StoredVoxels(path, offset + max(0, skipped), compressed, doubts=doubts)
    return StoredVoxels(_beside(path, fields["datafile"]), max(0, skipped), compressed, doubts=doubts)


def _nrrd_doubts(fields: dict[str, str]) -> tuple[str, ...]:
    """What a NRRD header leaves open; SimpleITK takes 1 mm where a step is no number, and any unit for mm."""
    for key in ("units", "spaceunits"):
        for unit in re.findall('"([^"]*)"', fields.get(key, "")):
            _check_unit(unit, "space units")
    steps = f"{fields.get('spacings', '')} {fields.get('spacedirections', '')}".lower()
    if "nan" in steps or ("none" in steps and fields.get("dimension") == "3"):
        raise InputError("expected a voxel size along each axis, found none of one; write the file again with all")
    doubts = [] if steps.strip() else [NO_VOXEL_SIZE]
    if fields.get("space", "").lower() not in ANATOMICAL_SPACES:
        doubts.append("its header tells no orientation: its axes are taken to point left, to the back and up")
    return tuple(doubts)


def _nrrd_voxel_file(path: Path) -> str | None:
    with path.open("rb") as file:
        return _nrrd_fields(file).get("datafile")


def _nrrd_fields(file: BinaryIO) -> dict[str, str]:
    """A magic line, ``field: value`` lines, an empty line before attached voxels."""
    fields: dict[str, str] = {}
    if not file.readline(MAXIMUM_HEADER_BYTES).startswith(b"NRRD"):
        raise InputError("expected a NRRD header, found none; is it a NRRD file?")
    while line := os.fsdecode(file.readline(MAXIMUM_HEADER_BYTES)).rstrip("\r\n"):
        if file.tell() > MAXIMUM_HEADER_BYTES:
            raise InputError(
                f"expected a NRRD header of at most {MAXIMUM_HEADER_BYTES:,} bytes, found more; is it one?"
            )
        if line.startswith("#") or ":=" in line:  # a comment, a key of the writer's own
            continue
        key, _, value = line.partition(":")
        key = key.strip().lower().replace(" ", "")
        if key in fields:
            raise InputError(f"expected each field of the NRRD header once, found {key} twice; write the file again")
        fields[key] = _single_file(value.strip()) if key == "datafile" else value.strip()
    return fields


def _single_file(name: str) -> str:
    """The name of the file that has the voxels, unless the header names several: LIST, or a pattern of numbers."""
    if name.upper().split()[:1] == ["LIST"] or "%" in name:
        raise InputError(
            f"expected the voxels in one file, found a list of files ({name[:40]!r}); convert the scan to one .mha or "
            ".nii.gz (ITK-SNAP and 3D Slicer do)"
        )
    if "\0" in name:
        raise InputError(f"expected the name of a file, found {name!r}; write the file again")
    return name


def _beside(header: Path, name: str) -> Path:
    """The file that a header names, once it is known to lie beside it."""
    file = header.parent / name
    check_inside(file, header.parent)
    if not file.is_file() or name == "-" or name.endswith("/"):  # "-" stands for standard input
        raise InputError(f"expected its voxels in {name} as the header says, that file is not there; copy both")
    return file


def _whole_number(text: str, name: str) -> int:
    """A small whole number of a header; −1 stands for 'at the end of the file'."""
    if re.fullmatch(r"-1|\d{1,9}", text) is None:
        raise InputError(f"expected a number of bytes in {name}, found {text[:40]!r}; write the file again")
    return int(text)


FORMATS = (
    ImageFormat("MetaImage", (".mha", ".mhd"), "MetaImageIO", _locate_metaimage, _metaimage_voxel_file),
    ImageFormat("NIfTI", (".nii.gz", ".nii"), None, locate_nifti),
    ImageFormat("NRRD", (".nrrd", ".nhdr"), "NrrdImageIO", _locate_nrrd, _nrrd_voxel_file),
)
IMAGE_ENDINGS = tuple(ending for each in FORMATS for ending in each.endings)


def scan_name(path: str | os.PathLike[str]) -> str:
    """Name of a scan in tables: of its file without the endings of images, of its folder."""
    path = Path(os.path.abspath(path))
    ending = next((each for each in (*IMAGE_ENDINGS, ".zip") if path.name.lower().endswith(each)), "")
    return path.name if path.is_dir() else path.name[: len(path.name) - len(ending)]
