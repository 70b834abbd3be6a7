"""Where the known lungs of a phantom lie in what the encoders see."""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk
from numpy.lib.stride_tricks import sliding_window_view

from balaitous.ct.grid import Grid
from balaitous.synthetic.phantom import Phantom


def true_labels(phantom: Phantom, grid: Grid) -> np.ndarray:
    """The phantom's labels, (Z, Y, X), on another grid of the same chest."""
    labels = sitk.GetImageFromArray(phantom.lungs.astype(np.uint8))
    labels.SetSpacing(phantom.ct.grid.spacing_mm)
    labels.SetOrigin(phantom.ct.grid.origin_mm)
    size = grid.shape[::-1]
    resampled = sitk.Resample(
        *(labels, size, sitk.Transform(), sitk.sitkNearestNeighbor, grid.origin_mm, grid.spacing_mm)
    )
    return sitk.GetArrayFromImage(resampled)


def in_view(image: np.ndarray, volume: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The labels of a volume, (Z, Y, X), in the view that the encoders have of it, upside down: searched by its HU."""
    upside_down, depth = volume[:, ::-1], len(image)
    windows = sliding_window_view(upside_down, image.shape[1:], axis=(1, 2))  # Z, rows, columns, 224, 224
    middle = depth // 2
    same = (windows[..., 112, ::8] == image[middle, 112, ::8]).all(-1)
    found = [
        (z - middle, row, column)
        for z, row, column in np.argwhere(same)
        if np.array_equal(windows[z - middle : z - middle + depth, row, column], image)
    ]
    ((first, row, column),) = found
    return labels[:, ::-1][first : first + depth, row : row + image.shape[1], column : column + image.shape[2]]


def dice(mask: np.ndarray, other: np.ndarray) -> float:
    return 2 * np.count_nonzero(mask & other) / (np.count_nonzero(mask) + np.count_nonzero(other))
