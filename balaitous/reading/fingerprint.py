"""What a scan is known by: the SHA-256 of its files, wherever they lie and whatever else lies beside them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from balaitous.errors import InputError
from balaitous.files import sha256_of
from balaitous.reading.dicom.files import looks_like_dicom
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
    files = _content_files(path)
    return sha256_of(path) if files == [("", path)] else _sha256_of_list(files)


@contextmanager
def unchanged(*paths: str | os.PathLike[str]) -> Iterator[None]:
    """Have scans read and hashed within, so that a hash is that of what was read.

    A file that is written to or exchanged meanwhile shows in its size, its times or its place on the disk, which costs
    less than to hash it twice.

    Raises
    ------
    InputError : a file whose bytes count is not what it was, or was not there
    """
    before = [_state(Path(path)) for path in paths]
    yield
    for path, state in zip(paths, before, strict=True):
        if state is None or _state(Path(path)) != state:
            raise InputError(
                f"{path}: expected files that stay as they are while they are read, found that they changed; give it "
                "again once it is written"
            )


def _content_files(path: Path) -> list[tuple[str, Path]]:
    """The files whose bytes count, with the names that they count by."""
    if path.is_dir():
        return [(name, path / name) for name in _dicom_files(path)]
    if path.exists() and not path.is_file():  # to open a pipe is to wait for ever
        raise OSError(f"{path} is no file")
    voxels = _voxels_beside(path)
    return [("", path), voxels] if voxels else [("", path)]


def _state(path: Path) -> list[tuple[str | int, ...]] | None:
    """Which files they are, and when they were last written to; None where that cannot be told."""
    try:
        files = [(name, file.stat()) for name, file in _content_files(path)]
    except (OSError, InputError):
        return None
    return [
        (name, *(each.st_dev, each.st_ino, each.st_size, each.st_mtime_ns, each.st_ctime_ns)) for name, each in files
    ]


def _sha256_of_list(files: Sequence[tuple[str, Path]]) -> str:
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
