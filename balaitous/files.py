"""Files and folders that are there whole or not at all: written beside their places, synced, then renamed.

A file that takes another's place keeps its mode and, where that is allowed, its owner; a link stays one, and what it
points to is written.
"""

from __future__ import annotations

import errno
import glob
import hashlib
import io
import json
import os
import secrets
import shutil
import stat
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO


def write_whole(path: Path, content: bytes, like: Path | None = None) -> None:
    """Write a file: nobody ever sees half of it, and if it cannot be written the old one stays.

    Parameters
    ----------
    like : a file whose mode and owner it gets, if there is one; None: `path` itself

    Raises
    ------
    OSError : it names the file
    """
    write_together({path: content}, like)


def write_together(contents: Mapping[Path, bytes], like: Path | None = None) -> None:
    """Write files, and show them when all are on the disk: if it is full, every file stays as it was.

    They appear in their order. A kill in between leaves the first ones new and the others old, so the file that speaks
    for the others comes last. `like` is as `write_whole` has it.

    Raises
    ------
    OSError : it names the file
    """
    partials = {path: _beside(path) for path in contents}
    try:
        for path, partial in partials.items():
            with _naming(path), _open_new(partial, like or path) as file:
                file.write(contents[path])
                file.flush()
                os.fsync(file.fileno())
        for path, partial in partials.items():
            with _naming(path):
                partial.replace(path.resolve())
        for folder in {partial.parent for partial in partials.values()}:
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
            with _open_new(partial, path) as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path.resolve())
        _sync(partial.parent)
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
    path = path.resolve()
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


def remove_folder(path: Path) -> None:
    """Remove a folder with all that is in it: nobody sees half of it.

    Raises
    ------
    OSError : it cannot be removed
    """
    gone = _beside(path)
    path.rename(gone)
    shutil.rmtree(gone)


def refuse_others(folder: Path, names: Iterable[str], record: str, keys: Collection[str]) -> None:
    """Make sure that nothing is overwritten in a folder but what an earlier run of the same kind wrote there.

    Parameters
    ----------
    names : of the files that are to be written
    record : the one of them that such a run is known by: a JSON object with at least these keys

    Raises
    ------
    ValueError : one of the files is there, and no such record; or a record that is none
    """
    if is_json_with(folder / record, keys):
        return
    for name in (record, *names):
        if os.path.lexists(folder / name):
            raise ValueError(
                f"{folder / name} is there already, and not from an earlier run of this command: it is not "
                "overwritten. Choose another folder, or remove it."
            )


def is_json_with(path: Path, keys: Collection[str]) -> bool:
    """Whether a file is a JSON object that has these keys."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(content, dict) and content.keys() >= set(keys)


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
    path = path.resolve()
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
    path = path.resolve()  # of a link: where the file lies
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")


def _open_new(partial: Path, like: Path) -> BinaryIO:
    """A new file, never what somebody else put there, with the mode and owner of another, if that is there."""
    try:
        old = like.stat()
    except OSError:
        return partial.open("xb")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o600)
    mode = stat.S_IMODE(old.st_mode) & 0o777
    if os.name == "posix" and (old.st_uid, old.st_gid) != (os.geteuid(), os.fstat(descriptor).st_gid):
        for owner in (old.st_uid, -1):  # who may not give a file away may still give it to a group of theirs
            with suppress(OSError):
                os.fchown(descriptor, owner, old.st_gid)
                break
        else:
            mode &= 0o707  # another group than before is allowed nothing
    os.chmod(partial, mode)
    return open(descriptor, "wb")


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
