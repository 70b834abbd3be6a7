"""Files and folders that are there whole or not at all: written beside their places, synced, then renamed."""

from __future__ import annotations

import errno
import glob
import hashlib
import io
import os
import secrets
import shutil
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO


def write_whole(path: Path, content: bytes) -> None:
    """Write a file: nobody ever sees half of it, and if it cannot be written the old one stays.

    Raises
    ------
    OSError : it names the file
    """
    write_together({path: content})


def write_together(contents: Mapping[Path, bytes]) -> None:
    """Write files, and show them when all are on the disk: if it is full, every file stays as it was.

    They appear in their order. A kill in between leaves the first ones new and the others old, so the file that speaks
    for the others comes last.

    Raises
    ------
    OSError : it names the file
    """
    partials = {path: _beside(path) for path in contents}
    try:
        for path, partial in partials.items():
            with _naming(path), partial.open("xb") as file:  # never into what somebody else put there
                file.write(contents[path])
                file.flush()
                os.fsync(file.fileno())
        for path, partial in partials.items():
            with _naming(path):
                partial.replace(path)
        for folder in {path.parent for path in contents}:
            _sync(folder)
    finally:
        for partial in partials.values():
            with suppress(OSError):  # what made it fail is on its way already
                partial.unlink(missing_ok=True)


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write piece by piece, which takes the place of `path` when it is whole.

    Raises
    ------
    OSError : it names `path`
    """
    partial = _beside(path)
    try:
        with _naming(path):
            with partial.open("xb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        _sync(path.parent)
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A folder to fill, which becomes `path` when everything in it is on the disk. An empty one may be there.

    Raises
    ------
    OSError : it cannot be written, or there is a folder with something in it
    """
    partial = _beside(path)
    try:
        partial.mkdir(parents=True)
        yield partial
        for file in partial.rglob("*"):
            if file.is_file():
                _sync_file(file)
        with suppress(FileNotFoundError):
            path.rmdir()  # Windows does not rename over it
        partial.rename(path)
        _sync(path.parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal, as ``sha256sum`` prints it.

    Raises
    ------
    OSError : it cannot be read
    """
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def remove_partials(path: Path) -> None:
    """Remove what a writer of this file left that was killed; not where others may be writing it."""
    for partial in path.parent.glob(f".{glob.escape(path.name)}.*.partial"):
        partial.unlink(missing_ok=True)


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """An error names the file that the user knows: a full disk names none, and nobody asked for a partial one."""
    try:
        yield
    except (OSError, RuntimeError) as error:  # PyTorch hides what the file said behind an error of its own
        cause = error if isinstance(error, OSError) else error.__context__
        if not isinstance(cause, OSError):
            raise
        raise OSError(cause.errno, cause.strerror, os.fspath(path)) from error


def _beside(path: Path) -> Path:
    """Where to write: on the same file system, under a name that nobody else takes."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")


def _sync_file(path: Path) -> None:
    with path.open("rb" if os.name == "posix" else "rb+") as file:  # Windows syncs only what is open for writing
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    """Bring the new names to the disk. The contents are there; file systems that cannot are left to themselves."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def open_regular(path: Path) -> io.BufferedReader:
    """Open a file of the user's to read its bytes; not a pipe or a device, where reading may wait for ever.

    Raises
    ------
    OSError : it cannot be opened, or is no regular file
    """
    check_regular(path)
    return path.open("rb")


def check_regular(path: Path) -> None:
    """Refuse a pipe, a device or a socket, for who lets a library open the file.

    Raises
    ------
    OSError : it names the file, also one that is not there
    """
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):  # a folder's own error says what it is
        raise OSError(errno.EINVAL, "it is a pipe, a device or a socket, not a file", os.fspath(path))
