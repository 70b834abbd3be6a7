"""Whether the picture lies as its header says: the patient's left, back and head along x, y and z.

A chest is recognised by what lies in and around its lungs: they lie side by side, the spine behind and between them;
they narrow towards the head and end at the abdomen. A small picture of that, the mean of phantoms, is held against the
scan in all 24 orientations, and tells how much more like a chest it is as the header has it than otherwise. Besides, a
scanner cuts the body at the first and the last axial slice, and seldom at its sides; disease does not change that.

The picture is the same left and right, since the sides of a chest differ too little to tell a mirror image.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations, product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from balaitous.ct.grid import Triple

CHEST = Path(__file__).with_name("chest.npy")  # made by tools/make_chest.py
BLOCK_MM = 4.5  # three voxels of 1.5 mm: fine enough for lungs, spine and diaphragm
HU_RANGE = (-1000, 200)  # contrast agent and metal would outweigh the anatomy
LUNG_BELOW_HU = -600  # bowel and foam are not joined to them
AIR_BELOW_HU = -950  # on average: there is blood in lungs
LEAST_PART = 0.15  # of the largest body of air inside the patient: smaller ones are bowel, which is no lung
ENDS = 0.01  # of the lungs, left out at either end of an axis: the windpipe
AROUND = 0.12  # of the lungs' width and depth, looked at on either side of them
HEIGHT = 0.95  # of lungs, over their width; what is less high is a part of them
BODY_ABOVE_HU = -600
BODY_SHARE = 0.01  # of a plane, under which it is padding, or beside the body
LEAST_LIKENESS = 0.45  # where nothing is more alike, as where one lung is lost, front and back are not told apart

Box = tuple[tuple[float, float], ...]  # first and last index, along (Z, Y, X)


@dataclass(frozen=True)
class Lie:
    """One way a patient can lie in a volume.

    Attributes
    ----------
    axes : which axes of the array go upwards, backwards and across
    upside_down, back_to_front : whether the first two count the other way
    """

    axes: tuple[int, ...]
    upside_down: bool
    back_to_front: bool

    @property
    def axial(self) -> bool:
        return self.axes[0] == 0

    @property
    def turned(self) -> bool:
        return self.axes[1] != 1 or self.back_to_front


def orientation_margins(
    hu: NDArray, labels: NDArray[np.uint8], spacing_mm: Triple
) -> tuple[float | None, float | None, float | None]:
    """How much more like a chest a scan is as its header says than otherwise, as differences of correlations.

    Parameters
    ----------
    hu : (Z, Y, X), LPS
    labels : (Z, Y, X), not 0 where lung was found
    spacing_mm : x, y, z

    Returns
    -------
    With axial slices, over sagittal and coronal ones, and how much more of the body is cut at their ends; with the back
    behind, over it in front or at a side; with the head above, over below. None where no lungs are found; the last two
    also where the slices are not axial, or nothing is like a chest.
    """
    chest = np.load(CHEST, allow_pickle=False)
    small, found, block_mm = blocks(hu, labels, spacing_mm)
    tried = [likenesses(small, lungs, block_mm, chest) for lungs in (found, *enclosed_air(small)) if lungs.any()]
    if not tried:
        return None, None, None
    likeness = max(tried, key=lambda each: max(each.values()))
    axial = {lie: value for lie, value in likeness.items() if lie.axial}
    cut = [cut_share(np.moveaxis(small, axis, 0)) for axis in range(3)]
    margin = max(axial.values()) - max(value for lie, value in likeness.items() if not lie.axial)
    margin += cut[0] - max(cut[1:])
    if margin < 0 or max(likeness.values()) < LEAST_LIKENESS:
        return margin, None, None
    upright, turned = ([value for lie, value in axial.items() if lie.turned is each] for each in (False, True))
    above, below = ([value for lie, value in axial.items() if lie.upside_down is each] for each in (False, True))
    return margin, max(upright) - max(turned), max(above) - max(below)


def blocks(
    hu: NDArray, labels: NDArray[np.uint8], spacing_mm: Triple
) -> tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.float64]]:
    """Means of HU over blocks of some `BLOCK_MM`, whether lung was found there, and their size (Z, Y, X) in mm."""
    voxel_mm = np.array(spacing_mm[::-1])
    size = np.clip(np.rint(BLOCK_MM / voxel_mm).astype(int), 1, hu.shape)
    z, y, x = size
    slices, rows, columns = (n // step for n, step in zip(hu.shape, size, strict=True))
    whole = tuple(slice(n * step) for n, step in zip((slices, rows, columns), size, strict=True))
    small = np.clip(hu[whole], *HU_RANGE).reshape(slices, z, rows, y, columns, x).mean((1, 3, 5), dtype=np.float32)
    found = labels[whole][z // 2 :: z, y // 2 :: y, x // 2 :: x] > 0
    return small, found, size * voxel_mm


def enclosed_air(hu: NDArray[np.float32]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """The air inside the patient: the largest body of it, and all large ones.

    Labels are as good as the network is on a patient who lies otherwise than those it was trained on; air is air. That
    around him reaches three sides of the volume or more, and that below his back is nothing but air; lungs that are cut
    at both ends reach two sides, and hold blood. A table of foam may look like a lung.
    """
    parts, count = ndimage.label(hu < LUNG_BELOW_HU)
    size = np.bincount(parts.ravel(), minlength=count + 1)
    mean_hu = np.bincount(parts.ravel(), hu.ravel(), minlength=count + 1) / np.maximum(size, 1)
    sides = np.zeros(count + 1, int)
    for axis, side in product(range(3), (0, -1)):
        sides[np.unique(parts.take(side, axis))] += 1
    size[(sides > 2) | (mean_hu < AIR_BELOW_HU)] = size[0] = 0
    return (parts == np.argmax(size)) & (size.max() > 0), ((size > 0) & (size >= LEAST_PART * size.max()))[parts]


def cut_share(hu: NDArray[np.float32]) -> float:
    """How much of the first and of the last plane (the first axis) with a body is body, where it is less."""
    share = (hu > BODY_ABOVE_HU).mean(axis=(1, 2))
    body = share[share > BODY_SHARE]
    return float(min(body[0], body[-1])) if body.size else 0.0


def likenesses(
    hu: NDArray[np.float32], lungs: NDArray[np.bool_], block_mm: NDArray[np.float64], chest: NDArray
) -> dict[Lie, float]:
    """Correlation with a chest, or with the part of it that is most alike, of every way the patient can lie.

    Parameters
    ----------
    hu, lungs : (Z, Y, X), in blocks
    block_mm : their size
    chest : (Z, Y, X) in HU: lungs from their lowest to their highest slice, and `AROUND` them
    """
    box = extent(lungs)
    lengths = np.array([last - first for first, last in box])
    smooth = ndimage.gaussian_filter(hu, lengths / max(chest.shape) / 3, mode="nearest")
    layers = len(chest)
    found = {}
    for axes in permutations(range(3)):
        height, _, width = (lengths * block_mm)[list(axes)]
        part = int(np.clip(round(layers * height / (HEIGHT * width)), 1, layers))
        view = sampled(smooth.transpose(axes), tuple(box[axis] for axis in axes), (part, *chest.shape[1:]))
        for upside_down, back_to_front in product((False, True), repeat=2):
            seen = view[:: -1 if upside_down else 1, :: -1 if back_to_front else 1]
            found[Lie(axes, upside_down, back_to_front)] = max(
                correlation(seen, chest[first : first + part]) for first in range(layers - part + 1)
            )
    return found


def extent(lungs: NDArray[np.bool_]) -> Box:
    """The box around lungs, without the outermost `ENDS` of them."""
    box = []
    for axis in range(3):
        share = np.cumsum(np.count_nonzero(lungs, axis=tuple({0, 1, 2} - {axis}))) / np.count_nonzero(lungs)
        box.append((float(np.searchsorted(share, ENDS)), float(np.searchsorted(share, 1 - ENDS)) + 1))
    return tuple(box)


def sampled(hu: NDArray[np.float32], box: Box, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """A chest (Z, Y, X) on as many points, from end to end of the box upwards, and `AROUND` it otherwise."""
    points = []
    for axis, ((first, last), n) in enumerate(zip(box, shape, strict=True)):
        around = 0 if axis == 0 else AROUND * (last - first)
        first, last = first - around, last + around
        points.append(first + (np.arange(n) + 0.5) * (last - first) / n - 0.5)
    grid = np.meshgrid(*points, indexing="ij")
    return ndimage.map_coordinates(hu, grid, order=1, mode="constant", cval=HU_RANGE[0])


def correlation(a: NDArray, b: NDArray) -> float:
    """Pearson's, 0 where nothing varies."""
    a, b = a - a.mean(), b - b.mean()
    size = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return float((a * b).sum()) / size if size > 0 else 0.0
