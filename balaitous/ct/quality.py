"""What is measured of a chest CT to see whether it is fit for an answer; `balaitous.ct.quality_limits` has the limits.

`check_scan` looks at a CT as it was read, before anything is computed from it; `check_lungs` at the lungs that were
found in it. Whether the picture lies as its header says is measured in `balaitous.ct.orientation`. Arrays are (Z, Y, X)
in LPS order.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from balaitous.checks import Check, check_value
from balaitous.ct.lungs import LEFT, RIGHT, TISSUE_THRESHOLD_HU
from balaitous.ct.orientation import orientation_margins
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
LONGEST_RUN = 10  # slices that are spoilt together; more of them make a jump at either end
FAR_MM = 10.0  # apart, slices differ clearly
NO_AIR_HU = -900  # anything above is no air, in which the edge of an image lies
STRIP = 2  # pixels deep is the edge that padding is looked for in
STRETCH = 8  # pixels long that are alike: noise, or rounding to 16 HU, never leaves that many so
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
    apart = {n: differences(small, n) for n in range(1, LONGEST_RUN + 2)}
    steps, far = apart[1], differences(small, max(round(FAR_MM / z), 2))
    jumps = [each for each in (largest_jump(steps), largest_detour(apart)) if each is not None]
    measured = {
        "slices": slices,
        "coverage": slices * z,
        "field_of_view": min(columns * x, rows * y),
        "pixel_spacing": max(x, y),
        "slice_spacing": z,
        "slice_order": steps.mean() / far.mean() if far.any() else None,
        "slice_jump": max(jumps, default=None),
        "slice_reversal": largest_reversal(apart),
        "slice_repeats": np.count_nonzero(steps == 0),
        "padding": padded_edge(ct.hu),
        "air_peak": peak(counts, *AIR_RANGE_HU),
        "soft_tissue_peak": peak(counts, *TISSUE_HU),
        "dense_share": 100 * dense / body if body else None,
    }
    return tuple(check_value(name, value, LIMITS[name]) for name, value in measured.items())


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
    near = np.lib.stride_tricks.sliding_window_view(np.pad(steps, STEP_REACH), 2 * STEP_REACH + 1)
    around = np.delete(near, STEP_REACH, axis=1).max(axis=1)
    return float((steps / np.maximum(around, LEAST_STEP_HU)).max())


def largest_detour(apart: Mapping[int, NDArray[np.float64]]) -> float | None:
    """How much farther it is to a run of slices than past it, at most; None where there are too few.

    A run of up to `LONGEST_RUN` slices that are empty, or are no slices of this place, makes two jumps, which hide each
    other from `largest_jump`. The way past it touches none of them.

    Parameters
    ----------
    apart : `differences` by how many slices lie between
    """
    ratios: list[float] = []
    for run in range(1, LONGEST_RUN + 1):
        past = apart[run + 1]
        there = np.minimum(apart[1][: len(past)], apart[1][run:])
        ratios.extend(there / np.maximum(past, LEAST_STEP_HU))
    return max(ratios, default=None)


def largest_reversal(apart: Mapping[int, NDArray[np.float64]]) -> float | None:
    """How much farther it is to a run of slices and on from it than with the run reversed, at most.

    Two slices that changed places are such a run. None where there are too few slices.
    """
    ratios: list[float] = []
    for run in range(2, LONGEST_RUN + 1):
        across = apart[run]
        there_and_on = apart[1][: max(len(across) - 1, 0)] + apart[1][run:]
        ratios.extend(there_and_on / np.maximum(across[:-1] + across[1:], LEAST_STEP_HU))
    return max(ratios, default=None)


def padded_edge(hu: NDArray) -> float:
    """Share in % of the edge of the slices that is one value, which is not that of air.

    Where air of one value surrounds what is padded, the edge is that of the padding.
    """
    no_air = [np.zeros(n, bool) for n in hu.shape[1:]]
    for axial in hu:
        above = axial > NO_AIR_HU
        for axis, found in enumerate(no_air):
            found |= above.any(axis=1 - axis)
    rows, columns = (slice(found.argmax(), len(found) - found[::-1].argmax()) for found in no_air)
    box = hu[:, rows, columns]
    edges = (box[:, :STRIP], box[:, -STRIP:], box[:, :, :STRIP].swapaxes(1, 2), box[:, :, -STRIP:].swapaxes(1, 2))
    alike = count = 0
    for edge in edges:
        slices, depth, length = edge.shape
        stretches = length // STRETCH
        each = edge[:, :, : stretches * STRETCH].reshape(slices, depth, stretches, STRETCH)
        low, high = each.min(axis=(1, 3)), each.max(axis=(1, 3))
        alike += int(np.count_nonzero((high - 1 <= low) & (low > NO_AIR_HU)))
        count += low.size
    return 100 * alike / max(count, 1)


# --- the lungs found in it --------------------------------------------------------------------------------------------


def check_lungs(ct: CT, labels: NDArray[np.uint8], volume_litres: float, dropped_percent: float) -> tuple[Check, ...]:
    """Check the lungs that were found, what lies between them, and whether they lie as the header says.

    Parameters
    ----------
    ct : what was segmented, LPS
    labels : (Z, Y, X) of 0 background, 1 right lung, 2 left lung; not empty
    volume_litres : of the lungs once they are cleaned
    dropped_percent : of what the network found, left out by cleaning
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
    axial, back, head = orientation_margins(ct.hu, labels, ct.grid.spacing_mm)
    measured = {
        "axial_slices": axial,
        "back_behind": back,
        "head_above": head,
        "lung_volume": volume_litres,
        "lung_dropped": dropped_percent,
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
