"""A map over the grey picture that it is of, as colours: both as (Y, X), what comes as (Y, X, 3) of the same size."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from balaitous.report.style import coloured

MOST_OPAQUE = 0.6  # where the map is 1; where it is 0 the picture shows through unchanged
OUTLINED_FROM = 0.5  # of the map's largest value: the outline tells in grey print what the colour tells on a screen
OUTLINE = "The line goes round what is at least half of the map's maximum."


def as_colour(grey: NDArray) -> NDArray[np.uint8]:
    """Grey in [0, 1], black to white, as 8-bit red, green, blue."""
    return np.repeat(np.round(255 * np.clip(grey, 0, 1)).astype(np.uint8)[..., None], 3, axis=-1)


def scaled(values: NDArray) -> NDArray[np.float64]:
    """A map ≥ 0 as shares of its largest value; all 0 where there is nothing in it."""
    values = np.asarray(values, float)
    return values / values.max() if values.max() > 0 else np.zeros_like(values)


def overlay(grey: NDArray, shares: NDArray) -> NDArray[np.uint8]:
    """A map over a picture: the larger, the more opaque its colour; outlined where it is at least a half.

    Parameters
    ----------
    grey : in [0, 1], black to white
    shares : in [0, 1], such as `scaled` gives

    Raises
    ------
    ValueError : the two are not of one size
    """
    if grey.shape != shares.shape:
        raise ValueError(f"shares must be of the picture's size {grey.shape}. Got {shares.shape} instead.")
    opacity = MOST_OPAQUE * np.clip(shares, 0, 1)[..., None]
    picture = np.round((1 - opacity) * as_colour(grey) + opacity * coloured(shares)).astype(np.uint8)
    inside = shares >= OUTLINED_FROM
    picture[ndimage.binary_dilation(inside) & ~inside] = 0  # dark beside white: seen on bone and on air
    picture[inside & ~ndimage.binary_erosion(inside, border_value=1)] = 255
    return picture
