"""Volumes with lung labels to train on: read, made from scans without labels, filled with synthetic disease, cached.

A CT with a lung mask gives its mask, split into right and left. A CT without one gives a classical pseudo-mask: air in
the body without the airways, closed over vessels. Where that cannot know (what a wide closing adds to a small one may
be consolidation or chest wall), the label is `IGNORE`. Phantoms give exact labels for nothing.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import safetensors.numpy
from numpy.typing import NDArray
from scipy import ndimage

from balaitous.ct.lungs import AIR_HU, LEFT, RIGHT
from balaitous.errors import InputError, MaskError, NoLungError
from balaitous.files import write_whole
from balaitous.synthetic.opacities import add_effusion, add_opacities

if TYPE_CHECKING:
    from balaitous.ct.volume import CT

WHITE = 255  # of binary masks in 8 bits
IGNORE = 255  # label of voxels that the loss leaves out
LUNG_HU = -350  # air and aerated lung lie below, soft tissue above
RIM_HU = -150  # denser voxels beside the lung are fat and muscle
AIRWAY_HU = -930  # the lumen of trachea and main bronchi lies below
SMALL_CLOSING_MM, WIDE_CLOSING_MM = 6.0, 25.0
IN_PLANE = ndimage.generate_binary_structure(2, 1)[None]  # 4-neighbourhood, slice by slice


@dataclass(frozen=True)
class LungCase:
    """A volume with its lung labels.

    Attributes
    ----------
    name : of the scan
    hu : (Z, Y, X) int16, LPS
    labels : (Z, Y, X) uint8 of 0 background, 1 right lung, 2 left lung, 255 unknown
    spacing_mm : x, y, z
    real : a patient's scan rather than a phantom
    pseudo : the labels are a pseudo-mask's
    """

    name: str
    hu: NDArray[np.int16]
    labels: NDArray[np.uint8]
    spacing_mm: tuple[float, float, float]
    real: bool = True
    pseudo: bool = False


def case_digest(case: LungCase) -> str:
    """Identity of a case: the start of the SHA-256 of its voxels, labels and spacing, in hexadecimal."""
    facts = json.dumps([case.hu.shape, case.spacing_mm, case.real])
    return digest([facts.encode(), np.ascontiguousarray(case.hu).data, np.ascontiguousarray(case.labels).data])


def digest(parts: Iterable[bytes | memoryview]) -> str:
    """The start of the SHA-256 of the parts, one after the other, in hexadecimal."""
    sha256 = hashlib.sha256()
    for part in parts:
        sha256.update(part)
    return sha256.hexdigest()[:16]


# --- reading ----------------------------------------------------------------------------------------------------------


def read_case(path: Path, mask: Path | None = None, unsure: slice | None = None) -> LungCase:
    """A scan at the method's spacing with the labels of its mask, or with a pseudo-mask where there is none.

    Parameters
    ----------
    path : of the CT, as `read_ct` takes it
    mask : on the CT's grid: 1 right lung and 2 left lung, or one value (1 or 255) for both, which are then told apart
    unsure : slices of the CT, counted from 0 at the feet, whose labels are not to be trusted (looked at and found
        wrong); they become `IGNORE`

    Raises
    ------
    InputError : the scan cannot be used, it does not have these slices, or its mask is a `MaskError`
    NoLungError : no lung has a label
    """
    # Here, so that training from a cache needs no image library.
    from balaitous.ct.volume import read_ct, resample

    ct = read_ct(path)
    at_spacing = resample(ct)
    labels = mask_labels(mask, ct) if mask else pseudo_labels(at_spacing.hu, at_spacing.grid.spacing_mm)
    if unsure is not None:
        labels[slices_within(unsure, ct, at_spacing)] = IGNORE
    if not np.isin(labels, (RIGHT, LEFT)).any():
        raise NoLungError(f"{path}: expected lungs, found none in {mask or 'it by thresholds; give a mask'}")
    return LungCase(ct.name, at_spacing.hu.astype(np.int16), labels, at_spacing.grid.spacing_mm, pseudo=mask is None)


def mask_labels(path: Path, ct: CT) -> NDArray[np.uint8]:
    """Lung labels (Z, Y, X) at the method's spacing of a mask on the grid of a CT.

    Raises
    ------
    MaskError : the mask is on another grid, has other labels, or calls the left lung right
    """
    from balaitous.ct.volume import read_labels, resample_on

    stored = read_labels(path, ct)
    values = set(pd.unique(stored.ravel()).tolist()) - {0}
    if not values <= {RIGHT, LEFT} and values != {WHITE}:
        raise MaskError(
            f"{path}: expected 0, {RIGHT} (right lung) and {LEFT} (left lung), or one value ({RIGHT} or {WHITE}) for "
            f"both lungs; found {', '.join(f'{value:g}' for value in sorted(values)[:9])}. Map the labels to these."
        )

    def share(inside: NDArray[np.bool_]) -> NDArray[np.float32]:
        return resample_on(ct, inside.astype(np.float32))

    if LEFT not in values:
        return split_sides(share(stored > 0) >= 0.5)
    right, left = share(stored == RIGHT), share(stored == LEFT)
    labels = np.where(right + left < 0.5, 0, np.where(left > right, LEFT, RIGHT)).astype(np.uint8)
    across = [np.flatnonzero(labels == label) % labels.shape[2] for label in (RIGHT, LEFT)]
    if all(map(len, across)) and across[0].mean() > across[1].mean():
        raise MaskError(
            f"{path}: expected {RIGHT} in the patient's right lung and {LEFT} in the left one, found them the "
            "other way round. Exchange the labels; or is the mask's direction wrong?"
        )
    return labels


def slices_within(chosen: slice, ct: CT, resampled: CT) -> NDArray[np.bool_]:
    """Mask (Z,) of the slices of a resampled CT that any chosen slice of the CT contributes to.

    Raises
    ------
    InputError : the CT does not have these slices
    """
    if not 0 <= chosen.start < chosen.stop <= len(ct.hu):
        raise InputError(
            f"{ct.path}: expected unsure slices from 0 to {len(ct.hu) - 1}, found {chosen.start}-{chosen.stop - 1}"
        )
    axis = np.reshape(ct.grid.direction, (3, 3))[:, 2]
    first_mm = (np.array(resampled.grid.origin_mm) - ct.grid.origin_mm) @ axis
    at = (first_mm + np.arange(len(resampled.hu)) * resampled.grid.spacing_mm[2]) / ct.grid.spacing_mm[2]
    at = at.round(3)  # where both grids agree, neighbours have no part
    return (at > chosen.start - 1) & (at < chosen.stop)


def phantom_case(seed: int, **grid: Any) -> LungCase:
    """A phantom without lesions, labels exact; at the method's spacing, or on a grid as `make_phantom` takes it."""
    from balaitous.synthetic.phantom import make_phantom

    phantom = make_phantom(seed, **grid)
    return LungCase(phantom.ct.name, phantom.ct.hu, phantom.lungs, phantom.ct.grid.spacing_mm, real=False)


