"""Synthetic opacities: the lung changes of viral pneumonia, added to lungs with a given volume.

An opacity is modelled as what it is, air spaces filled with fluid: a voxel of `hu` with the share f of its air replaced
becomes ``hu + f · (FLUID_HU − hu)``, so vessels keep their density and lung structure shows through ground glass.
Terms and their usual place (bilateral, subpleural, posterior, lower zones) follow Hansell et al. 2008,
doi:10.1148/radiol.2462070712, and Simpson et al. 2020, doi:10.1148/ryct.2020200152.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

FLUID_HU = 35.0
SUBPLEURAL_MM = 14.0  # lesion centres thin out with this length from the pleura inwards
SEPTA_MM = 7.0  # mesh of the crazy-paving pattern, about the width of a secondary lobule's half
# Share of the air that is replaced, lowest and highest: −600…−300 HU and about −50…30 HU in a lung of −850 HU.
FILLING = {"ground_glass": (0.28, 0.62), "crazy_paving": (0.3, 0.5), "consolidation": (0.9, 1.0)}


def correlated_noise(
    rng: np.random.Generator, shape: tuple[int, ...], scale_mm: float, spacing_mm: tuple[float, float, float]
) -> np.ndarray:
    """Gaussian noise of mean 0 and standard deviation 1 over (Z, Y, X), smooth over about `scale_mm`.

    It is drawn on a lattice of that pitch and interpolated linearly, which costs the same for every scale.
    """
    steps = [max(scale_mm / spacing, 1.0) for spacing in spacing_mm[::-1]]
    coarse = rng.standard_normal([int(np.ceil(n / step)) + 2 for n, step in zip(shape, steps, strict=True)])
    fine = coarse.astype(np.float32)
    for axis, (n, step) in enumerate(zip(shape, steps, strict=True)):
        at = np.arange(n, dtype=np.float32) / np.float32(step) + np.float32(rng.uniform(0, 1))
        low = at.astype(int)
        weight = (at - low).reshape([-1 if a == axis else 1 for a in range(3)])
        fine = fine.take(low, axis) * (1 - weight) + fine.take(low + 1, axis) * weight
    return fine / fine.std()


def depth_mm(lungs: np.ndarray, spacing_mm: tuple[float, float, float]) -> np.ndarray:
    """Distance of every lung voxel from the lung's surface in mm (0 outside), taken on every second voxel in plane."""
    coarse = lungs[:, ::2, ::2] > 0
    x, y, z = spacing_mm
    depth = ndimage.distance_transform_edt(np.pad(coarse, 1), sampling=(z, 2 * y, 2 * x))[1:-1, 1:-1, 1:-1]
    _, rows, columns = lungs.shape
    return depth.astype(np.float32).repeat(2, 1)[:, :rows].repeat(2, 2)[:, :, :columns] * (lungs > 0)


