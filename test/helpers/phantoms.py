"""Small scans on the fly: quick to predict, and enough lung to be answered for."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np

from balaitous.ct.volume import CT, read_ct, write_mha
from balaitous.synthetic.phantom import make_phantom
from helpers import PHANTOM


def with_hu(ct: CT, hu: np.ndarray) -> CT:
    """The CT with other voxels (Z, Y, X), from the same first one on."""
    return replace(ct, hu=hu, grid=replace(ct.grid, shape=hu.shape))


def small_chest(seed: int, spacing_mm=(4, 4, 10), size=(84, 70, 22), slices=slice(8, 18), lesion_ml: float = 0.0) -> CT:
    """The middle of a chest, coarse; checks warn of it."""
    ct = make_phantom(seed, spacing_mm=spacing_mm, size=size, lesion_ml=lesion_ml).ct
    return with_hu(ct, ct.hu[slices])


def write_small_chest(path: Path, seed: int, **options) -> Path:
    """A file with `small_chest`."""
    write_mha(path, small_chest(seed, **options))
    return path


def write_slices(path: Path, slices: slice) -> Path:
    """A file with some slices of the committed phantom."""
    ct = committed_phantom()
    write_mha(path, with_hu(ct, ct.hu[slices]))
    return path


@cache
def committed_phantom() -> CT:
    return read_ct(PHANTOM)