# --- labels -----------------------------------------------------------------------------------------------------------


def pseudo_labels(hu: NDArray, spacing_mm: tuple[float, float, float]) -> NDArray[np.uint8]:
    """Lung labels of a CT without a mask, by thresholds and morphology; unknown where these cannot know.

    Parameters
    ----------
    hu : (Z, Y, X), LPS
    spacing_mm : x, y, z

    Returns
    -------
    (Z, Y, X) of 0, 1 (right), 2 (left), 255 (unknown)
    """
    body = np.stack([_body(axial) for axial in hu])
    air = (hu < LUNG_HU) & body
    air &= ~_airways(hu, air, spacing_mm)
    core = ndimage.binary_opening(air, ndimage.generate_binary_structure(3, 1))
    components, count = ndimage.label(core)
    if count == 0:
        return np.zeros(hu.shape, np.uint8)
    # The lungs: one component (joined) or two; bowel gas is smaller by far.
    sizes = np.bincount(components.ravel())[1:]
    order = np.argsort(-sizes)
    lungs = [i + 1 for i in order[:2] if sizes[i] > 0.15 * sizes[order[0]]]
    mask = np.isin(components, lungs)
    mask = ndimage.binary_dilation(mask, iterations=2) & air
    labels = split_sides(mask)
    out = np.zeros_like(labels)
    unknown = np.zeros(labels.shape, bool)
    for label in (RIGHT, LEFT):
        for axial, side, doubt in zip(out, labels == label, unknown, strict=True):
            if side.any():
                axial[(closed := _closed(side, SMALL_CLOSING_MM, spacing_mm)) & (axial == 0)] = label
                doubt |= _closed(closed, WIDE_CLOSING_MM, spacing_mm)
    out[unknown & (out == 0)] = IGNORE
    return out


