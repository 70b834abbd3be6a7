"""Make the chest that `balaitous.ct.orientation` knows how a patient lies by: the mean of phantoms.

usage: python tools/make_chest.py

No real scan goes into it. It is written in whole HU, the mean of its left and its right side.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from balaitous.ct.orientation import CHEST, blocks, extent, sampled
from balaitous.synthetic.phantom import make_phantom

PHANTOMS = range(2000, 2040)
SHAPE = (12, 16, 16)
SPACING_MM = (4.5, 4.5, 4.5)


def mean_chest(seeds: range = PHANTOMS) -> np.ndarray:
    """The mean (Z, Y, X) of phantoms' lungs and what lies around them, in HU."""
    chests = []
    for seed in seeds:
        phantom = make_phantom(seed, spacing_mm=SPACING_MM)
        hu, lungs, _ = blocks(phantom.ct.hu, phantom.lungs, SPACING_MM)
        box = extent(lungs)
        smooth = ndimage.gaussian_filter(hu, [(last - first) / max(SHAPE) / 3 for first, last in box], mode="nearest")
        chest = sampled(smooth, box, SHAPE)
        chests.append((chest + chest[:, :, ::-1]) / 2)
    return np.rint(np.mean(chests, axis=0)).astype(np.int16)


if __name__ == "__main__":
    np.save(CHEST, mean_chest())
