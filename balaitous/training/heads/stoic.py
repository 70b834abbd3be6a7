"""The folder of the STOIC challenge: CTs in ``data/mha/<PatientID>.mha``, outcomes in ``metadata/reference.csv``."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from balaitous.cohort.items import Item, list_items
from balaitous.cohort.table import Row, row_names
from balaitous.ct.volume import CT, write_mha
from balaitous.errors import InputError, first_few
from balaitous.evaluation.tasks import Reference, read_reference
from balaitous.files import write_whole
from balaitous.models import MODELS
from balaitous.training.heads.features import FeatureStore
from balaitous.training.heads.fit import FeatureTable

log = logging.getLogger(__name__)

SCANS_FOLDER = "data/mha"
REFERENCE_FILE = "metadata/reference.csv"


@dataclass(frozen=True)
class StoicFolder:
    """Scans with known outcomes, in the order of the reference."""

    scans: Sequence[Item]
    reference: Reference


def read_stoic(folder: Path) -> StoicFolder:
    """The scans of a STOIC folder that have an outcome; others are named in the log.

    Raises
    ------
    InputError : there is no reference, or no scan that it knows
    """
    reference = read_reference(folder / REFERENCE_FILE)
    scans = {row_names(scan)["PatientID"]: scan for scan in list_items([folder / SCANS_FOLDER], MODELS["severity"])}
    both = [name for name in reference.patients if name in scans]
    if not both:
        raise InputError(
            f"{folder}: expected scans {SCANS_FOLDER}/<PatientID>.mha of the patients in {REFERENCE_FILE}, found "
            f"{first_few(list(scans))} of which it knows none. Do the names match?"
        )
    for what, missing in (
        ("scans without an outcome are left out", [name for name in scans if name not in set(both)]),
        ("patients without a scan are left out", [name for name in reference.patients if name not in scans]),
    ):
        if missing:
            log.warning("%s: %s", what, first_few(missing))
    return StoicFolder([scans[name] for name in both], reference)


def write_stoic(folder: Path, patients: int, patient: Callable[[int], tuple[CT, bool, bool]]) -> Path:
    """Write a STOIC folder of patients 0000, 0001, …, several at a time.

    Parameters
    ----------
    patient : makes the CT of a number, and says whether there is COVID-19 and a severe outcome; other processes call it
    """
    for each in (folder / SCANS_FOLDER, (folder / REFERENCE_FILE).parent):
        each.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor() as pool:
        lines = list(pool.map(partial(_write_patient, folder, patient), range(patients)))
    text = "\n".join(["PatientID,probCOVID,probSevere", *lines]) + "\n"
    write_whole(folder / REFERENCE_FILE, text.encode())
    return folder


def _write_patient(folder: Path, patient: Callable[[int], tuple[CT, bool, bool]], number: int) -> str:
    ct, covid, severe = patient(number)
    write_mha(folder / SCANS_FOLDER / f"{number:04d}.mha", ct)
    return f"{number:04d},{covid:d},{severe:d}"


def labelled(rows: Sequence[Row], store: FeatureStore, reference: Reference) -> FeatureTable:
    """Features and outcomes of the scans that could be predicted; why others could not is in the log.

    Raises
    ------
    InputError : none could
    """
    failed = [row for row in rows if row["status"] != "ok"]
    for row in failed:
        log.warning("left out: %s", row["error"])
    good = [row for row in rows if row["status"] == "ok"]
    if not good:
        raise InputError(
            f"expected features of {len(rows)} scans, found that all failed; the first: {rows[0]['error']}"
        )
    place = {name: i for i, name in enumerate(reference.patients)}
    index = [place[row["PatientID"]] for row in good]
    return FeatureTable(
        patients=[row["PatientID"] for row in good],
        features=store.features(good),
        age_years=np.array([row["age_years"] for row in good]),
        sex=np.array([row["sex"] for row in good]),
        covid=reference.covid[index],
        severe=reference.severe[index],
    )
