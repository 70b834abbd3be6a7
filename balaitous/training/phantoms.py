"""A cohort of phantoms in the layout of the STOIC folder, with outcomes that a model can find.

    python -m balaitous.training.phantoms --scans 200 --seed 0 --out FOLDER

Who has COVID-19 has opacities in the lung; how probable a severe outcome is follows the cohort of
`balaitous.training.synthetic`. Some of those without it have a small focus. Nothing here is a patient.
"""

from __future__ import annotations

import argparse
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np

from balaitous.ct.phantom import make_phantom
from balaitous.ct.volume import write_mha
from balaitous.training.stoic import REFERENCE_FILE, SCANS_FOLDER
from balaitous.training.synthetic import draw_burden, draw_severe

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
    for each in (folder / SCANS_FOLDER, (folder / REFERENCE_FILE).parent):
        each.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor() as pool:
        lines = list(pool.map(partial(write_patient, folder, seed, spacing_mm, size), range(scans)))
    (folder / REFERENCE_FILE).write_text("\n".join(["PatientID,probCOVID,probSevere", *lines]) + "\n", encoding="utf-8")
    return folder


def write_patient(
    folder: Path,
    seed: int,
    spacing_mm: tuple[float, float, float],
    size: tuple[int, int, int] | None,
    number: int,
) -> str:
    """Write one patient's CT; returns the line of the reference."""
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
    name = f"{number:04d}"
    write_mha(folder / SCANS_FOLDER / f"{name}.mha", phantom.ct)
    return f"{name},{covid:d},{severe:d}"


if __name__ == "__main__":
    main()
