"""Predictions beside their reference: every patient once in both, or an error that names those who are not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from balaitous.errors import InputError, first_few, reason_of
from balaitous.text import FORMULA, printable

PATIENT = "PatientID"
REFERENCE_COLUMNS = (PATIENT, "probCOVID", "probSevere")


class MissingPredictionsError(InputError):
    """Patients of the reference have no prediction, or a failed one."""


class ExtraPredictionsError(InputError):
    """Predictions are of patients that the reference does not have."""


class DuplicatePredictionsError(InputError):
    """A patient has several predictions."""


class InvalidPredictionsError(InputError):
    """A prediction is not a number in [0, 1]."""


@dataclass(frozen=True)
class Predictions:
    """What a model said.

    Attributes
    ----------
    name : what they are called in reports
    patients : names, in any order
    covid, severe : (patients,) probabilities; NaN where what was read is no number
    failed : why, by patient, where the model failed; these are not among `patients`
    bundles : names of the weight bundles that made them by their SHA-256, where the source tells
    """

    name: str
    patients: Sequence[str]
    covid: NDArray[np.float64]
    severe: NDArray[np.float64]
    failed: Mapping[str, str] = field(default_factory=dict)
    bundles: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Reference:
    """What is true.

    Attributes
    ----------
    patients : names, each once
    covid : (patients,) whether the patient had COVID-19
    severe : (patients,) whether the outcome was severe; counts among patients with COVID-19 only
    """

    patients: Sequence[str]
    covid: NDArray[np.bool_]
    severe: NDArray[np.bool_]


@dataclass(frozen=True)
class Task:
    """One question that is evaluated: who has the outcome, and how probable it was said to be.

    Attributes
    ----------
    title : for people
    outcome : (patients,) bool
    probability : (patients,) in [0, 1]
    """

    title: str
    outcome: NDArray[np.bool_]
    probability: NDArray[np.float64]

    @property
    def gap(self) -> str | None:
        """Why nothing can be measured: a class is absent. None if both are there."""
        count, positives = len(self.outcome), int(self.outcome.sum())
        if 0 < positives < count:
            return None
        return f"{self.title}: needs patients with and without the outcome, found {positives} with it among {count}"


def read_reference(path: Path) -> Reference:
    """Read ``reference.csv``: ``PatientID,probCOVID,probSevere``, the last two 0 or 1.

    Only patients with COVID-19 need a ``probSevere``.

    Raises
    ------
    InputError : missing or another file, no or duplicate patients, or an outcome that is neither 0 nor 1
    """
    table = read_csv(path, REFERENCE_COLUMNS)
    patients = [patient_of(name) for name in table[PATIENT]]
    covid = [outcome_of(text) for text in table["probCOVID"]]
    severe = [outcome_of(text) if positive else 0 for text, positive in zip(table["probSevere"], covid, strict=True)]
    unclear = [name for name, *outcomes in zip(patients, covid, severe, strict=True) if None in outcomes]
    if unclear:
        raise InputError(
            f"{path}: expected 0 or 1 as probCOVID of every patient, and as probSevere of those with COVID-19; found "
            f"something else for {first_few(unclear)}. Correct these lines."
        )
    if twice := repeated(patients):
        raise InputError(f"{path}: expected every patient once, found twice or more: {first_few(twice)}. Remove lines.")
    if not patients:
        raise InputError(f"{path}: expected a line for every patient, found none. Is it the right file?")
    return Reference(patients, np.array(covid, dtype=bool), np.array(severe, dtype=bool))


def outcome_of(text: str) -> int | None:
    """0 or 1, also written as 1.0; None of anything else."""
    try:
        return {0.0: 0, 1.0: 1}.get(float(text))
    except ValueError:
        return None


def read_csv(path: Path, columns: Iterable[str]) -> pd.DataFrame:
    """A table of texts that has these columns.

    Raises
    ------
    InputError : it is missing, not a table, or lacks a column
    """
    try:
        table = pd.read_csv(
            path, dtype=str, keep_default_na=False, index_col=False, encoding="utf-8-sig", skipinitialspace=True
        )
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path}: expected a CSV with {', '.join(columns)}; found: {reason_of(error)}. Check the path."
        ) from None
    return with_columns(table, columns, path)


def with_columns(table: pd.DataFrame, columns: Iterable[str], path: Path) -> pd.DataFrame:
    """The table, if it has these columns; InputError if not."""
    if absent := [name for name in columns if name not in table.columns]:
        found = ", ".join(map(str, table.columns)) or "none"
        raise InputError(
            f"{path}: expected the columns {', '.join(columns)}; {', '.join(absent)} not found (found: {found})."
        )
    return table


def patient_of(cell: str) -> str:
    """What a patient is called, whoever wrote it: in one line, without spaces around it, and without the apostrophes
    before what a spreadsheet would calculate (`as_cell`).
    """
    name = printable(cell.strip())
    return name.lstrip("'").strip() if FORMULA.match(name) else name


def predictions_of(
    rows: Iterable[tuple[str, Any, Any]],
    name: str,
    failed: Mapping[str, str] | None = None,
    bundles: Mapping[str, str] | None = None,
) -> Predictions:
    """Predictions from (patient, probability of COVID-19, probability of a severe outcome), of whatever type."""
    rows = list(rows)
    pairs = np.array([[number_of(covid), number_of(severe)] for _, covid, severe in rows]).reshape(-1, 2)
    why = {patient_of(patient): reason for patient, reason in (failed or {}).items()}
    patients = [patient_of(patient) for patient, *_ in rows]
    return Predictions(name, patients, covid=pairs[:, 0], severe=pairs[:, 1], failed=why, bundles=bundles or {})


def number_of(value: Any) -> float:
    """The number that a cell of a table or of a JSON file holds; NaN if it is none."""
    try:
        return float("nan") if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        return float("nan")


def match(predictions: Predictions, reference: Reference) -> dict[str, Task]:
    """The two questions, patients in the order of the reference: "covid" on all, "severe" among those with COVID-19.

    Raises
    ------
    DuplicatePredictionsError, ExtraPredictionsError, MissingPredictionsError, InvalidPredictionsError
        If not every patient of the reference has exactly one prediction with two numbers in [0, 1].
    """
    expected, source = f"one prediction for each of {len(reference.patients)} patients", predictions.name
    if twice := repeated([*predictions.patients, *predictions.failed]):
        raise DuplicatePredictionsError(
            f"{source}: expected {expected}, found several for {first_few(twice)}. Keep one of each."
        )
    known = set(reference.patients)
    if extra := [name for name in (*predictions.patients, *predictions.failed) if name not in known]:
        raise ExtraPredictionsError(
            f"{source}: expected {expected}, found some of others: {first_few(extra)}. Remove them, or take the "
            "reference that has them."
        )
    index = {name: position for position, name in enumerate(predictions.patients)}
    if missing := [name for name in reference.patients if name not in index]:
        raise MissingPredictionsError(
            f"{source}: expected {expected}, found none for {first_few(missing)}{why_failed(predictions, missing)}. "
            "Predict these as well: an evaluation that leaves patients out cannot be compared."
        )
    order = [index[name] for name in reference.patients]
    covid, severe = predictions.covid[order], predictions.severe[order]
    valid = (covid >= 0) & (covid <= 1) & (severe >= 0) & (severe <= 1)  # NaN is neither
    if not valid.all():
        wrong = [name for name, good in zip(reference.patients, valid, strict=True) if not good]
        first = int(np.argmin(valid))
        raise InvalidPredictionsError(
            f"{source}: expected two finite numbers in [0, 1] for every patient, found others for {first_few(wrong)}, "
            f"such as {covid[first]:g} (COVID-19) and {severe[first]:g} (severe). Predict these again."
        )
    return {
        "covid": Task("COVID-19", reference.covid, covid),
        "severe": Task("Severe outcome", reference.severe[reference.covid], severe[reference.covid]),
    }


def why_failed(predictions: Predictions, missing: Sequence[str]) -> str:
    """Of the missing ones, how many failed, and why the first of them did."""
    failed = [name for name in missing if name in predictions.failed]
    if not failed:
        return ""
    return f" ({len(failed)} failed; {failed[0]}: {predictions.failed[failed[0]].rstrip('.')})"


def repeated(names: Iterable[str]) -> list[str]:
    """Names that come more than once, in the order of their first."""
    return [name for name, count in Counter(names).items() if count > 1]
