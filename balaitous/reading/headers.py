"""Where the header of an image file says its voxels are: MetaImage, NRRD, NIfTI-1.

SimpleITK's readers go wherever a header sends them: to any file of the machine, to standard input, to a pattern that C
formats. So headers are read here first, and only what is understood completely goes on. What no CT is stored as is
refused: voxels written as text, bzip2, lists of compressed files, NIfTI in two files.

References
----------
MetaImage: https://itk.org/Wiki/ITK/MetaIO/Documentation · NRRD: https://teem.sourceforge.net/nrrd/format.html ·
NIfTI-1: https://nifti.nimh.nih.gov/pub/dist/src/niftilib/nifti1.h
"""

from __future__ import annotations

import gzip
import math
import os
import re
import struct
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

from balaitous.errors import InputError
from balaitous.reading.integrity import GZIP_MAGIC, StoredVoxels, check_inside

METAIMAGE_ENDINGS, NRRD_ENDINGS = (".mha", ".mhd"), (".nrrd", ".nhdr")
MAXIMUM_HEADER_BYTES = 2**20
MAXIMUM_LINE_BYTES = 32_000  # longer ones end MetaIO's reading, as do keys of more than 498
MAXIMUM_KEY_LENGTH = 400
DIMENSIONS = tuple("123456789")  # what MetaIO can hold; three are wanted, which is checked later
PATTERN = re.compile(r"([^\s%]*%(?:0[1-9])?d[^\s%]*) (\d{1,9}) (\d{1,9}) ([1-9]\d{0,8})")  # slice%03d.raw 1 40 1
NIFTI_HEADER_BYTES, NIFTI_VOXELS_FROM = 348, 352  # four bytes between them say whether extensions follow
NIFTI_BITS = {2: 8, 4: 16, 8: 32, 16: 32, 64: 64, 256: 8, 512: 16, 768: 32, 1024: 64, 1280: 64}  # of each datatype


def locate_voxels(path: Path) -> StoredVoxels:
    """Where the voxels of an image file are, in files of its own folder.

    Raises
    ------
    InputError
        The header is not of the format that the file's name promises, says a thing twice, or names a data file that is
        not there or lies outside the folder.
    """
    name = path.name.lower()
    if name.endswith(METAIMAGE_ENDINGS):
        return _locate_metaimage(path)
    if name.endswith(NRRD_ENDINGS):
        return _locate_nrrd(path)
    return _locate_nifti(path)


def _locate_metaimage(path: Path) -> StoredVoxels:
    with path.open("rb") as file:
        fields, offset = _metaimage_fields(file)
        following = file.read(MAXIMUM_HEADER_BYTES)
    missing = [key for key in ("NDims", "DimSize", "ElementType") if key not in fields]
    if missing:
        raise InputError(f"expected a MetaImage header with {', '.join(missing)}, found none; write the file again")
    if fields["NDims"] not in DIMENSIONS:
        raise InputError(f"expected a 3-D volume, found NDims = {fields['NDims'][:40]}; give one volume")
    if fields.get("BinaryData", "True")[:1] in {"F", "f"}:
        raise InputError("expected voxels in binary form, found BinaryData = False; write the file again")
    data_file, local = fields["ElementDataFile"], fields["ElementDataFile"].upper() == "LOCAL"
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
        return _declared(StoredVoxels((path,), offset, compressed, length))
    slices = fields["DimSize"].split()[-1:]
    files = _data_files(path, data_file, following, slices, compressed)
    return _declared(StoredVoxels(files, max(0, skipped), compressed, length))


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
        fields[key] = value
    return fields, file.tell()


def _declared(voxels: StoredVoxels) -> StoredVoxels:
    """The voxels, once their file is known to hold the compressed bytes that the header tells: MetaIO trusts it."""
    if voxels.declared_length is not None and voxels.lengths[0] < voxels.declared_length:
        raise InputError(
            f"expected {voxels.declared_length:,} compressed bytes as its header declares, {voxels.files[0].name} "
            f"holds {voxels.lengths[0]:,}; the file is cut short or its header wrong: copy it again"
        )
    return voxels


def _locate_nrrd(path: Path) -> StoredVoxels:
    with path.open("rb") as file:
        fields = _nrrd_fields(file)
        offset, following = file.tell(), file.read(MAXIMUM_HEADER_BYTES)
    encoding = fields.get("encoding", "").lower()
    if encoding not in {"raw", "gz", "gzip"}:
        raise InputError(f"expected NRRD with encoding raw or gzip, found {encoding or 'none'!r}; write the file again")
    compressed = encoding != "raw"
    skipped = _whole_number(fields.get("byteskip", "0"), "byte skip")
    if fields.get("lineskip", "0") != "0" or (skipped and compressed):
        raise InputError("expected voxels right after the header, found lines or bytes to skip; write the file again")
    if "datafile" not in fields:
        return StoredVoxels((path,), offset + max(0, skipped), compressed)
    slices = fields.get("sizes", "").split()[-1:]
    return StoredVoxels(
        _data_files(path, fields["datafile"], following, slices, compressed), max(0, skipped), compressed
    )


