"""The two streams of a job: facts on stdout, the reason of a failure on stderr. Neither can end a job, or hold it.

A disk with a log may be full, a pipe closed, or read by nobody: a line that is not taken is dropped.
"""

from __future__ import annotations

import io
import logging
import os
import select
import sys
import traceback
from contextlib import suppress

from balaitous.errors import BalaitousError, explain
from balaitous.text import PlainFormatter

PATIENCE_SECONDS = 10.0  # for a reader that has fallen behind; of one that has not come back, none
PIECE_CHARACTERS = 1000  # at most 4,096 bytes, which a pipe with any room takes at once (PIPE_BUF of Linux)
EXIT_UNEXPECTED = 1
EXIT_USAGE = 2
EXIT_FILES = 3


class Stream:
    """One of the standard streams, to write text to as far as somebody takes it.

    Parameters
    ----------
    name : "stdout" or "stderr"
    """

    def __init__(self, name: str) -> None:
        self.name, self.patience = name, PATIENCE_SECONDS

    def write(self, text: str) -> None:
        """Write and flush a text, or what is taken of it."""
        stream = getattr(sys, self.name)
        with suppress(OSError, ValueError):  # ValueError: it was closed
            for start in range(0, len(text), PIECE_CHARACTERS):
                if stream is None or not self.has_room(stream):
                    return
                stream.write(text[start : start + PIECE_CHARACTERS])
                stream.flush()

    def has_room(self, stream: io.TextIOBase) -> bool:
        """Whether a stream takes a piece of text now, or within the patience that is left."""
        try:
            _, ready, _ = select.select([], [stream], [], self.patience)
        except (OSError, ValueError):  # no file of the system, as in tests
            return True
        self.patience = PATIENCE_SECONDS if ready else 0.0
        return bool(ready)


FACTS, REASONS = Stream("stdout"), Stream("stderr")


class FactsHandler(logging.Handler):
    """Writes records to stdout."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        FACTS.write(self.format(record) + "\n")


def log_to_stdout() -> None:
    """Facts go to stdout: Grand Challenge shows stderr as warnings, and its last line as the reason of a failure."""
    for number in range(3):
        try:
            os.fstat(number)
        except (
            OSError
        ):  # a stream that was closed: the next file that is opened, an answer say, must not take its place
            os.open(os.devnull, os.O_RDWR)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # file names may be no text
    logging.raiseExceptions = False
    handler = FactsHandler()
    handler.setFormatter(PlainFormatter("%(message)s"))
    logging.basicConfig(handlers=[handler])
    logging.getLogger("balaitous").setLevel(logging.INFO)


def settle_streams() -> None:
    """Write what is left in the streams, or drop it: Python would try at its end, and fail a job that worked."""
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except (OSError, ValueError):
            with suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def refuse(message: str) -> int:
    """Print an ``ERROR:`` line on stderr, of a job that was started in a way that makes no sense; its exit code."""
    REASONS.write(f"ERROR: {message}\n")
    return EXIT_USAGE


def report(error: Exception) -> int:
    """Print one ``ERROR:`` line on stderr, below the traceback if nobody expected this error; returns the exit code."""
    expected = isinstance(error, BalaitousError | MemoryError | OSError)
    trace = "" if expected else "".join(traceback.format_exception(error))
    REASONS.write(f"{trace}ERROR: {explain(error)}\n")
    return EXIT_FILES if isinstance(error, OSError) else getattr(error, "exit_code", EXIT_UNEXPECTED)
