"""Lung labels of a CT volume, and their cleaning: steps 4 and 6 of the severity method.

Arrays are (Z, Y, X) in LPS order, labels 0 background, 1 right lung, 2 left lung.

References
----------
Hofmanninger et al. 2020, doi:10.1186/s41747-020-00173-2: body crop, 2-D U-Net, volume post-processing.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

AIR_HU = -1024
WINDOW_HU = (-1024, 600)  # what both kinds of network see
RIGHT, LEFT = 1, 2

BODY_THRESHOLD_HU = -500
BODY_GRID = 128  # the body box is found on a 128×128 copy of the slice
UNET_GRID = 256

TISSUE_THRESHOLD_HU = -100  # a 2-D component whose 5th percentile is above this holds no air: not lung
TISSUE_PERCENTILE = 5
SMALLEST_MERGED_VOXELS = 3

ALL_NEIGHBOURS_2D = np.ones((3, 3), bool)
ALL_NEIGHBOURS_3D = np.ones((3, 3, 3), bool)

Box = tuple[slice, slice]  # rows, columns


@dataclass(frozen=True)
class BodyCrops:
    """What the U-Net looks at: the body in every axial slice of a volume.

    Attributes
    ----------
    crops : (Z, 256, 256) in HU, windowed
    boxes : where they lie in the volume's slices
    shape : (Z, Y, X) of the volume
    """

    crops: NDArray
    boxes: list[Box]
    shape: tuple[int, ...]


# --- step 4: lung labels; the network between these two is in networks/lungs.py --------------------------------------


def body_crops(hu: NDArray) -> BodyCrops:
    """Cut the body out of every axial slice.

    Parameters
    ----------
    hu : (Z, Y, X), LPS, in HU; the crops keep its type, so that integral HU stay integral, as in the published package
    """
    crops = np.empty((len(hu), UNET_GRID, UNET_GRID), hu.dtype)
    boxes = []
    for axial, crop in zip(hu, crops, strict=True):
        axial = np.clip(axial, *WINDOW_HU)
        box = body_box(axial)
        body = axial[box]
        scale = (UNET_GRID / body.shape[0], UNET_GRID / body.shape[1])
        ndimage.zoom(body, scale, output=crop, order=1, mode="nearest")
        boxes.append(box)
    return BodyCrops(crops, boxes, hu.shape)


def volume_labels(labels: NDArray[np.uint8], body: BodyCrops) -> NDArray[np.uint8]:
    """Labels (Z, Y, X) of a volume, consistent in 3-D, from those of its `body_crops` (Z, 256, 256)."""
    return in_volume(merge_components(labels), body)


def in_volume(labels: NDArray[np.uint8], body: BodyCrops) -> NDArray[np.uint8]:
    """Labels (Z, 256, 256) of body crops where they lie in the volume (Z, Y, X)."""
    out = np.zeros(body.shape, np.uint8)
    for axial, crop, box in zip(out, labels, body.boxes, strict=True):
        height, width = axial[box].shape
        axial[box] = crop[np.ix_(nearest(UNET_GRID, height), nearest(UNET_GRID, width))]
    return out


def body_box(axial_hu: NDArray) -> Box:
    """Bounding box of the body in an axial slice (Y, X) in HU; the whole slice where no body is found."""
    height, width = axial_hu.shape
    small = axial_hu[np.ix_(nearest(height, BODY_GRID), nearest(width, BODY_GRID))] > BODY_THRESHOLD_HU
    small = ndimage.binary_closing(small)
    small = ndimage.binary_fill_holes(small, structure=ALL_NEIGHBOURS_2D)
    small = ndimage.binary_erosion(small, iterations=2)
    components, count = ndimage.label(small)
    if count == 0:
        return slice(0, height), slice(0, width)
    body = ndimage.binary_dilation(components == largest_component(components, count), iterations=2)
    body = body[np.ix_(nearest(BODY_GRID, height), nearest(BODY_GRID, width))]
    components, _ = ndimage.label(body, structure=ALL_NEIGHBOURS_2D)
    rows, columns = ndimage.find_objects(components, max_label=1)[0]
    return rows, columns


@lru_cache(maxsize=1024)
def nearest(size_in: int, size_out: int) -> NDArray[np.int32]:
    """Indices that resize an axis to `size_out` by nearest neighbour, corner voxels on corner voxels."""
    # mode: rounding may put the last corner just outside, where scipy's default is 0
    return ndimage.zoom(np.arange(size_in, dtype=np.int32), size_out / size_in, order=0, mode="nearest")


def largest_component(components: NDArray[np.int32], count: int) -> int:
    """Label of the component with the most voxels, of labels 1…`count` (the first of equals)."""
    return int(np.argmax(voxels_of(components, count + 1)[1:])) + 1


def merge_components(labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Give stray components to the neighbour they border most, keep one component a lung and fill its holes.

    In order of growing size, a component (26-neighbourhood, one label) that is not the largest of its label and has at
    least 3 voxels joins the lung component with which it shares the largest border, if there is one.

    Parameters
    ----------
    labels : (Z, Y, X) of 0, 1 (right), 2 (left)
    """
    out = np.zeros(labels.shape, np.uint8)
    if not labels.any():
        return out
    rows, columns = ndimage.find_objects(labels.any(0).astype(np.uint8))[0]  # numbers of components take much memory
    labels, inside = labels[:, rows, columns], out[:, rows, columns]

    components, right_count = ndimage.label(labels == RIGHT, structure=ALL_NEIGHBOURS_3D)
    left, left_count = ndimage.label(labels == LEFT, structure=ALL_NEIGHBOURS_3D)
    left[left > 0] += right_count
    components += left
    del left
    label_of = np.repeat(np.array([0, RIGHT, LEFT], np.uint8), [1, right_count, left_count])
    size = voxels_of(components, len(label_of))
    boxes = ndimage.find_objects(components)
    largest = {label: max(size[label_of == label], default=0) for label in (RIGHT, LEFT)}

    by_size = 1 + np.argsort(size[1:], kind="stable")
    for component in by_size:
        if not SMALLEST_MERGED_VOXELS <= size[component] < largest[label_of[component]]:
            continue
        around = grown(boxes[component - 1], components.shape)
        region = components[around]
        border = ndimage.binary_dilation(region == component) & (region != component) & (region > 0)
        if not border.any():
            continue
        shared = np.bincount(region[border])
        neighbour = int(np.argmax(shared))
        region[region == component] = neighbour
        boxes[neighbour - 1] = union(boxes[neighbour - 1], boxes[component - 1])
        if size[neighbour] == largest[label_of[neighbour]]:
            largest[label_of[neighbour]] += size[component]
        size[neighbour] += size[component]

    merged = label_of[components]
    del components
    for label in (RIGHT, LEFT):
        lung = merged == label
        if lung.any():
            inside[fill_holes(keep_largest(lung))] = label
    return out


