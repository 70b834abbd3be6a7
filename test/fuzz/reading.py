"""What every target asks of the reader: a CT or one clear line, in little memory."""

from __future__ import annotations

import math
import resource
from pathlib import Path

import numpy as np

from balaitous.ct.volume import read_ct, resample
from balaitous.errors import InputError

MAXIMUM_MIB = (
    700  # more than the process had before; inputs of a few kB need a few MiB, and their resampling of at most
)
# 3,000 litres of patient 500 MiB


def read_or_refuse(path: Path) -> None:
    """Read and resample a file as the package does; anything but a CT or an InputError is a finding."""
    before = peak_mib()
    try:
        ct = read_ct(path)
        resample(ct)
    except InputError as error:
        message = str(error)
        assert message.startswith(str(path)), message
        assert message.isprintable(), message
        assert len(message) < 1300, message
    else:
        assert ct.hu.ndim == 3, ct.hu.shape
        assert ct.hu.dtype in (np.int16, np.float32), ct.hu.dtype
        assert all(map(math.isfinite, (*ct.grid.spacing_mm, *ct.grid.origin_mm, *ct.grid.direction)))
        assert min(ct.grid.spacing_mm) > 0
    grown = peak_mib() - before
    assert grown < MAXIMUM_MIB, f"{grown:.0f} MiB"


def peak_mib() -> float:
    """Most memory that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
