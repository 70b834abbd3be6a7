"""A synthetic cohort: scans with known disease, age, sex and outcome, made of real or phantom lungs.

COVID-19 stands for opacities of viral pneumonia; scans without it are clean, or have an effusion or one small focus,
which are no COVID-19. The severe outcome is drawn with a probability that grows with the share of the lung that is
diseased, with age, and for men. Nothing here says anything about real patients.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.special import expit

from balaitous.ct.lungs import AIR_HU, LEFT, RIGHT, clean_lungs, crop_in_plane, lung_slices
from balaitous.ct.opacities import add_effusion, add_opacities
from balaitous.errors import NoLungError
from balaitous.training.lung_cases import LungCase

COVID_SHARE = 0.5
# Log-odds of a severe outcome: per factor e of diseased lung, per year, male against female, and at MIDDLE.
PER_LOG_BURDEN, PER_YEAR, MALE = 1.2, 0.05, 0.6
MIDDLE_BURDEN, MIDDLE_AGE, AT_MIDDLE = 0.10, 62.0, -0.8


@dataclass(frozen=True)
class SyntheticScan:
    """A scan as the encoders see it, and the truth about it.

    Attributes
    ----------
    host : name of the lungs it was made of
    image, mask : (Z, 224, 224) HU and lung, flipped along Y as the method has them
    lesions : (Z, 224, 224) bool, COVID-19 opacities
    covid, severe : outcomes; `severe` only where `covid`
    burden : share of the lung that is diseased
    """

    host: str
    image: NDArray[np.int16]
    mask: NDArray[np.bool_]
    lesions: NDArray[np.bool_]
    age_years: float
    sex: float
    covid: bool
    severe: bool
    burden: float


def make_scan(host: LungCase, seed: Sequence[int]) -> SyntheticScan:
    """One scan of the cohort, made of the host's lungs (1.5×1.5×5 mm); the same seed gives the same scan.

    Raises
    ------
    NoLungError : if no lung is left that the method would look at
    """
    rng = np.random.default_rng(seed)
    host = vary(host, rng)
    lungs = np.where((host.labels == RIGHT) | (host.labels == LEFT), host.labels, 0).astype(np.uint8)
    lung_ml = float((lungs > 0).sum() * np.prod(host.spacing_mm) / 1000)
    age_years, sex = float(rng.integers(25, 96)), float(rng.integers(2))
    covid = bool(rng.random() < COVID_SHARE)

    hu, lesions = host.hu.astype(np.float32), np.zeros(host.hu.shape, bool)
    if rng.random() < 0.15:
        share, side = rng.uniform(0.02, 0.25), int(rng.choice([RIGHT, LEFT]))
        hu, _ = add_effusion(hu, lungs, rng, share=share, label=side)
    if covid:
        burden = draw_burden(rng)
        hu, lesions = add_opacities(hu, lungs, rng, volume_ml=burden * lung_ml, spacing_mm=host.spacing_mm)
    elif rng.random() < 0.3:  # one focus: a nodule, a scar
        volume_ml = rng.uniform(0.3, 6)
        hu, _ = add_opacities(hu, lungs, rng, volume_ml=volume_ml, spacing_mm=host.spacing_mm, lesions=1)
    hu = hu + rng.exponential(12) * ndimage.gaussian_filter(
        rng.standard_normal(hu.shape, dtype=np.float32), (0, 0.5, 0.5)
    )
    hu = np.clip(np.round(hu), AIR_HU, 3071).astype(np.int16)

    hu, lungs, lesions = hu[:, ::-1], lungs[:, ::-1], lesions[:, ::-1]  # step 5 of the method
    lung = clean_lungs(hu, lungs)
    if not lung.any():
        raise NoLungError(f"no lung left in {host.name}")
    image, mask = crop_in_plane(hu, lung)
    lesion_view, _ = crop_in_plane(lesions.astype(np.int16), lung)  # padded with a negative number
    kept = lung_slices(mask)

    burden = float(lesions.sum() / max((lungs > 0).sum(), 1))
    return SyntheticScan(
        host=host.name,
        image=np.ascontiguousarray(image[kept]),
        mask=np.ascontiguousarray(mask[kept]),
        lesions=lesion_view[kept] > 0,
        age_years=age_years,
        sex=sex,
        covid=covid,
        severe=covid and draw_severe(rng, burden, age_years, sex),
        burden=burden,
    )


def draw_burden(rng: np.random.Generator) -> float:
    """The share of the lung that is diseased in a patient with COVID-19."""
    return float(np.clip(rng.lognormal(np.log(MIDDLE_BURDEN), 1.0), 0.005, 0.7))


def draw_severe(rng: np.random.Generator, burden: float, age_years: float, sex: float) -> bool:
    """Whether the outcome of a patient with COVID-19 is severe."""
    log_odds = AT_MIDDLE + PER_YEAR * (age_years - MIDDLE_AGE) + MALE * (sex - 0.5)
    log_odds += PER_LOG_BURDEN * np.log(max(burden, 1e-3) / MIDDLE_BURDEN)
    return bool(rng.random() < expit(log_odds))


def vary(host: LungCase, rng: np.random.Generator) -> LungCase:
    """The host turned, scaled and shifted a little in plane, stretched along z, and brighter or darker in the lung."""
    angle, scale = rng.normal(0, 4), 1 + rng.normal(0, 0.05, 3)
    cos, sin = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
    matrix = np.array([[1, 0, 0], [0, cos, -sin], [0, sin, cos]]) @ np.diag(scale)
    centre = (np.array(host.hu.shape) - 1) / 2
    offset = centre - matrix @ centre + np.array([0, *rng.normal(0, 4, 2)])
    hu = ndimage.affine_transform(host.hu, matrix, offset, order=1, cval=AIR_HU)
    labels = ndimage.affine_transform(host.labels, matrix, offset, order=0, cval=0)
    aerated = np.clip((-400 - hu.astype(np.float32)) / 300, 0, 1)  # tissue keeps its density
    hu = np.clip(hu + aerated * rng.normal(0, 25), AIR_HU, 3071).astype(np.int16)
    return replace(host, hu=hu, labels=labels)


def make_cohort(hosts: Sequence[LungCase], count: int, seed: int, workers: int | None = None) -> list[SyntheticScan]:
    """`count` scans, hosts taken in turn; the same seed gives the same cohort, whatever the number of workers."""
    jobs = [(hosts[i % len(hosts)], (seed, i)) for i in range(count)]
    with ProcessPoolExecutor(workers) as pool:
        return list(pool.map(make_scan, *zip(*jobs, strict=True), chunksize=4))
