"""One run at a time where two would overwrite each other: a lock that ends with the process which holds it."""

from __future__ import annotations

import errno
import logging
import os
import weakref
from contextlib import suppress
from pathlib import Path
from types import TracebackType

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

log = logging.getLogger(__name__)

FOLDER_LOCK = ".lock"
HELD_BY_ANOTHER = (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES)


class Lock:
    """Hold a file or folder for this run, until `release`, the end of a ``with``, or that of the process.

    The system holds the lock (``flock``), so a killed run leaves none; the empty file that it lies on may stay behind
    and stops nobody. Where the file system or the system has no locks, a warning says so and the run goes on.

    Parameters
    ----------
    path : a folder that is there, or a file, which need not be
    wait : wait for another run to end, and say so

    Raises
    ------
    ValueError : another run holds it
    OSError : it cannot be written to
    """

    def __init__(self, path: Path, wait: bool = False) -> None:
        place = path.resolve()  # of a link: what both runs write to
        self.path = place / FOLDER_LOCK if place.is_dir() else place.with_name(f".{place.name}.lock")
        while True:
            try:
                descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
            except OSError as error:
                raise OSError(error.errno, error.strerror, os.fspath(path)) from error
            try:
                _take(descriptor, path, wait)
            except BaseException:
                os.close(descriptor)
                raise
            if _is_file(descriptor, self.path):
                break
            os.close(descriptor)  # of a run that ended just now, and took the file with it
        _held.add(descriptor)
        self.release = weakref.finalize(self, _let_go, descriptor, self.path, os.getpid())

    def __enter__(self) -> Lock:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.release()


_held: set[int] = set()


def _take(descriptor: int, path: Path, wait: bool) -> None:
    if fcntl is None:
        log.warning("%s: this system knows no locks: see to it that no other run writes there", path)
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in HELD_BY_ANOTHER:
            log.warning("%s: no locks here (%s): see to it that no other run writes there", path, error.strerror)
        elif wait:
            log.warning("%s: another run is writing there; waiting until it is done", path)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        else:
            raise ValueError(
                f"{path}: expected to be the only run that writes there, found another one. Wait until it is done, or "
                "choose another name."
            ) from None


def _is_file(descriptor: int, path: Path) -> bool:
    """Whether the path still leads to what is open."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _let_go(descriptor: int, path: Path, process: int) -> None:
    if os.getpid() != process:  # forked since: it is the parent's
        return
    with suppress(OSError):
        if os.fstat(descriptor).st_size == 0:  # ours is empty
            path.unlink()
    os.close(descriptor)
    _held.discard(descriptor)


def _forget_in_child() -> None:
    """A forked process is not to hold on to the locks of its parent when that is killed."""
    for descriptor in _held:
        os.close(descriptor)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_in_child)