def split_sides(mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Labels 1 (right) and 2 (left) of a binary lung mask (Z, Y, X) in LPS, also where the lungs touch.

    The mask is eroded in plane until it falls into two large parts; every voxel then takes the label of the nearer one.
    A mask that never does is split at its middle.
    """
    if not mask.any():
        return np.zeros(mask.shape, np.uint8)
    seeds = np.zeros(mask.shape, np.uint8)
    eroded = mask
    while eroded.any() and not seeds.any():
        components, _ = ndimage.label(eroded)
        sizes = np.bincount(components.ravel(), minlength=3)[1:]
        second, first = np.argsort(sizes)[-2:]
        if sizes[second] > 0.2 * sizes[first]:
            centres = ndimage.center_of_mass(eroded, components, [first + 1, second + 1])
            right_first = centres[0][2] < centres[1][2]
            seeds[components == first + 1] = RIGHT if right_first else LEFT
            seeds[components == second + 1] = LEFT if right_first else RIGHT
        eroded = ndimage.binary_erosion(eroded, IN_PLANE)
    if not seeds.any():
        columns = np.flatnonzero(mask.any(axis=(0, 1)))
        seeds[mask] = np.where(np.argwhere(mask)[:, 2] < 0.5 * (columns[0] + columns[-1]), RIGHT, LEFT)
    nearest = ndimage.distance_transform_edt(seeds == 0, return_distances=False, return_indices=True)
    return np.where(mask, seeds[tuple(nearest)], 0).astype(np.uint8)


def _body(axial_hu: NDArray) -> NDArray[np.bool_]:
    """The body in an axial slice (Y, X), lungs included."""
    tissue = ndimage.binary_opening(axial_hu > -500)  # more would open a thin chest wall
    components, count = ndimage.label(tissue)
    if count == 0:
        return np.zeros(axial_hu.shape, bool)
    largest = components == 1 + int(np.argmax(np.bincount(components.ravel())[1:]))
    return ndimage.binary_fill_holes(ndimage.binary_closing(largest, iterations=2))


def _airways(hu: NDArray, air: NDArray[np.bool_], spacing_mm: tuple[float, float, float]) -> NDArray[np.bool_]:
    """Trachea and main bronchi with their walls, followed downwards from the topmost slices, slice by slice."""
    pixel_mm2 = spacing_mm[0] * spacing_mm[1]
    lumen = ndimage.gaussian_filter(hu.astype(np.float32), (0, 0.5, 0.5)) < AIRWAY_HU
    found = np.zeros(hu.shape, bool)
    previous = None
    middle = hu.shape[2] / 2
    for k in range(len(hu) - 1, -1, -1):
        components, count = ndimage.label(lumen[k] & air[k])
        if count == 0:
            continue
        area = np.bincount(components.ravel(), minlength=count + 1) * pixel_mm2
        small = (area > 25) & (area < 900)
        small[0] = False
        if previous is None:  # the seed: one round hole near the middle
            for i in np.flatnonzero(small):
                _, x = ndimage.center_of_mass(components == i)
                if abs(x - middle) * spacing_mm[0] < 45 and area[i] > 60:
                    previous = components == i
                    found[k] |= previous
            continue
        touching = np.unique(components[ndimage.binary_dilation(previous, iterations=3)])
        now = np.isin(components, touching[small[touching]])
        # Bronchi branch slowly; a jump in area means that emphysema, as dark as they are, was reached.
        if now.any() and now.sum() < 1.6 * previous.sum() + 80 / pixel_mm2:
            found[k] = previous = now
    return ndimage.binary_dilation(found, IN_PLANE, iterations=2)


def _closed(mask: NDArray[np.bool_], radius_mm: float, spacing_mm: tuple[float, float, float]) -> NDArray[np.bool_]:
    """Closing of a 2-D mask by a disc, by two distance maps (fast for wide discs)."""
    margin = math.ceil(radius_mm / min(spacing_mm[:2])) + 1
    padded = np.pad(mask, margin)
    sampling = spacing_mm[1::-1]
    grown = ndimage.distance_transform_edt(~padded, sampling=sampling) <= radius_mm
    closed = ndimage.distance_transform_edt(grown, sampling=sampling) > radius_mm
    return (closed | padded)[margin:-margin, margin:-margin]


# --- disease ----------------------------------------------------------------------------------------------------------


def add_disease(case: LungCase, rng: np.random.Generator) -> LungCase:
    """The case with synthetic opacities in its lungs (a few percent to most of them), now and then with an effusion."""
    lungs = np.where(case.labels == IGNORE, 0, case.labels)
    lung_ml = float((lungs > 0).sum() * np.prod(case.spacing_mm) / 1000)
    # Also fill the rim between the mask and the chest wall, half air: dark, it would tell where the mask ends.
    rim = ndimage.binary_dilation(lungs > 0, IN_PLANE, iterations=3, mask=case.hu < RIM_HU)
    filled = np.where(lungs > 0, lungs, rim * ndimage.grey_dilation(lungs, (1, 7, 7)))
    hu: NDArray = case.hu
    if rng.random() < 0.9:
        volume_ml = lung_ml * rng.uniform(0.1, 0.95) ** 2
        hu, _ = add_opacities(hu, filled, rng, volume_ml=volume_ml, spacing_mm=case.spacing_mm)
    if rng.random() < 0.35:
        hu, _ = add_effusion(hu, filled, rng, share=rng.uniform(0.05, 0.5), label=int(rng.choice([RIGHT, LEFT])))
    return replace(case, hu=np.clip(np.round(hu), AIR_HU, 3071).astype(np.int16))


# --- cache ------------------------------------------------------------------------------------------------------------


def cached_case(path: Path, make: Callable[[], LungCase]) -> LungCase:
    """The case in a .safetensors file; where there is none, it is made first, and written at once.

    Its arrays are mapped, not read: hundreds of cases need no memory, and keep no files open.
    """
    if not path.exists():
        case = make()
        facts = {"name": case.name, "spacing_mm": case.spacing_mm, "real": case.real, "pseudo": case.pseudo}
        path.parent.mkdir(parents=True, exist_ok=True)
        arrays: dict[str, NDArray] = {"hu": np.ascontiguousarray(case.hu), "labels": np.ascontiguousarray(case.labels)}
        write_whole(path, safetensors.numpy.save(arrays, {"facts": json.dumps(facts)}))
    with safetensors.safe_open(path, "pt") as file:
        facts = json.loads(file.metadata()["facts"])
        hu, labels = (file.get_tensor(name).numpy() for name in ("hu", "labels"))
    return LungCase(hu=hu, labels=labels, **facts | {"spacing_mm": tuple(facts["spacing_mm"])})