def add_opacities(
    hu: np.ndarray,
    lungs: np.ndarray,
    rng: np.random.Generator,
    *,
    volume_ml: float,
    spacing_mm: tuple[float, float, float],
    lesions: int | None = None,
    consolidation: float | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Put opacities of `volume_ml` in all into the lungs.

    Parameters
    ----------
    hu : (Z, Y, X) Hounsfield units, LPS order (so that larger y is posterior)
    lungs : (Z, Y, X) labels, 0 outside the lungs
    volume_ml : volume of the lesion mask; at most 95 % of the lungs are filled
    spacing_mm : voxel spacing x, y, z
    lesions : number of foci; by default drawn, more for larger volumes. One focus of a litre is a whole lobe
    consolidation : share of the foci that are consolidated, 0 to 1; by default drawn

    Returns
    -------
    hu, lesion mask
        (Z, Y, X) float32, equal to the input outside the mask and nowhere lower; (Z, Y, X) bool, its volume exact to
        one voxel
    """
    box = _box(lungs)
    inside = lungs[box] > 0
    voxel_ml = float(np.prod(spacing_mm)) / 1000
    wanted = min(round(volume_ml / voxel_ml), int(0.95 * inside.sum()))
    mask = np.zeros(lungs.shape, dtype=bool)
    if wanted <= 0:
        return hu.astype(np.float32), mask

    lesions = int(rng.integers(1, 4) + volume_ml ** rng.uniform(0.3, 0.55)) if lesions is None else lesions
    consolidation = rng.beta(0.7, 1.5) if consolidation is None else consolidation
    depth = depth_mm(lungs[box], spacing_mm)
    centres = _centres(inside, depth, rng, lesions)
    radius_mm = (volume_ml * 1000 / lesions * 0.24) ** (1 / 3)  # of spheres that share the volume

    best: np.ndarray = np.full(inside.shape, -np.inf, dtype=np.float32)  # closeness to the nearest focus
    filling: np.ndarray = np.zeros(inside.shape, dtype=np.float32)  # of the nearest focus
    paving = np.zeros(inside.shape, dtype=bool)
    for centre in centres:
        sigma_mm = radius_mm * rng.lognormal(0, 0.4) * rng.uniform(0.7, 1.3, size=3)
        z, y, x = (
            np.square((np.arange(n, dtype=np.float32) - at) * np.float32(spacing / sigma))
            for n, at, spacing, sigma in zip(inside.shape, centre, spacing_mm[::-1], sigma_mm, strict=True)
        )
        near = -np.sqrt(z[:, None, None] + y[:, None] + x)
        closer = near > best
        kind = "consolidation" if rng.random() < consolidation else rng.choice(["ground_glass", "crazy_paving"])
        best[closer] = near[closer]
        filling[closer] = rng.uniform(*FILLING[kind])
        paving[closer] = kind == "crazy_paving"

    # Borders wander by the noise, and opacities spread along the pleura rather than inwards.
    score = best + 0.4 * correlated_noise(rng, inside.shape, max(radius_mm, 10.0), spacing_mm)
    score += 0.1 * correlated_noise(rng, inside.shape, 5.0, spacing_mm) - 0.4 * np.minimum(depth / 25, 1)
    score[~inside] = -np.inf
    chosen = np.argpartition(score, -wanted, axis=None)[-wanted:]
    lesion = mask[box]  # a view: filling it fills `mask`
    lesion[np.unravel_index(chosen, lesion.shape)] = True

    rise = np.clip((score - score[lesion].min()) / rng.uniform(0.15, 0.6), 0, 1)  # soft borders
    texture = 1 + 0.15 * correlated_noise(rng, inside.shape, 4.0, spacing_mm)
    mesh = np.abs(correlated_noise(rng, inside.shape, SEPTA_MM, spacing_mm)) < 0.25
    filling = np.where(paving & mesh, filling + 0.3, filling) * texture
    share = np.where(lesion, np.clip(filling, 0.05, 1) * (0.25 + 0.75 * rise), 0)
    return _fill(hu, box, share), mask


def add_effusion(
    hu: np.ndarray, lungs: np.ndarray, rng: np.random.Generator, *, share: float, label: int
) -> tuple[np.ndarray, np.ndarray]:
    """Fill the lowest-lying `share` of one lung (supine: posterior, basal) as an effusion with atelectasis does.

    Returns the new (Z, Y, X) float32 HU and the (Z, Y, X) mask of what was filled.
    """
    side = lungs == label
    mask = np.zeros(lungs.shape, dtype=bool)
    if not side.any():
        return hu.astype(np.float32), mask
    box = _box(side)
    z, y, x = (np.linspace(-1, 1, n, dtype=np.float32) for n in side[box].shape)
    level = y[:, None] + 0.4 * x**2 - rng.uniform(0.1, 0.8) * z[:, None, None]  # 0.4 x²: the meniscus
    level = np.where(side[box], level, -np.inf)
    mask[box] = level > np.quantile(level[side[box]], 1 - share)
    return _fill(hu, box, np.where(mask[box], rng.uniform(0.96, 1.0), 0)), mask


def _fill(hu: np.ndarray, box: tuple[slice, ...], share: np.ndarray) -> np.ndarray:
    """`hu` with `share` of the air inside `box` replaced by fluid; tissue denser than the fluid stays."""
    out = hu.astype(np.float32)
    out[box] += share.astype(np.float32) * np.maximum(FLUID_HU - out[box], 0)
    return out


def _centres(inside: np.ndarray, depth: np.ndarray, rng: np.random.Generator, count: int) -> np.ndarray:
    """`count` voxel indices (n, 3), mostly near the pleura, posterior and in the lower two thirds."""
    voxels = np.argwhere(inside)
    voxels = voxels[rng.integers(len(voxels), size=4000)]
    low, posterior = 1 - voxels[:, 0] / inside.shape[0], voxels[:, 1] / inside.shape[1]
    weight = np.exp(-depth[tuple(voxels.T)] / SUBPLEURAL_MM) * (0.3 + posterior**2) * (0.4 + low)
    return voxels[rng.choice(len(voxels), size=count, p=weight / weight.sum())]


def _box(mask: np.ndarray) -> tuple[slice, ...]:
    """Bounding box of a mask that is not empty (an empty one gives an empty box)."""
    found = ndimage.find_objects((mask > 0).astype(np.uint8))
    return found[0] if found else (slice(0, 0),) * mask.ndim
