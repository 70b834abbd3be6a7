"""Crop a scan to its lungs for the severity method's encoders (steps 7 and 8).

Arrays are (Z, Y, X) in LPS order.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from balaitous.ct.lungs import AIR_HU, clean_lungs
from balaitous.errors import NoLungError

VIEW_GRID = 224  # voxels of a view in Y and X: what the encoders were trained on
Z_MARGIN = 0.1  # fraction of the lung's slices left out at either end


def crop_to_lungs(hu: NDArray, labels: NDArray[np.uint8]) -> tuple[NDArray, NDArray[np.bool_], int]:
    """Crop image (HU) and lung mask to (Z', 224, 224) each, and count the voxels of the whole lung.

    Parameters
    ----------
    hu, labels : (Z, Y, X)

    Raises
    ------
    NoLungError : if no lung, or too little of it, is found
    """
    mask = clean_lungs(hu, labels)
    if not mask.any():
        raise NoLungError("no lung found")
    image, view = crop_in_plane(hu, mask)
    kept = lung_slices(view)
    return np.ascontiguousarray(image[kept]), np.ascontiguousarray(view[kept]), int(mask.sum())


def crop_in_plane(hu: NDArray, mask: NDArray[np.bool_], size: int = VIEW_GRID) -> tuple[NDArray, NDArray[np.bool_]]:
    """Cut or pad Y, then X, to `size` voxels: cut around the middle of the lung, pad evenly with air (odd voxel last).

    Parameters
    ----------
    hu, mask : (Z, Y, X); the mask must not be empty
    """
    for axis in (1, 2):
        found = hu.shape[axis]
        if found > size:
            lung = np.flatnonzero(mask.any(axis=tuple({0, 1, 2} - {axis})))
            half = size // 2
            centre = int(np.clip((lung[0] + lung[-1]) // 2, half, found - half))
            window = [slice(None)] * 3
            window[axis] = slice(centre - half, centre + half)
            hu, mask = hu[tuple(window)], mask[tuple(window)]
        elif found < size:
            pad = [(0, 0)] * 3
            pad[axis] = ((size - found) // 2, (size - found + 1) // 2)
            hu, mask = np.pad(hu, pad, constant_values=AIR_HU), np.pad(mask, pad)
    return hu, mask


def lung_slices(mask: NDArray[np.bool_]) -> slice:
    """The axial slices the method looks at: the lung's, without the last one and without 10 % at either end.

    Parameters
    ----------
    mask : (Z, Y, X)

    Raises
    ------
    NoLungError : if that leaves no slice
    """
    found = np.flatnonzero(mask.any(axis=(1, 2)))
    if len(found) == 0:
        raise NoLungError("no lung found")
    first, last = int(found[0]), int(found[-1])
    count = last - first  # the last slice with lung is left out, as in the published method
    start, stop = int(count * Z_MARGIN), int(count * (1 - Z_MARGIN))
    if stop <= start:
        raise NoLungError(f"lung found in {len(found)} slice(s) of 5 mm only, at least 3 are needed")
    return slice(first + start, first + stop)
