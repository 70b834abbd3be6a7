"""What a scan is known by: the SHA-256 of its files, wherever they lie and whatever else lies beside them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

from balaitous.errors import InputError
from balaitous.files import sha256_of
from balaitous.reading.dicom_files import looks_like_dicom
from balaitous.reading.headers import locate_voxels, voxel_file_of
from balaitous.reading.integrity import files_below


def content_sha256(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a scan's content, in hexadecimal.

    Of an image file or a zip it is that of its bytes, as ``sha256sum`` prints it. Of a DICOM folder it is that of the
    list that ``sha256sum`` prints of its DICOM files (hash, two spaces, name inside the folder), sorted by name; other
    files, and the DICOMDIR of a CD, do not count. Of a header with its voxels in another file (``.mhd``, ``.nhdr``) it
    is that of such a list too: the header, whose name is left out, and the file that it names.

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
    voxels = _voxels_beside(path)
    return _sha256_of_list([("", path), voxels]) if voxels else sha256_of(path)


def _sha256_of_list(files: Iterable[tuple[str, Path]]) -> str:
    lines = (b"%s  %s\n" % (sha256_of(file).encode(), os.fsencode(name)) for name, file in files)
    return hashlib.sha256(b"".join(lines)).hexdigest()


def _dicom_files(folder: Path) -> list[str]:
    """Names of the DICOM files below the folder, ``/`` between their parts, in the order of their bytes."""
    files = (each.relative_to(folder).as_posix() for each in files_below(folder) if looks_like_dicom(each))
    return sorted(files, key=os.fsencode)


def _voxels_beside(path: Path) -> tuple[str, Path] | None:
    """Name and path of the file beside a header that has its voxels; None if it has them itself, or cannot be read."""
    try:
        if voxel_file_of(path) is None:
            return None
        file = locate_voxels(path).file
    except InputError:
        return None
    return file.relative_to(path.parent).as_posix(), file
