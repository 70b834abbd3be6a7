"""What a scan is known by: the SHA-256 of its files, wherever they lie and whatever else lies beside them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

from balaitous.errors import InputError
from balaitous.reading.headers import METAIMAGE_ENDINGS, NRRD_ENDINGS, locate_voxels
from balaitous.reading.integrity import files_below

DICOM_MARK = b"DICM"  # after a preamble of 128 bytes (PS3.10, 7.1); files without it are not read as DICOM either


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
    InputError : folders in folders without end
    """
    path = Path(path)
    if path.is_dir():
        return _sha256_of_list((name, path / name) for name in _dicom_files(path))
    if path.exists() and not path.is_file():  # to open a pipe is to wait for ever
        raise OSError(f"{path} is no file")
    voxels = _voxel_files(path) if path.suffix.lower() in (*METAIMAGE_ENDINGS, *NRRD_ENDINGS) else []
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
    files = (each.relative_to(folder).as_posix() for each in files_below(folder) if _is_dicom(each))
    return sorted(files, key=os.fsencode)


def _is_dicom(path: Path) -> bool:
    if not path.is_file():  # a dangling link, say
        return False
    with path.open("rb") as file:
        return file.read(132)[128:] == DICOM_MARK


def _voxel_files(header: Path) -> list[str]:
    """Names of the files beside a header that hold its voxels; none if it holds them itself, or they cannot be read."""
    try:
        files = locate_voxels(header).files
    except InputError:
        return []
    return [file.relative_to(header.parent).as_posix() for file in files if file != header]
