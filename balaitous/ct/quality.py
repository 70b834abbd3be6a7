"""What is measured of a chest CT to see whether it is fit for an answer; `balaitous.ct.quality_limits` has the limits.

`check_scan` looks at a CT as it was read, before anything is computed from it; `check_lungs` at the lungs that were
found in it. How the patient lies is not checked: the method averages over slices and over the flip back to front.
Arrays are (Z, Y, X) in LPS order.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from balaitous.checks import Check, check_value
from balaitous.ct.lungs import LEFT, RIGHT, TISSUE_THRESHOLD_HU
from balaitous.ct.plausibility import FLOOR_HU
from balaitous.ct.quality_limits import LIMITS

if TYPE_CHECKING:
    from balaitous.ct.volume import CT

SAMPLE_VOXELS = 250_000  # that are enough for a histogram
THUMBNAIL = 64  # pixels a side, at least, of what slices are compared on: noise averages out
HIGHEST_HU = 3071  # the 12-bit scale of CT ends here
PEAK_SIGMA_HU = 10.0  # less than noise widens a peak
PEAK_SHARE = 0.005  # of all voxels, under which there is no peak to speak of
AIR_RANGE_HU = (FLOOR_HU, -300)
TISSUE_HU = (-200, 300)
BODY_ABOVE_HU = -200
DENSE_ABOVE_HU = 300
STEP_WINDOW_HU = (-1000, 200)  # contrast agent and metal would outweigh the anatomy
STEP_REACH = 2  # steps on either side that a step is compared with
LEAST_STEP_HU = 1.0  # a smaller one is rounding
FAR_MM = 10.0  # apart, slices differ clearly
EDGE_MM = 5.0  # less than any chest wall; labels themselves keep a voxel or two away from the edge
METAL_ABOVE_HU = 2500
BLOOD_HU = (0, 600)  # neither fat and air nor calcium
BLOOD_HEIGHT = (0.3, 0.8)  # share of the lungs' height between the liver and the great vessels' branches
LEAST_BLOOD_ML = 20.0


# --- a scan as it was read --------------------------------------------------------------------------------------------


def check_scan(ct: CT) -> tuple[Check, ...]:
    """Check the grid, the Hounsfield units and the slices of a CT before it is resampled."""
    slices, rows, columns = ct.hu.shape
    x, y, z = ct.grid.spacing_mm
    counts = histogram(ct.hu)
    body = counts[BODY_ABOVE_HU - FLOOR_HU :].sum()
    dense = counts[DENSE_ABOVE_HU - FLOOR_HU :].sum()
    small = np.stack([thumbnail(axial) for axial in ct.hu])
    steps, far = differences(small, 1), differences(small, max(round(FAR_MM / z), 2))
    measured = {
        "slices": slices,
        "coverage": slices * z,
        "field_of_view": min(columns * x, rows * y),
        "pixel_spacing": max(x, y),
        "slice_spacing": z,
        "slice_order": steps.mean() / far.mean() if far.any() else None,
        "slice_jump": largest_jump(steps),
        "air_peak": peak(counts, *AIR_RANGE_HU),
        "soft_tissue_peak": peak(counts, *TISSUE_HU),
        "dense_share": 100 * dense / body if body else None,
    }
    checks = [check_value(name, value, LIMITS[name]) for name, value in measured.items()]
    doubts = replace(LIMITS["header"], high="; ".join([*ct.doubts, "correct the header"]))
    return (*checks, check_value("header", len(ct.doubts), doubts))


def histogram(hu: NDArray) -> NDArray[np.int64]:
    """How many voxels of a sample have each whole HU from `FLOOR_HU` to `HIGHEST_HU`, with all above in the last."""
    step = math.ceil(math.sqrt(hu.size / SAMPLE_VOXELS))
    index = np.rint(np.clip(hu[:, ::step, ::step], FLOOR_HU, HIGHEST_HU)).astype(np.int64) - FLOOR_HU
    return np.bincount(index.ravel(), minlength=HIGHEST_HU - FLOOR_HU + 1)


def peak(counts: NDArray[np.int64], low_hu: int, high_hu: int) -> float | None:
    """HU of the highest point of the smoothed histogram between two HU; None where hardly anything lies there."""
    between = slice(low_hu - FLOOR_HU, high_hu - FLOOR_HU + 1)
    if counts[between].sum() < PEAK_SHARE * counts.sum():
        return None
    smooth = ndimage.gaussian_filter1d(counts.astype(float), PEAK_SIGMA_HU)
    return low_hu + float(np.argmax(smooth[between]))


def thumbnail(axial: NDArray) -> NDArray[np.float32]:
    """An axial slice (Y, X) as means of square blocks, in the window that steps are measured in."""
    block = max(min(axial.shape) // THUMBNAIL, 1)
    rows, columns = (n // block for n in axial.shape)
    sums = axial[: rows * block, : columns * block].reshape(rows, block, -1).sum(axis=1, dtype=np.float32)
    return np.clip(sums.reshape(rows, columns, block).sum(axis=2) / block**2, *STEP_WINDOW_HU)


def differences(slices: NDArray[np.float32], apart: int) -> NDArray[np.float64]:
    """Mean absolute difference in HU of every two slices so many apart; empty where there are none."""
    return np.array([np.abs(b - a).mean() for a, b in zip(slices, slices[apart:], strict=False)], float)


def largest_jump(steps: NDArray[np.float64]) -> float | None:
    """The largest ratio of a step to the largest of the steps near it; None where there are too few."""
    if len(steps) <= 2 * STEP_REACH:
        return None
    near = np.lib.stride_tricks.sliding_window_view(np.pad(steps, STEP_REACH, mode="reflect"), 2 * STEP_REACH + 1)
    around = np.delete(near, STEP_REACH, axis=1).max(axis=1)
    return float((steps / np.maximum(around, LEAST_STEP_HU)).max())


# --- the lungs found in it --------------------------------------------------------------------------------------------


def check_lungs(ct: CT, labels: NDArray[np.uint8], volume_litres: float) -> tuple[Check, ...]:
    """Check the lungs that were found, and what lies between them.

    Parameters
    ----------
    ct : what was segmented, LPS
    labels : (Z, Y, X) of 0 background, 1 right lung, 2 left lung; not empty
    volume_litres : of the lungs once they are cleaned
    """
    lungs = labels > 0
    area = np.count_nonzero(lungs, axis=(1, 2))
    x, y = (math.ceil(EDGE_MM / spacing) for spacing in ct.grid.spacing_mm[:2])
    at_edge = area > np.count_nonzero(lungs[:, y:-y, x:-x], axis=(1, 2))
    (box,) = ndimage.find_objects(lungs.view(np.uint8))
    hu, inside = ct.hu[box], lungs[box]
    holds_air = hu < TISSUE_THRESHOLD_HU  # what the method takes for lung; solid tissue may be labelled so, too
    right, left = (int(np.count_nonzero((labels[box] == label) & holds_air)) for label in (RIGHT, LEFT))
    voxel_ml = ct.grid.voxel_ml
    measured = {
        "lung_volume": volume_litres,
        "lung_density": hu[inside].mean(dtype=float),
        "lung_contrast": np.median(hu[~inside]) - np.median(hu[inside]) if not inside.all() else None,
        "smaller_lung": 100 * min(right, left) / max(right + left, 1),
        "lung_base": 100 * area[0] / area.max(),
        "lung_top": 100 * area[-1] / area.max(),
        "lung_edge": 100 * np.count_nonzero(at_edge) / np.count_nonzero(area),
        "mediastinum": blood_hu(hu, labels[box], voxel_ml),
        "metal": voxel_ml * np.count_nonzero(ct.hu[box[0], :, box[2]] > METAL_ABOVE_HU),
    }
    return tuple(check_value(name, value, LIMITS[name]) for name, value in measured.items())


def blood_hu(hu: NDArray, labels: NDArray[np.uint8], voxel_ml: float) -> float | None:
    """Median HU of the heart and the great vessels; None where no two lungs lie beside them.

    They are the soft tissue between the centres of the two lungs, in the front half of the lungs' box, at the height
    between the liver and the great vessels' branches.

    Parameters
    ----------
    hu, labels : (Z, Y, X), the box around the lungs
    """
    slices, rows, columns = labels.shape
    x = np.arange(columns)
    widths = [np.count_nonzero(labels == label, axis=(0, 1)) for label in (RIGHT, LEFT)]
    if not all(each.any() for each in widths):
        return None
    right, left = (int(np.average(x, weights=each)) for each in widths)
    low, high = (int(share * slices) for share in BLOOD_HEIGHT)
    between = hu[low:high, : rows // 2, right:left]
    blood = between[(between > BLOOD_HU[0]) & (between < BLOOD_HU[1])]
    return float(np.median(blood)) if blood.size * voxel_ml >= LEAST_BLOOD_ML else None
