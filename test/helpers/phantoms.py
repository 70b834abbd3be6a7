"""Small scans on the fly: quick to predict, and enough lung to be answered for."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np

from balaitous.ct.volume import CT, read_ct, write_mha
from balaitous.synthetic.phantom import make_phantom
from helpers import PHANTOM

COMMITTED = {"seed": 7, "spacing_mm": (2.5, 2.5, 5.0), "lesion_ml": 600.0, "sex": 1.0}  # images/README.md


def with_hu(ct: CT, hu: np.ndarray) -> CT:
    """The CT with other voxels (Z, Y, X), from the same first one on."""
    return replace(ct, hu=hu, grid=replace(ct.grid, shape=hu.shape))


def small_chest(seed: int) -> CT:
    """The middle of a chest, coarse; checks warn of it."""
    ct = make_phantom(seed, spacing_mm=(4, 4, 10), size=(84, 70, 22)).ct
    return with_hu(ct, ct.hu[10:15])


def write_small_chest(path: Path, seed: int) -> Path:
    """A file with `small_chest`."""
    write_mha(path, small_chest(seed))
    return path


def write_slices(path: Path, slices: slice) -> Path:
    """A file with some slices of the committed phantom."""
    ct = committed_phantom()
    write_mha(path, with_hu(ct, ct.hu[slices]))
    return path


@cache
def committed_phantom() -> CT:
    return read_ct(PHANTOM)
