"""Predictions from tables, as `predict` writes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from balaitous.errors import InputError, reason_of
from balaitous.evaluation.tasks import PATIENT, Predictions, predictions_of, read_csv, with_columns
from balaitous.reading import documents

PROBABILITIES = ("probability_covid", "probability_severe")
OTHER_COLUMNS = ("status", "error", "bundle", "bundle_sha256")  # as `predict` writes them
MAXIMUM_BYTES = 2**28  # of a JSON file: some 100,000 rows as `predict` writes them, with all their columns
TABLE_ENDINGS = (".csv", ".parquet", ".json")
EXPECTED = f"Expected a table (.csv, .parquet, .json) with {PATIENT}, {', '.join(PROBABILITIES)}"


def read_table(path: Path) -> Predictions:
    """Predictions of a table: .csv, .parquet or .json, by the ending.

    Raises
    ------
    InputError : it is missing, or no such table
    """
    match path.suffix.lower():
        case ".csv":
            return from_table(read_csv(path, (PATIENT, *PROBABILITIES), OTHER_COLUMNS), path)
        case ".parquet":
            try:
                return from_table(pd.read_parquet(path), path)
            except (OSError, ValueError) as error:
                raise InputError(f"{path}: not readable ({reason_of(error)}). {EXPECTED}.") from None
        case ".json":
            content = read_json(path)
            if isinstance(content, list) and all(isinstance(row, dict) for row in content):
                return from_table(pd.DataFrame(content, dtype=object), path)
    raise InputError(f"{path}: cannot be read as predictions. {EXPECTED}.")


def from_table(table: pd.DataFrame, path: Path) -> Predictions:
    """Predictions of a table; rows of failed scans are failures."""
    with_columns(table, (PATIENT, *PROBABILITIES), path)
    rows: list[tuple[str, Any, Any]] = []
    failed: dict[str, str] = {}
    bundles: dict[str, str] = {}
    for row in table.to_dict("records"):
        patient = str(row[PATIENT]).strip()
        if row.get("status") == "failed":
            failed[patient] = str(row.get("error"))
        else:
            rows.append((patient, *(row[name] for name in PROBABILITIES)))
            if row.get("bundle_sha256"):
                bundles[str(row["bundle_sha256"])] = str(row.get("bundle"))
    return predictions_of(rows, str(path), failed=failed, bundles=bundles)


def read_json(path: Path) -> Any:
    """The content of a JSON file.

    Raises
    ------
    InputError : it is missing, or no JSON as `parse_json` takes it
    """
    try:
        return documents.read_json(path, maximum_bytes=MAXIMUM_BYTES, finite=False)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: expected JSON, found: {reason_of(error)}. {EXPECTED}.") from None
