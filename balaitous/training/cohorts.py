"""A cohort of synthetic patients in the layout of the STOIC folder, made of phantoms' lungs or of real ones.

    python -m balaitous.training.cohorts --scans 240 --seed 2 [--host CT …] [--spacing X Y Z] --out FOLDER

COVID-19 stands for opacities of viral pneumonia; scans without it are clean, or have an effusion or one small focus,
which are no COVID-19. The severe outcome is drawn with a probability that grows with the share of the lung that is
diseased, with age, and for men. Nothing here says anything about real patients.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.special import expit

from balaitous.ct.grid import Grid
from balaitous.ct.lungs import AIR_HU, LEFT, RIGHT
from balaitous.ct.volume import CT, SPACING_MM
from balaitous.reading.patient import Patient
from balaitous.synthetic.opacities import add_effusion, add_opacities
from balaitous.training.heads.stoic import write_stoic
from balaitous.training.lungs.cases import LungCase, phantom_case, read_case

COVID_SHARE = 0.5
EFFUSION_SHARE, FOCUS_SHARE = 0.15, 0.3  # of all patients, and of those without COVID-19
# Log-odds of a severe outcome: per factor e of diseased lung, per year, male against female, and at MIDDLE.
PER_LOG_BURDEN, PER_YEAR, MALE = 1.2, 0.05, 0.6
MIDDLE_BURDEN, MIDDLE_AGE, AT_MIDDLE = 0.10, 62.0, -0.8


@dataclass(frozen=True)
class SyntheticPatient:
    """A scan and the truth about it.

    Attributes
    ----------
    ct : with age and sex
    lesions : (Z, Y, X) bool, COVID-19 opacities
    covid, severe : outcomes; `severe` only where `covid`
    burden : share of the lung that is diseased
    """

    ct: CT
    lesions: NDArray[np.bool_]
    covid: bool
    severe: bool
    burden: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scans", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--host", type=Path, nargs="*", default=[], help="CTs whose lungs every second patient has")
    parser.add_argument(
        "--spacing", type=float, nargs=3, default=SPACING_MM, help="of phantoms, in mm; coarse is quick"
    )
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    make_stoic_folder(options.out, options.scans, options.seed, options.host, tuple(options.spacing))


def make_stoic_folder(
    folder: Path,
    scans: int,
    seed: int = 0,
    hosts: Sequence[Path] = (),
    spacing_mm: tuple[float, float, float] = SPACING_MM,
    size: tuple[int, int, int] | None = None,
) -> Path:
    """Write ``data/mha/<PatientID>.mha`` and ``metadata/reference.csv``; the same arguments give the same files.

    Parameters
    ----------
    hosts : real CTs; every second patient has the lungs of one of them in turn, the others those of a phantom each
    spacing_mm, size : of phantoms, x, y, z, as `make_phantom` takes them
    """
    return write_stoic(folder, scans, partial(draw_patient, seed, tuple(hosts), spacing_mm, size))


def draw_patient(
    seed: int,
    hosts: Sequence[Path],
    spacing_mm: tuple[float, float, float],
    size: tuple[int, int, int] | None,
    number: int,
) -> tuple[CT, bool, bool]:
    """The CT of a patient of the cohort, and whether there is COVID-19 and a severe outcome."""
    if hosts and number % 2 == 0:
        host = real_host(hosts[number // 2 % len(hosts)])
    else:
        drawn = int(np.random.default_rng((seed, number, 1)).integers(2**31))
        host = phantom_case(drawn, spacing_mm=spacing_mm, size=size)
    patient = make_patient(host, (seed, number))
    return patient.ct, patient.covid, patient.severe


@lru_cache
def real_host(path: Path) -> LungCase:
    """A real CT at the method's spacing, with a pseudo-mask of its lungs."""
    return read_case(path)


def make_patient(host: LungCase, seed: Sequence[int]) -> SyntheticPatient:
    """One patient, made of the host's lungs; the same seed gives the same one."""
    rng = np.random.default_rng(seed)
    host = vary(host, rng)
    lungs = np.where((host.labels == RIGHT) | (host.labels == LEFT), host.labels, 0).astype(np.uint8)
    lung_ml = float((lungs > 0).sum() * np.prod(host.spacing_mm) / 1000)
    age_years, sex = float(rng.integers(25, 96)), float(rng.integers(2))
    covid = bool(rng.random() < COVID_SHARE)

    hu, lesions = host.hu.astype(np.float32), np.zeros(host.hu.shape, bool)
    if rng.random() < EFFUSION_SHARE:
        share, side = rng.uniform(0.02, 0.25), int(rng.choice([RIGHT, LEFT]))
        hu, _ = add_effusion(hu, lungs, rng, share=share, label=side)
    if covid:
        volume_ml = draw_burden(rng) * lung_ml
        hu, lesions = add_opacities(hu, lungs, rng, volume_ml=volume_ml, spacing_mm=host.spacing_mm)
    elif rng.random() < FOCUS_SHARE:  # one focus: a nodule, a scar
        volume_ml = rng.uniform(0.3, 6)
        hu, _ = add_opacities(hu, lungs, rng, volume_ml=volume_ml, spacing_mm=host.spacing_mm, lesions=1)
    noise = ndimage.gaussian_filter(rng.standard_normal(hu.shape, dtype=np.float32), (0, 0.5, 0.5))
    hu = hu + rng.exponential(12) * noise
    burden = float(lesions.sum() / max((lungs > 0).sum(), 1))
    ct = CT(
        hu=np.clip(np.round(hu), AIR_HU, 3071).astype(np.int16),
        grid=Grid(hu.shape, host.spacing_mm),
        name=host.name,
        patient=Patient(age_years=age_years, age_source="header", sex=sex, sex_source="header"),
    )
    severe = covid and draw_severe(rng, burden, age_years, sex)
    return SyntheticPatient(ct, lesions, covid, severe, burden)


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


if __name__ == "__main__":
    main()
