"""A cohort of phantoms in the layout of the STOIC folder, with outcomes that a model can find.

    python -m balaitous.training.phantoms --scans 200 --seed 0 --out FOLDER

Who has COVID-19 has opacities in the lung; how probable a severe outcome is follows the cohort of
`balaitous.training.cohorts`. Some of those without it have a small focus. Nothing here is a patient.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

import numpy as np

from balaitous.ct.volume import CT
from balaitous.synthetic.phantom import make_phantom
from balaitous.training.cohorts import draw_burden, draw_severe
from balaitous.training.heads.stoic import write_stoic

SPACING_MM = (2.5, 2.5, 5.0)
LUNG_ML = 4000.0  # about what phantoms have
COVID_SHARE = 0.6  # as among STOIC's patients
FOCUS_SHARE = 0.3  # of those without COVID-19


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scans", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--spacing", type=float, nargs=3, default=SPACING_MM)
    options = parser.parse_args()
    make_stoic_folder(options.out, options.scans, options.seed, tuple(options.spacing))


def make_stoic_folder(
    folder: Path,
    scans: int,
    seed: int = 0,
    spacing_mm: tuple[float, float, float] = SPACING_MM,
    size: tuple[int, int, int] | None = None,
) -> Path:
    """Write ``data/mha/<PatientID>.mha`` and ``metadata/reference.csv``; the same arguments give the same files.

    Parameters
    ----------
    spacing_mm, size : as `make_phantom`
    """
    return write_stoic(folder, scans, partial(make_patient, seed, spacing_mm, size))


def make_patient(
    seed: int,
    spacing_mm: tuple[float, float, float],
    size: tuple[int, int, int] | None,
    number: int,
) -> tuple[CT, bool, bool]:
    """One patient's CT, and whether there is COVID-19 and a severe outcome."""
    rng = np.random.default_rng((seed, number))
    age_years, sex = float(rng.integers(25, 96)), float(rng.integers(2))
    covid = bool(rng.random() < COVID_SHARE)
    burden = draw_burden(rng) if covid else 0.0
    severe = covid and draw_severe(rng, burden, age_years, sex)
    focus_ml = float(rng.uniform(0.3, 6)) if not covid and rng.random() < FOCUS_SHARE else 0.0
    phantom = make_phantom(
        int(rng.integers(2**31)),
        spacing_mm=spacing_mm,
        size=size,
        lesion_ml=burden * LUNG_ML + focus_ml,
        age_years=age_years,
        sex=sex,
    )
    return phantom.ct, covid, severe


if __name__ == "__main__":
    main()
