"""Hounsfield units as pictures: the lung window, pictures of 16 bit that hold HU + 1024, and the lung slices of a CT.

References
----------
Fleischner Society glossary, doi:10.1148/radiol.2462070712 (lung window).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from balaitous.ct.lungs import body_box
from balaitous.ct.plausibility import FLOOR_HU
from balaitous.ct.quality import histogram, peak

LUNG_WINDOW_HU = (-1350.0, 150.0)  # level −600, width 1500
STORED_OFFSET_HU = 1024  # of unsigned pictures: 0 is −1024 HU
AIR_HU, TISSUE_HU = (FLOOR_HU, -800), (-20, 120)  # where the peaks of air, or lung, and of muscle are; fat is below
PEAKS_APART_HU = (900.0, 1100.0)
LARGEST_HU = 4095 - STORED_OFFSET_HU  # of 12 bits, which scanners store; metal reaches it

HOLDS_AIR_HU = -500  # between lung and tissue
OUTSIDE_HU = -930  # the mean of air around the body is below, that of lung above
LEAST_SHARE = 0.05  # of the body's pixels that are lung, in a slice that shows lungs
LEAST_OF_LARGEST = 0.25  # of the lung's area in the slice that shows most of it
STEP = 2  # every other pixel tells how much lung there is


def lung_window(hu: NDArray) -> NDArray[np.float32]:
    """HU of any shape as grey, 0 black … 1 white, in the window of level −600 and width 1500."""
    low, high = LUNG_WINDOW_HU
    return ((np.clip(hu, low, high) - low) / (high - low)).astype(np.float32)


def stored_hu(values: NDArray, bits: int) -> NDArray[np.float32] | None:
    """The Hounsfield units of a picture that stores HU + 1024; None where its numbers do not look like that.

    They do where the peak of air (or of lung, in a slice that is cut to the lungs) and that of soft tissue lie 1000 ±
    100 apart, each where HU + 1024 has it, and no number is larger than those of 12 bits.

    Parameters
    ----------
    values : (Y, X) as stored, or (Y, X, 3)
    bits : of a number
    """
    if values.ndim != 2 or bits <= 8 or values.dtype.kind not in "iu" or values.max() > 2 * LARGEST_HU:
        return None
    hu = values.astype(np.float32) - STORED_OFFSET_HU
    counts = histogram(hu[None])
    air, tissue = peak(counts, *AIR_HU), peak(counts, *TISSUE_HU)
    if air is None or tissue is None or tissue in TISSUE_HU:  # at an end there is a slope, and no peak
        return None
    if not PEAKS_APART_HU[0] <= tissue - air <= PEAKS_APART_HU[1]:
        return None
    return hu


def lung_slices(hu: NDArray) -> NDArray[np.int64]:
    """Indices of the axial slices that show lungs; empty if none does.

    Lung is what holds air in the body's box, but for what reaches a corner of it, as the air around a round body does,
    or is as thin as air and touches the rim. A slice shows lungs where they take at least `LEAST_SHARE` of the box and
    `LEAST_OF_LARGEST` of what they take where they are largest: apex, bowel and stomach have less.

    Parameters
    ----------
    hu : (Z, Y, X) in LPS
    """
    areas, shares = np.zeros(len(hu)), np.zeros(len(hu))
    for index, axial in enumerate(hu):
        body = axial[body_box(axial)][::STEP, ::STEP]
        parts, count = ndimage.label(body < HOLDS_AIR_HU)
        sizes = np.bincount(parts.ravel(), minlength=count + 1)
        sums = np.bincount(parts.ravel(), body.ravel(), minlength=count + 1)
        rim = np.unique(np.concatenate([parts[0], parts[-1], parts[:, 0], parts[:, -1]]))
        outside = rim[sums[rim] < OUTSIDE_HU * sizes[rim]]
        sizes[[0, *outside, *parts[[0, 0, -1, -1], [0, -1, 0, -1]]]] = 0
        areas[index] = sizes.sum()
        shares[index] = sizes.sum() / max(body.size, 1)
    if not areas.any():
        return np.array([], np.int64)
    return np.flatnonzero((shares >= LEAST_SHARE) & (areas >= LEAST_OF_LARGEST * areas.max()))
