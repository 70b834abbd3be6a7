"""The voxels of a DICOM series in Hounsfield units: padding becomes air, then slope and intercept are applied.

Padding (PS3.3, C.7.5.1.1.2) fills what the scanner does not see. Some writers fill it with 0, which is water where the
intercept is 0, with 4095, which is metal, or with a number far above any of CT.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from balaitous.ct.enhanced import stored_frames
from balaitous.ct.plausibility import FLOOR_HU, check_hounsfield
from balaitous.ct.slices import Slice
from balaitous.reading.dicom.pixel_data import Stored, check_declared, read_stored
from balaitous.reading.limits import in_time

HIGHEST_TISSUE_HU = 3071  # metal included, where a scanner has 12 bits


def read_hounsfield(slices: Sequence[Slice]) -> tuple[NDArray, bool]:
    """The voxels of a series, and whether padding above −1024 HU was among them.

    Parameters
    ----------
    slices : as `balaitous.ct.slices.ordered` gives them, from the feet up or as they are stacked

    Returns
    -------
    (Z, Y, X) in Hounsfield units ≥ −1024, int16 where slope and intercept are whole numbers, else float32

    Raises
    ------
    InputError : a slice does not hold its pixels, or they are no Hounsfield units
    """
    first = slices[0]
    shape = (len(slices), *first.shape)
    check_declared(int(np.prod(shape)), {each.file for each in slices})
    slope, intercept = _rescale(first)
    integral = slope.is_integer() and intercept.is_integer()
    volume = np.empty(shape, np.int16 if integral else np.float32)
    low, high, padded = np.inf, -np.inf, False
    for out, each, stored in zip(volume, slices, in_time(_stored(slices)), strict=True):
        padding = find_padding(stored, each)
        hu = rescaled(stored.numbers, slope, intercept)
        if padding is not None:
            hu[padding] = FLOOR_HU
            padded |= bool(padding.any())
        low, high = min(low, hu.min()), max(high, hu.max())
        np.maximum(hu, FLOOR_HU, out=out, casting="unsafe")
    check_hounsfield(float(low), float(high), integral=integral)
    return volume, padded


def _stored(slices: Sequence[Slice]) -> Iterator[Stored]:
    """The stored numbers of each slice."""
    if slices[0].frame is None:
        return (read_stored(each.file, *each.shape) for each in slices)
    return stored_frames(slices)


def _rescale(each: Slice) -> tuple[float, float]:
    """Slope and intercept of a slice; 1 and 0 where it tells none."""
    slope, intercept = each.values["RescaleSlope"], each.values["RescaleIntercept"]
    return 1.0 if slope is None else float(slope), 0.0 if intercept is None else float(intercept)


def rescaled(stored: NDArray, slope: float, intercept: float) -> NDArray:
    """slope · stored + intercept, as int64 where these are whole numbers, else float32."""
    if slope.is_integer() and intercept.is_integer():
        return stored.astype(np.int64) * int(slope) + int(intercept)
    return (stored.astype(np.float64) * slope + intercept).astype(np.float32)


def find_padding(stored: Stored, each: Slice) -> NDArray[np.bool_] | None:
    """Which pixels (Y, X) are padding that is not air anyway; None where there is none.

    A number that tissue has, too, is padding only where it reaches the slice's edge: blood has 0 HU here and there.
    """
    value, limit = each.values["PixelPaddingValue"], each.values["PixelPaddingRangeLimit"]
    if not isinstance(value, int):
        return None
    low, high = sorted((value, limit if isinstance(limit, int) else value))
    slope, intercept = _rescale(each)
    low_hu, high_hu = sorted((slope * low + intercept, slope * high + intercept))
    if high_hu <= FLOOR_HU:
        return None
    padding = within(stored.allotted, low, high) | within(stored.numbers, low, high)
    if low_hu > HIGHEST_TISSUE_HU:
        return padding
    labels, count = ndimage.label(padding)
    at_edge = np.zeros(count + 1, bool)
    for edge in (labels[0], labels[-1], labels[:, 0], labels[:, -1]):
        at_edge[edge] = True
    at_edge[0] = False
    return at_edge[labels]


def within(numbers: NDArray, low: int, high: int) -> NDArray[np.bool_]:
    """Which numbers lie between two, these included."""
    return (numbers >= low) & (numbers <= high)
