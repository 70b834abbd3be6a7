"""What reading one scan may take, so that no file, however it was made, fills the machine or holds it for ever.

Sizes are known from headers before anything is allocated: they are compared with the file that declares them (in
`balaitous.reading.integrity`) and with these limits. Whoever has larger scans or slower disks raises them in the
environment:

========================  =======  ====================================================================================
``BALAITOUS_MAX_GIB``     8        a scan once unpacked: a zip on disk, voxels in memory (4 bytes each: stored and
                                   read), a picture's pixels (128 bytes each)
``BALAITOUS_MAX_SECONDS`` 600      each pass over a scan's files: to list, to unpack, to check, to read them
========================  =======  ====================================================================================
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from balaitous.errors import InputError

SIZE_VARIABLE, DEFAULT_GIB = "BALAITOUS_MAX_GIB", 8.0  # 2**31 voxels: twice a 1,000-slice CT of 1,024² pixels
TIME_VARIABLE, DEFAULT_SECONDS = "BALAITOUS_MAX_SECONDS", 600.0
BYTES_PER_VOXEL = 4  # int16, as stored and as read
# Decoders, and networks after them, take copies, and a tiny file can declare many: 2**26 pixels, twice a mammogram of
# 5,928 × 4,728
BYTES_PER_PIXEL = 128

T = TypeVar("T")


def check_limits() -> None:
    """Look at the environment before any work is begun.

    Raises
    ------
    ValueError : a limit is no number above 0
    """
    _limit(SIZE_VARIABLE, DEFAULT_GIB)
    _limit(TIME_VARIABLE, DEFAULT_SECONDS)


def maximum_bytes() -> float:
    """Bytes that a scan may take once unpacked."""
    return _limit(SIZE_VARIABLE, DEFAULT_GIB) * 2**30


def maximum_voxels() -> float:
    """Voxels that a scan may have."""
    return maximum_bytes() / BYTES_PER_VOXEL


def maximum_pixels() -> float:
    """Pixels that a picture may have."""
    return maximum_bytes() / BYTES_PER_PIXEL


class Deadline:
    """The end of the time that one pass over a scan's files may take; it starts to run when it is made."""

    def __init__(self) -> None:
        self.seconds = _limit(TIME_VARIABLE, DEFAULT_SECONDS)
        self.end = time.monotonic() + self.seconds

    @property
    def passed(self) -> bool:
        return time.monotonic() > self.end

    def check(self) -> None:
        """Raise InputError if it has passed."""
        if self.passed:
            raise InputError(
                f"expected to go through it within {self.seconds:g} s, it takes longer; give one scan on a faster "
                f"disk, or raise {TIME_VARIABLE}"
            )


def in_time(steps: Iterable[T]) -> Iterator[T]:
    """The steps of one pass, as long as there is time.

    Raises
    ------
    InputError : all together take longer than the limit
    """
    deadline = Deadline()
    for step in steps:
        deadline.check()
        yield step


def _limit(variable: str, default: float) -> float:
    text = os.environ.get(variable) or str(default)
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < math.inf:  # NaN is not either
        raise ValueError(f"{variable} must be a finite number above 0. Got {text[:40]!r} instead.")
    return value
