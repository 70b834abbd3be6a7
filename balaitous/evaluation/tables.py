"""Tables of predictions, as `predict` and trainings write them, and of what is true."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from balaitous.errors import InputError, first_few, reason_of
from balaitous.evaluation.tasks import (
    PATH,
    PATIENT,
    Predictions,
    Reference,
    outcome_of,
    patient_of,
    predictions_of,
    read_csv,
    read_reference,
    repeated,
    with_columns,
)
from balaitous.models import DEFAULT, Model
from balaitous.reading import documents
from balaitous.severity.heads import OUTCOMES

log = logging.getLogger(__name__)

PROBABILITIES = ("probability_covid", "probability_severe")
OTHER_COLUMNS = ("status", "error", "bundle", "bundle_sha256", "calibration")  # as `predict` writes them
MAXIMUM_BYTES = 2**28  # of a JSON file: some 100,000 rows as `predict` writes them, with all their columns
TABLE_ENDINGS = (".csv", ".parquet", ".json")
LABEL, GROUP, SOURCE = "label", "patient", "source"
NO_SOURCE = "not stated"


def expected(columns: Iterable[str]) -> str:
    """What a message says of tables with these columns."""
    return f"Expected a table (.csv, .parquet, .json) with {', '.join(columns)}"


EXPECTED = expected((PATIENT, *PROBABILITIES))


def read_table(path: Path, outputs: Iterable[str] = OUTCOMES, key: str = PATIENT) -> Predictions:
    """Predictions of a table: .csv, .parquet or .json, by the ending.

    Parameters
    ----------
    outputs : of the model, each with a column ``probability_<output>``
    key : the column with the names

    Raises
    ------
    InputError : it is missing, or no such table
    """
    columns = (key, *(f"probability_{output}" for output in outputs))
    match path.suffix.lower():
        case ".csv":
            return from_table(read_csv(path, columns, OTHER_COLUMNS), path, columns)
        case ".parquet":
            try:
                return from_table(pd.read_parquet(path), path, columns)
            except (OSError, ValueError) as error:
                raise InputError(f"{path}: not readable ({reason_of(error)}). {expected(columns)}.") from None
        case ".json":
            content = read_json(path, expected(columns))
            if isinstance(content, list) and all(isinstance(row, dict) for row in content):
                return from_table(pd.DataFrame(content, dtype=object), path, columns)
    raise InputError(f"{path}: cannot be read as predictions. {expected(columns)}.")


def from_table(table: pd.DataFrame, path: Path, columns: tuple[str, ...]) -> Predictions:
    """Predictions of a table with these columns, names first; rows of failed scans are failures."""
    with_columns(table, columns, path)
    key, *probabilities = columns
    rows: list[tuple[Any, ...]] = []
    failed: dict[str, str] = {}
    bundles: dict[str, str] = {}
    calibrated = False
    for row in table.to_dict("records"):
        patient = str(row[key]).strip()
        if row.get("status") == "failed":
            failed[patient] = str(row.get("error"))
        else:
            rows.append((patient, *(row[name] for name in probabilities)))
            calibrated |= isinstance(row.get("calibration"), str) and row["calibration"] != ""
            if row.get("bundle_sha256"):
                bundles[str(row["bundle_sha256"])] = str(row.get("bundle"))
    outputs = [name.removeprefix("probability_") for name in probabilities]
    return predictions_of(rows, str(path), outputs, failed=failed, bundles=bundles, calibrated=calibrated)


def read_json(path: Path, instead: str = EXPECTED) -> Any:
    """The content of a JSON file.

    Parameters
    ----------
    instead : what a message says is expected there

    Raises
    ------
    InputError : it is missing, or no JSON as `parse_json` takes it
    """
    try:
        return documents.read_json(path, maximum_bytes=MAXIMUM_BYTES, finite=False)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: expected JSON, found: {reason_of(error)}. {instead}.") from None


def read_reference_of(path: Path, model: Model) -> Reference:
    """The reference of a model; severity's is that of its challenge, as `read_reference` has it.

    The others' has ``PatientID``, or ``path``, each the end of a predicted one. What is true stands in columns that are
    called as the outputs, 1 or 0, empty where it is not known; or, of outputs that exclude each other, in ``label``,
    the name or the title of the one that is true. ``patient`` says what is drawn together: pictures of one patient, or
    of one preprint. ``source`` says where each is from.

    Raises
    ------
    InputError : missing or another file, no or duplicate names, no or both kinds of outcomes, or one that is neither
    """
    if model.name == DEFAULT:
        return read_reference(path)
    table = read_csv(path, (), (PATIENT, PATH, LABEL, GROUP, SOURCE, *model.outputs), name_unused=True)
    key = PATIENT if PATIENT in table.columns else PATH
    outputs = [output for output in model.outputs if output in table.columns]
    wanted = f"{PATIENT} or {PATH}, and {', '.join(model.outputs)} (1, 0 or empty) or {LABEL}"
    found = ", ".join(map(str, table.columns)) or "none"
    if key not in table.columns or bool(outputs) == (LABEL in table.columns):
        raise InputError(f"{path}: expected the columns {wanted}, optionally {GROUP} and {SOURCE}; found: {found}.")
    names = [patient_of(name) for name in table[key]]
    if not names or "" in names:
        raise InputError(f"{path}: expected a line with a {key} for every item, found one without, or no lines.")
    if twice := repeated(names):
        other = f", or name them by {PATH}" if key == PATIENT else ""
        raise InputError(
            f"{path}: expected every {key} once, found twice or more: {first_few(twice)}. Remove lines{other}."
        )
    if outputs and (absent := [output for output in model.outputs if output not in outputs]):
        log.warning("%s: outputs without a column are not evaluated: %s", path, ", ".join(absent))
    outcomes = {output: column_of(path, names, table[output], output) for output in outputs}
    return Reference(
        names,
        outcomes or classes_in(path, names, table[LABEL], model),
        groups_of(table[GROUP] if GROUP in table.columns else [""] * len(names)),
        np.array([text.strip() or NO_SOURCE for text in table[SOURCE]]) if SOURCE in table.columns else None,
        key,
        exclusive=not outcomes,
    )


def column_of(path: Path, names: list[str], texts: pd.Series, output: str) -> NDArray[np.float64]:
    """(items,) 1, 0, or NaN where a cell is empty."""
    known = [np.nan if not text.strip() else outcome_of(text) for text in texts]
    if unclear := [name for name, each in zip(names, known, strict=True) if each is None]:
        raise InputError(
            f"{path}: expected 1, 0 or nothing as {output}, found something else for {first_few(unclear)}. Correct "
            "these lines."
        )
    return np.array(known, dtype=float)


def classes_in(path: Path, names: list[str], texts: pd.Series, model: Model) -> dict[str, NDArray[np.float64]]:
    """(items,) of each output: 1 of the true one, 0 of the others, NaN where the label is empty."""
    outputs = {output: output for output in model.outputs}
    called = {title.casefold(): output for output, title in model.outputs.items()} | outputs
    labels = [text.strip().casefold() for text in texts]
    if unclear := [name for name, each in zip(names, labels, strict=True) if each and each not in called]:
        raise InputError(
            f"{path}: expected one of {', '.join(outputs)} as {LABEL}, or nothing; found something else for "
            f"{first_few(unclear)}. Correct these lines."
        )
    true = [called.get(label) for label in labels]
    return {
        output: np.array([np.nan if each is None else each == output for each in true], float) for output in outputs
    }


def groups_of(texts: pd.Series | list[str]) -> NDArray[np.int64]:
    """(items,) codes: the same of the same text, one of its own where there is none."""
    names = [(text.strip(), 0) if text.strip() else ("", number) for number, text in enumerate(texts)]
    codes = {name: code for code, name in enumerate(dict.fromkeys(names))}
    return np.array([codes[name] for name in names], dtype=np.int64)
