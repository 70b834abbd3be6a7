"""Synthetic chest CT in Hounsfield units, with lungs and lesions that are known exactly: for tests, demo and training.

    python -m balaitous.synthetic.phantom --seed 7 --spacing 2.5 2.5 5 --lesions-ml 600 --out test/images/ct/phantom.mha

An anatomy is drawn from the seed and painted slice by slice (`anatomy.py`), vessels are grown as a tree, opacities are
put in (`opacities.py`), and the scanner adds its blur and noise. No real scan went into it, so it is free of patients
and of their licences; it looks like a chest, and is not one.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from balaitous.ct.grid import Grid
from balaitous.ct.lungs import LEFT, RIGHT
from balaitous.ct.volume import CT, write_mha
from balaitous.reading.patient import Patient
from balaitous.synthetic.anatomy import STOMACH, Anatomy, paint_slice
from balaitous.synthetic.opacities import add_opacities, correlated_noise

DOT_MM3 = 1.0  # volume of the dots that vessels are made of


@dataclass(frozen=True)
class Phantom:
    """A synthetic CT and the truth about it.

    Attributes
    ----------
    ct : the volume, LPS
    lungs : (Z, Y, X) of 0 background, 1 right lung, 2 left lung
    lesions : (Z, Y, X) bool
    lung_ml, lesion_ml : their volumes
    """

    ct: CT
    lungs: NDArray[np.uint8]
    lesions: NDArray[np.bool_]

    @property
    def lung_ml(self) -> float:
        return float((self.lungs > 0).sum() * self.ct.grid.voxel_ml)

    @property
    def lesion_ml(self) -> float:
        return float(self.lesions.sum() * self.ct.grid.voxel_ml)


def make_phantom(
    seed: int,
    *,
    spacing_mm: tuple[float, float, float] = (1.5, 1.5, 5.0),
    size: tuple[int, int, int] | None = None,
    lesion_ml: float = 0.0,
    age_years: float | None = None,
    sex: float | None = None,
) -> Phantom:
    """Draw a chest from `seed`: the same seed, the same voxels.

    Parameters
    ----------
    seed : of the anatomy, the vessels, the lesions and the noise
    spacing_mm : voxel spacing x, y, z
    size : voxels x, y, z; by default a field of view that holds the body and all of the lungs
    lesion_ml : volume of ground glass and consolidation to put into the lungs
    age_years, sex : written into the patient record, drawn if None; sex (1 male, 0 female) also shapes the body
    """
    rng = np.random.default_rng(seed)
    drawn_age, drawn_sex = float(rng.integers(30, 91)), float(rng.integers(2))
    age_years = drawn_age if age_years is None else age_years
    sex = drawn_sex if sex is None else sex
    a = Anatomy.draw(rng, sex)
    if size is None:
        wide = 2 * (a.cage_x + a.muscle + a.fat + (80 if a.arms else 0)) + 25
        field = (wide, max(2 * (a.cage_y + a.muscle + a.fat) + 90, 0.8 * wide), a.height + 55)
        x_size, y_size, z_size = (int(extent / spacing) for extent, spacing in zip(field, spacing_mm, strict=True))
        size = (x_size, y_size, z_size)

    columns, rows, slices = size
    right, back = ((np.arange(n) - (n - 1) / 2) * s for n, s in zip((columns, rows), spacing_mm[:2], strict=True))
    x, y = np.meshgrid((right + a.shift[0]).astype(np.float32), (back + a.shift[1]).astype(np.float32))
    cos, sin = math.cos(a.tilt), math.sin(a.tilt)  # Python numbers keep the arrays float32
    x, y = cos * x - sin * y, sin * x + cos * y
    heights = -35 + np.arange(slices) * spacing_mm[2]
    hu = np.empty((slices, rows, columns), dtype=np.float32)
    lungs = np.empty(hu.shape, dtype=np.uint8)
    for k, z in enumerate(heights):
        hu[k], lungs[k] = paint_slice(a, x, y, float(z))

    inside = lungs > 0
    share = grow_vessels(lungs, rng, spacing_mm)
    hu += np.where(inside, share * (max(a.blood_hu, 40) - hu), 0)
    hu[inside] += 18 * correlated_noise(rng, hu.shape, 5.0, spacing_mm)[inside]
    hu += np.where(hu == STOMACH, a.food * np.minimum(correlated_noise(rng, hu.shape, 4.0, spacing_mm), 0), 0)
    hu += np.where(hu > -300, 8 * correlated_noise(rng, hu.shape, 12.0, spacing_mm), 0)
    hu, lesions = add_opacities(hu, lungs, rng, volume_ml=lesion_ml, spacing_mm=spacing_mm)

    # The scanner: a point spread of about 1.2 mm, reconstructed noise, and a floor at −1024.
    hu = ndimage.gaussian_filter(hu, [0.5 / spacing_mm[2], 0.55 / spacing_mm[1], 0.55 / spacing_mm[0]], truncate=3)
    noise = ndimage.gaussian_filter(rng.standard_normal(hu.shape, dtype=np.float32), [0, 0.6, 0.6], truncate=2)
    hu += noise * (a.noise_hu / noise.std())
    ct = CT(
        hu=np.clip(np.round(hu), -1024, 3071).astype(np.int16),
        grid=Grid(hu.shape, spacing_mm, (float(right[0]), float(back[0]), float(heights[0]))),
        name=f"phantom_{seed}",
        patient=Patient(age_years=age_years, age_source="header", sex=sex, sex_source="header"),
    )
    return Phantom(ct=ct, lungs=lungs, lesions=lesions)


def grow_vessels(
    lungs: NDArray[np.uint8], rng: np.random.Generator, spacing_mm: tuple[float, float, float]
) -> NDArray[np.float32]:
    """Share of every voxel (Z, Y, X) that is filled by a tree of vessels grown from the hilum of each lung.

    Branches end at random points of the lung; each starts at the nearest point of the tree so far, so that thick
    branches near the hilum feed thin ones at the pleura. Vessels are scattered as dots, which gives thin ones the
    grey of a partial volume.
    """
    spacing = np.array(spacing_mm[::-1], dtype=np.float32)
    counts = np.zeros(lungs.size, dtype=np.float32)
    for label in (RIGHT, LEFT):
        voxels = np.argwhere(lungs == label).astype(np.float32)
        if len(voxels) < 1000:
            continue
        midline = 0.5 * (lungs.shape[2] - 1)
        middle = voxels.mean(axis=0)
        inner = voxels[np.abs(voxels[:, 0] - middle[0]) < 3]
        hilum = inner[np.argmin(np.abs(inner[:, 2] - midline) + np.abs(inner[:, 1] - middle[1]))]
        nodes, radii = [hilum * spacing], [5.5]
        ends = (voxels[rng.integers(len(voxels), size=600)] + rng.uniform(-0.5, 0.5, (600, 3))) * spacing
        # Far ends first: they become the trunks.
        trunks = ends[:12][np.argsort(-np.linalg.norm(ends[:12] - nodes[0], axis=1))]
        for end in np.concatenate([trunks, ends[12:]]):
            tree = np.array(nodes)
            nearest = int(np.argmin(np.linalg.norm(tree - end, axis=1) + 0.25 * np.linalg.norm(tree - tree[0], axis=1)))
            start, radius = tree[nearest], radii[nearest]
            length = float(np.linalg.norm(end - start))
            steps = max(int(length / 8), 1)
            sag = rng.normal(0, 0.06 * length, 3)
            for step in range(1, steps + 1):
                s = step / steps
                point = start + s * (end - start) + sag * s * (1 - s) * 2
                thin = max(radius * (0.85 - 0.4 * s), 0.7)
                previous = nodes[nearest] if step == 1 else nodes[-1]
                nodes.append(point)
                radii.append(thin)
                dots = rng.poisson(np.pi * thin**2 * np.linalg.norm(point - previous) / DOT_MM3)
                where = previous + rng.uniform(0, 1, (dots, 1)) * (point - previous)
                where = where + rng.uniform(-1, 1, (dots, 3)) * thin * 0.886  # a square rod of the same section
                index = np.round(where / spacing).astype(int)
                index = index[((index >= 0) & (index < lungs.shape)).all(axis=1)]
                np.add.at(counts, np.ravel_multi_index(tuple(index.T), lungs.shape), DOT_MM3)
    return np.minimum(counts.reshape(lungs.shape) / np.prod(spacing_mm, dtype=np.float32), 1)


def main() -> None:
    arguments = argparse.ArgumentParser(description="Write a synthetic chest CT as MetaImage.")
    arguments.add_argument("--seed", type=int, default=7)
    arguments.add_argument("--out", required=True)
    arguments.add_argument("--spacing", type=float, nargs=3, default=(1.5, 1.5, 5.0), metavar=("X", "Y", "Z"))
    arguments.add_argument("--lesions-ml", type=float, default=600)
    arguments.add_argument("--age", type=float, default=62)
    arguments.add_argument("--sex", type=float, default=1)
    options = arguments.parse_args()
    phantom = make_phantom(
        options.seed,
        spacing_mm=tuple(options.spacing),
        lesion_ml=options.lesions_ml,
        age_years=options.age,
        sex=options.sex,
    )
    write_mha(options.out, phantom.ct)


if __name__ == "__main__":
    main()
