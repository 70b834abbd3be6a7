"""From stored numbers to grey: 0 is black, 1 is white."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

PERCENTILES = (0.1, 99.9)  # of a picture's own numbers: burnt-in letters and dead pixels lie beyond them
COLOUR_DIFFERENCE = 16  # of 255: JPEG makes the channels of a grey picture differ by a few


def of_full_range(values: NDArray, white: int) -> NDArray[np.float32]:
    """Numbers of a known range, 0 … `white`, as float32 0 … 1."""
    grey = values.astype(np.float32)
    grey /= np.float32(white)
    return grey


def of_own_range(values: NDArray, bits: int) -> tuple[NDArray[np.float32], str]:
    """Numbers of an unknown range by their own percentiles, and what was done in words.

    Detectors fill 10 to 14 of 16 bits, so that numbers ÷ 65,535 would be nearly black. `PERCENTILES` become 0 and 1,
    what lies beyond is cut; where they are the same, the smallest and the largest number take their place. A constant
    picture is black.

    Parameters
    ----------
    values : (Y, X) finite numbers
    bits : of each, for the words
    """
    low, high = (float(each) for each in np.percentile(values, PERCENTILES))
    name = f"{bits} bit: {PERCENTILES[0]:g}…{PERCENTILES[1]:g} percentiles"
    if low == high:
        low, high, name = float(values.min()), float(values.max()), f"{bits} bit: smallest and largest number"
    if low == high:
        return np.zeros(values.shape, np.float32), f"{bits} bit: all numbers are {low:g}, so 0"
    # float32 holds integers of 24 bits, and a range beyond its own would end in infinity.
    grey: NDArray[np.floating] = values.astype(np.float32 if values.dtype.itemsize <= 2 else np.float64)
    grey -= low
    grey /= high - low
    np.clip(grey, 0, 1, out=grey)
    return grey.astype(np.float32, copy=False), f"{name} ({low:g}…{high:g}) to 0…1"


def of_colour(rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Luma as ITU-R BT.601 weighs red, green and blue (0.299, 0.587, 0.114), rounded to 8 bits, as 0 … 1."""
    return of_full_range(np.asarray(Image.fromarray(rgb).convert("L")), 255)


def coloured_share(rgb: NDArray[np.uint8]) -> float:
    """Share of the pixels, 0 … 1, whose channels differ by more than `COLOUR_DIFFERENCE`."""
    red, green, blue = (rgb[..., channel] for channel in range(3))
    most, least = np.maximum(np.maximum(red, green), blue), np.minimum(np.minimum(red, green), blue)
    return float((most - least > COLOUR_DIFFERENCE).mean())