def _nrrd_fields(file: BinaryIO) -> dict[str, str]:
    """A magic line, ``field: value`` lines, an empty line before attached voxels; a list of files is the last field."""
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
        fields[key] = value.strip()
        if key == "datafile" and value.strip().upper().startswith("LIST"):
            break
    return fields


def _locate_nifti(path: Path) -> StoredVoxels:
    with path.open("rb") as file:
        compressed = file.read(2) == GZIP_MAGIC
    try:
        with gzip.open(path) if compressed else path.open("rb") as file:
            header = file.read(NIFTI_HEADER_BYTES)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"expected a gzip file, {path.name} is damaged ({error}); copy it again") from error
    order = "<" if header[:4] == struct.pack("<i", NIFTI_HEADER_BYTES) else ">"
    if len(header) < NIFTI_HEADER_BYTES or struct.unpack(f"{order}i", header[:4]) != (NIFTI_HEADER_BYTES,):
        raise InputError(
            f"expected a NIfTI-1 header, found none; {path.name} is cut short, or not what its ending says"
        )
    if header[344:348] != b"n+1\0":  # "ni1": the voxels are in another file, which SimpleITK would look for
        raise InputError("expected NIfTI-1 in one file (n+1), found Analyze or a pair of files; convert it to .nii")
    datatype, bits = struct.unpack(f"{order}hh", header[70:74])
    if NIFTI_BITS.get(datatype) != bits:
        raise InputError(
            f"expected one number a voxel, found NIfTI datatype {datatype} with {bits} bits (such as RGB, or a damaged "
            "header); give a CT in Hounsfield units"
        )
    _check_nifti_geometry(header, order)
    (offset,) = struct.unpack(f"{order}f", header[108:112])
    if not NIFTI_VOXELS_FROM <= offset < math.inf:
        raise InputError(
            f"expected NIfTI voxels from byte {NIFTI_VOXELS_FROM} on, found vox_offset {offset:g}; write the file again"
        )
    return StoredVoxels((path,), 0, compressed)  # readers skip the header after inflating it


def _check_nifti_geometry(header: bytes, order: str) -> None:
    """Voxel sizes and the transforms in use are numbers: SimpleITK takes NaN for no rotation, without a word."""
    qform_code, sform_code = struct.unpack(f"{order}hh", header[252:256])
    numbers = struct.unpack(f"{order}3f", header[80:92])
    numbers += struct.unpack(f"{order}6f", header[256:280]) if qform_code else ()
    numbers += struct.unpack(f"{order}12f", header[280:328]) if sform_code else ()
    if not all(map(math.isfinite, numbers)):
        raise InputError("expected numbers for voxel sizes, place and directions, found NaN or infinity; correct them")


def _data_files(
    header: Path, data_file: str, following: bytes, slices: Iterable[str], compressed: bool
) -> tuple[Path, ...]:
    """The files beside a header that it names: one, LIST with a file a line after it, or a pattern with its numbers."""
    if data_file.upper().startswith("LIST") or "%" in data_file:
        if compressed:
            raise InputError("expected compressed voxels in one file, found a list of files; convert it to .mha")
        if data_file.upper() == "LIST":
            names = [os.fsdecode(line) for line in following.splitlines() if line]
        else:
            names = _names_of_pattern(data_file)
        if [str(len(names))] != list(slices):
            raise InputError(f"expected a file a slice, found {len(names)} in {data_file!r}; convert it to .mha")
    else:
        names = [data_file]
    if any("\0" in name for name in names):
        raise InputError(f"expected names of files, found {names[:3]}; write the file again")
    files = tuple(header.parent / name for name in names)
    for file, name in zip(files, names, strict=True):
        check_inside(file, header.parent)
        if not file.is_file() or name == "-":  # which stands for standard input
            raise InputError(f"expected its voxels in {name} as the header says, that file is not there; copy both")
    return files


def _names_of_pattern(pattern: str) -> list[str]:
    if (match := PATTERN.fullmatch(pattern)) is None:
        raise InputError(
            f"expected a pattern such as 'slice%03d.raw 1 40 1', found {pattern!r}; convert the scan to .mha"
        )
    numbers = range(int(match[2]), int(match[3]) + 1, int(match[4]))
    return [match[1] % number for number in numbers[: MAXIMUM_HEADER_BYTES // len(pattern)]]


def _whole_number(text: str, name: str) -> int:
    """A small whole number of a header; −1 stands for 'at the end of the file'."""
    if re.fullmatch(r"-1|\d{1,9}", text) is None:
        raise InputError(f"expected a number of bytes in {name}, found {text[:40]!r}; write the file again")
    return int(text)
