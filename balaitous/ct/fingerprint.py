"""What a scan is known by: the SHA-256 of its files, wherever they lie and whatever else lies beside them."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable
from pathlib import Path

from balaitous.ct.integrity import MAXIMUM_HEADER_BYTES

DICOM_MARK = b"DICM"  # after a preamble of 128 bytes (PS3.10, 7.1); files without it are not read as DICOM either
VOXEL_FILE = re.compile(rb"^(?:ElementDataFile\s*=|data ?file\s*:)[ \t]*(.*?)[ \t\r]*$", re.IGNORECASE | re.MULTILINE)
WITH_HEADER = (".mha", ".mhd", ".nrrd", ".nhdr")


def content_sha256(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a scan's content, in hexadecimal.

    Of an image file or a zip it is that of its bytes, as ``sha256sum`` prints it. Of a DICOM folder it is that of the
    list that ``sha256sum`` prints of its DICOM files (hash, two spaces, name inside the folder), sorted by name; other
    files do not count. Of a header with its voxels in other files (``.mhd``, ``.nhdr``) it is that of such a list too:
    the header, whose name is left out, and the files that it names, in its order.

    Parameters
    ----------
    path : an image file, a DICOM folder or a zip, as `read_ct` takes them

    Raises
    ------
    OSError : if a file cannot be read
    """
    path = Path(path)
    if path.is_dir():
        return _sha256_of_list((name, path / name) for name in _dicom_files(path))
    voxels = _voxel_files(path) if path.suffix.lower() in WITH_HEADER else []
    if voxels:
        return _sha256_of_list([("", path), *((name, path.parent / name) for name in voxels)])
    return _sha256(path)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sha256_of_list(files: Iterable[tuple[str, Path]]) -> str:
    lines = (b"%s  %s\n" % (_sha256(file).encode(), os.fsencode(name)) for name, file in files)
    return hashlib.sha256(b"".join(lines)).hexdigest()


def _dicom_files(folder: Path) -> list[str]:
    """Names of the DICOM files below the folder, ``/`` between their parts, in the order of their bytes."""
    files = (Path(parent, name) for parent, _, names in os.walk(folder) for name in names)
    return sorted((each.relative_to(folder).as_posix() for each in files if _is_dicom(each)), key=os.fsencode)


def _is_dicom(path: Path) -> bool:
    if not path.is_file():  # a dangling link, say
        return False
    with path.open("rb") as file:
        return file.read(132)[128:] == DICOM_MARK


def _voxel_files(header: Path) -> list[str]:
    """Names of the files that a header says hold its voxels, as far as they are there; none if it holds them itself.

    It names one file, or a pattern such as ``slice%03d.raw 1 40 1`` (first, last, step), or LIST and a file a line.
    """
    with header.open("rb") as file:
        text = file.read(MAXIMUM_HEADER_BYTES)
    if (match := VOXEL_FILE.search(text)) is None:
        return []
    names = [os.fsdecode(match[1])]
    pattern = re.fullmatch(r"(.*%0?\d*d\S*) +(\d+) +(\d+) +(\d+).*", names[0])
    if names[0].upper().startswith("LIST"):
        names = [os.fsdecode(line.strip()) for line in text[match.end() :].splitlines()]
    elif pattern and int(pattern[4]):
        names = [pattern[1] % number for number in range(int(pattern[2]), int(pattern[3]) + 1, int(pattern[4]))]
    return [name for name in names if name and (header.parent / name).is_file()]