def voxels_of(components: NDArray[np.int32], count: int) -> NDArray[np.int64]:
    """Voxels of each of `count` labels in (…, Y, X); slice by slice, because `bincount` makes 64-bit copies."""
    voxels = np.zeros(count, np.int64)
    for axial in components.reshape(-1, *components.shape[-2:]):
        voxels += np.bincount(axial.ravel(), minlength=count)
    return voxels


def grown(box: tuple[slice, ...], shape: tuple[int, ...]) -> tuple[slice, ...]:
    """The box one voxel larger on every side, clamped to the array."""
    return tuple(slice(max(s.start - 1, 0), min(s.stop + 1, n)) for s, n in zip(box, shape, strict=True))


def union(a: tuple[slice, ...], b: tuple[slice, ...]) -> tuple[slice, ...]:
    """The smallest box that holds both."""
    return tuple(slice(min(s.start, t.start), max(s.stop, t.stop)) for s, t in zip(a, b, strict=True))


def keep_largest(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The largest component (26-neighbourhood) of a non-empty mask (Z, Y, X)."""
    components, count = ndimage.label(mask, structure=ALL_NEIGHBOURS_3D)
    return mask if count == 1 else components == largest_component(components, count)


def fill_holes(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Fill background that cannot reach the edge of the volume; in a single slice, holes under 64 pixels."""
    if len(mask) == 1:
        holes, _ = ndimage.label(ndimage.binary_fill_holes(mask[0]) & ~mask[0])
        small = np.bincount(holes.ravel()) < 64
        small[0] = False
        return mask | small[holes]
    # One labelling of the background, inside the mask's box, is many times faster than scipy's binary_fill_holes,
    # which dilates from the edge step by step.
    box = ndimage.find_objects(mask.astype(np.uint8))[0]
    background, count = ndimage.label(~mask[box])
    open_ = np.zeros(count + 1, bool)
    for axis in range(3):
        for edge in (0, -1):
            open_[np.unique(background.take(edge, axis))] = True
    open_[0] = True  # 0 is the mask itself
    filled = mask.copy()
    filled[box] |= ~open_[background]
    return filled


# --- step 6: clean ---------------------------------------------------------------------------------------------------


def clean_lungs(hu: NDArray, labels: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """One component a lung, without 2-D parts that hold no air; (Z, Y, X) in, mask (Z, Y, X) out, empty if no lung."""
    mask = np.zeros(labels.shape, bool)
    for label in (RIGHT, LEFT):
        lung = labels == label
        if lung.any():
            mask |= keep_largest(lung)
    for axial_hu, axial_mask in zip(hu, mask, strict=True):
        components, _ = ndimage.label(axial_mask, structure=ALL_NEIGHBOURS_2D)
        for i, box in enumerate(ndimage.find_objects(components), start=1):
            part = components[box] == i
            if np.percentile(axial_hu[box][part], TISSUE_PERCENTILE) > TISSUE_THRESHOLD_HU:
                axial_mask[box][part] = False
    return mask


def dropped_share(found: NDArray[np.uint8], labels: NDArray[np.uint8], kept_voxels: int) -> float:
    """Share in % of the lung that the network found and that merging and cleaning leave out.

    Parameters
    ----------
    found : (Z, Y, X), the network's labels
    labels : (Z, Y, X), the same once they are merged
    kept_voxels : of `labels`, once they are cleaned
    """
    dropped = np.count_nonzero((found > 0) & (labels == 0)) + np.count_nonzero(labels) - kept_voxels
    return float(100 * dropped / max(int(np.count_nonzero(found)), 1))
