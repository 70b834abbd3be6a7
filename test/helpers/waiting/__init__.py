"""Waiting for what comes about in other processes, and holding on to those that read a scan."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from subprocess import Popen
from typing import TypeVar

Found = TypeVar("Found")

PATIENCE_SECONDS = 900  # reached where something hangs, and nowhere else: a busy machine takes its time
PAUSE_SECONDS = 0.02
WAITING = os.pathsep.join(filter(None, [str(Path(__file__).parent), os.environ.get("PYTHONPATH")]))


def wait_until(condition: Callable[[], Found], process: Popen | None = None) -> Found:
    """What the condition gives, once that is true; a process that ends before it is a failure."""
    until = time.monotonic() + PATIENCE_SECONDS
    while True:
        ended = process is not None and process.poll() is not None
        if found := condition():
            return found
        assert not ended, f"the process ended before, with exit code {process.returncode}"
        assert time.monotonic() < until, "what is waited for does not come"
        time.sleep(PAUSE_SECONDS)


def pipe_of(scan: Path) -> Path:
    """A pipe at which processes with `WAITING` as their PYTHONPATH wait when they read this scan."""
    pipe = scan.with_name(f"{scan.name}.pipe")
    os.mkfifo(pipe)
    return pipe


@contextmanager
def held_reader(pipe: Path) -> Iterator[int]:
    """Wait for another process to wait at the pipe; its number. At the end it goes on, to the next time that it opens
    the scan: unlink the pipe before, if it shall not wait again.
    """
    writer = wait_until(lambda: open_if_read(pipe))
    try:
        yield wait_until(lambda: readers_of(pipe))[0]
    finally:
        os.close(writer)


def kill_readers(pipe: Path, times: int) -> None:
    """Kill whoever waits at the pipe, so many times."""
    for _ in range(times):
        with held_reader(pipe) as reader:
            os.kill(reader, signal.SIGKILL)
            wait_until(lambda: not readers_of(pipe))  # it takes a moment to die


def open_if_read(pipe: Path) -> int | None:
    """The pipe, open for writing, if someone reads it."""
    with suppress(OSError):
        return os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
    return None


def readers_of(pipe: Path) -> list[int]:
    """The other processes that have it open."""
    return [
        pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if pid != os.getpid() and holds(pid, pipe)
    ]


def holds(pid: int, file: Path) -> bool:
    """Whether a process has opened a file."""
    with suppress(OSError):  # it ended meanwhile
        return any(os.path.realpath(each.path) == str(file) for each in os.scandir(f"/proc/{pid}/fd"))
    return False
