"""What was predicted, what is true, and the questions that are asked of both.

A patient is what a prediction is of: of models that read pictures, a picture.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from balaitous.errors import InputError, first_few, reason_of
from balaitous.models import DEFAULT, Model
from balaitous.reading.csv_files import bytes_of, parse_csv
from balaitous.severity.heads import OUTCOMES
from balaitous.text import FORMULA, printable

log = logging.getLogger(__name__)

PATIENT = "PatientID"
PATH = "path"
REFERENCE_COLUMNS = (PATIENT, "probCOVID", "probSevere")
FEWEST = 10  # with an outcome, of models without a challenge: a measure of fewer says nothing


class Question(Protocol):
    """What is asked of an output: what it is called, and among whom; None: among all."""

    @property
    def title(self) -> str: ...
    @property
    def among(self) -> str | None: ...


@dataclass(frozen=True)
class OfAll:
    """A question that is asked of all."""

    title: str
    among: None = None


def questions_of(model: Model) -> Mapping[str, Question]:
    """What each output of a model is asked: severity's as its challenge asks, the others' of all."""
    return OUTCOMES if model.name == DEFAULT else {name: OfAll(title) for name, title in model.outputs.items()}


@dataclass(frozen=True)
class Predictions:
    """What a model said.

    Attributes
    ----------
    name : what they are called in reports
    patients : names, in any order
    probabilities : (patients,) of each output; NaN where what was read is no number
    failed : why, by patient, where the model failed; these are not among `patients`
    bundles : names of the weight bundles that made them by their SHA-256, where the source tells
    calibrated : whether a calibration was applied to them, where the source tells
    """

    name: str
    patients: Sequence[str]
    probabilities: Mapping[str, NDArray[np.float64]]
    failed: Mapping[str, str] = field(default_factory=dict)
    bundles: Mapping[str, str] = field(default_factory=dict)
    calibrated: bool = False


@dataclass(frozen=True)
class Reference:
    """What is true.

    Attributes
    ----------
    patients : names, each once
    outcomes : (patients,) of each output that is asked: 1 true, 0 not, NaN not known, or not asked of this patient
    groups : (patients,) codes of what belongs together and is drawn together, such as the pictures of one patient;
        None: severity's, whose patients are one scan each
    sources : (patients,) where each is from; None where that is not told
    key : the column of predictions that has the names
    exclusive : whether exactly one of the outputs is true
    """

    patients: Sequence[str]
    outcomes: Mapping[str, NDArray[np.float64]]
    groups: NDArray[np.int64] | None = None
    sources: NDArray[np.str_] | None = None
    key: str = PATIENT
    exclusive: bool = False

    @property
    def unit(self) -> str:
        """What is counted."""
        return "patients" if self.groups is None else "items"

    def of(self, chosen: NDArray[np.bool_]) -> Reference:
        """That of some of them."""
        return replace(
            self,
            patients=[name for name, wanted in zip(self.patients, chosen, strict=True) if wanted],
            outcomes={output: known[chosen] for output, known in self.outcomes.items()},
            groups=None if self.groups is None else self.groups[chosen],
            sources=None if self.sources is None else self.sources[chosen],
        )


@dataclass(frozen=True)
class Task:
    """One question that is evaluated: who has the outcome, and the probability that was predicted.

    Attributes
    ----------
    title : for people
    outcome : (patients,) bool
    probability : (patients,) in [0, 1]
    groups : (patients,) as in `Reference`
    not_known : how many more were predicted, of whom the outcome is not known
    """

    title: str
    outcome: NDArray[np.bool_]
    probability: NDArray[np.float64]
    groups: NDArray[np.int64] | None = None
    not_known: int = 0

    @property
    def unit(self) -> str:
        """What is counted."""
        return "patients" if self.groups is None else "items"

    def of(self, chosen: NDArray[np.bool_]) -> Task:
        """The same question among some of them."""
        groups = None if self.groups is None else self.groups[chosen]
        return Task(self.title, self.outcome[chosen], self.probability[chosen], groups)

    @property
    def gap(self) -> str | None:
        """Why nothing can be measured: a class is absent, or hardly there. None if both are."""
        count, positives = len(self.outcome), int(self.outcome.sum())
        if self.groups is not None and positives < FEWEST:
            return f"{self.title}: too few: {positives} with it among {count} items, at least {FEWEST} are needed"
        if 0 < positives < count:
            return None
        return f"{self.title}: needs {self.unit} with and without the outcome, found {positives} with it among {count}"


def read_reference(path: Path) -> Reference:
    """Read severity's ``reference.csv``: ``PatientID,probCOVID,probSevere``, the last two 0 or 1.

    Only patients with COVID-19 need a ``probSevere``.

    Raises
    ------
    InputError : missing or another file, no or duplicate patients, or an outcome that is neither 0 nor 1
    """
    table = read_csv(path, REFERENCE_COLUMNS, name_unused=True)
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
    return Reference(patients, {"covid": np.array(covid, dtype=float), "severe": np.array(severe, dtype=float)})


def outcome_of(text: str) -> int | None:
    """0 or 1, also written as 1.0; None of anything else."""
    try:
        return {0.0: 0, 1.0: 1}.get(float(text))
    except ValueError:
        return None


def read_csv(
    path: Path,
    columns: Sequence[str],
    others: Sequence[str] = (),
    name_unused: bool = False,
    unnamed: Sequence[str] = (),
) -> pd.DataFrame:
    """A table of texts that has these columns, by the number of their line in the file.

    Parameters
    ----------
    columns : that it must have, in any case and with spaces around them
    others : that it may have besides
    name_unused : whether columns that are neither are named in a warning
    unnamed : what the first columns are called if they have no name

    Raises
    ------
    InputError : it is missing, no table as `parse_csv` has it, or lacks a column
    """
    try:
        content = bytes_of(path)
    except OSError as error:
        raise InputError(
            f"{path}: expected a CSV with {', '.join(columns) or 'its columns'}; found: {reason_of(error)}. Check the "
            "path."
        ) from None
    known = (*columns, *others)
    texts = parse_csv(content, str(path), known, unnamed=unnamed)
    table = pd.DataFrame(texts.rows, columns=list(dict.fromkeys(texts.columns)), index=texts.lines, dtype=object)
    with_columns(table, columns, path)
    if name_unused and (unused := texts.unused(known)):
        log.warning("%s: columns that are not used: %s (known: %s)", path, ", ".join(unused), ", ".join(known))
    return table


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
    rows: Iterable[tuple[Any, ...]],
    name: str,
    outputs: Iterable[str] = OUTCOMES,
    failed: Mapping[str, str] | None = None,
    **more: Any,
) -> Predictions:
    """Predictions from (patient, probability of each output), of whatever type."""
    rows, outputs = list(rows), tuple(outputs)
    numbers = np.array([[number_of(value) for value in values] for _, *values in rows]).reshape(-1, len(outputs))
    probabilities = dict(zip(outputs, numbers.T, strict=True))
    why = {patient_of(patient): reason for patient, reason in (failed or {}).items()}
    return Predictions(name, [patient_of(patient) for patient, *_ in rows], probabilities, why, **more)


def number_of(value: Any) -> float:
    """The number that a cell of a table or of a JSON file holds; NaN if it is none."""
    try:
        return float("nan") if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        return float("nan")


def repeated(names: Iterable[str]) -> list[str]:
    """Names that come more than once, in order."""
    return [name for name, count in Counter(names).items() if count > 1]
