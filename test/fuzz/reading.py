"""What every target asks of the readers: what they promise or one clear line, in little memory."""

from __future__ import annotations

import math
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from balaitous.ct.volume import read_ct, resample
from balaitous.errors import InputError

# More than the process had before: inputs of a few kB need a few MiB, resampling at most 3,000 litres of patient 500.
MAXIMUM_MIB = 700


def read_or_refuse(path: Path) -> None:
    """Read and resample a file as the package does; anything but a CT or an InputError is a finding."""
    with refusal_in_words(path):
        ct = read_ct(path)
        resample(ct)
        assert ct.hu.ndim == 3, ct.hu.shape
        assert ct.hu.dtype in (np.int16, np.float32), ct.hu.dtype
        assert all(map(math.isfinite, (*ct.grid.spacing_mm, *ct.grid.origin_mm, *ct.grid.direction)))
        assert min(ct.grid.spacing_mm) > 0


@contextmanager
def refusal_in_words(path: Path) -> Iterator[None]:
    """Let the block read a file or refuse it in one short line that names it, with MAXIMUM_MIB of memory."""
    before = peak_mib()
    try:
        yield
    except InputError as error:
        message = str(error)
        assert message.startswith(str(path)), message
        assert message.isprintable(), message
        assert len(message) < 1300, message
    grown = peak_mib() - before
    assert grown < MAXIMUM_MIB, f"{grown:.0f} MiB"


def peak_mib() -> float:
    """Most memory that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
