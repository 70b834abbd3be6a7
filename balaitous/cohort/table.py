"""One row a scan: the table that `predict` writes and `evaluate` reads."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from balaitous.cohort.scans import Scan
from balaitous.ct.volume import scan_name
from balaitous.errors import explain
from balaitous.severity.pipeline import Prediction

Row = dict[str, Any]

# Other people's scripts read these; what else a row holds follows them.
FIRST_COLUMNS = ("PatientID", "path", "probability_covid", "probability_severe", "status", "error")
TABLE_ENDINGS = (".csv", ".parquet", ".json")


def row_of(scan: Scan, outcome: Prediction | Exception) -> Row:
    """The row of a scan that was predicted, or that failed."""
    row: Row = {"PatientID": scan_name(scan.path), "path": str(scan.path)}
    if isinstance(outcome, Exception):
        return row | {"status": "failed", "error": explain(outcome)}
    facts = outcome.to_dict()
    spacing = dict(zip(("spacing_x_mm", "spacing_y_mm", "spacing_z_mm"), facts["spacing_mm"], strict=True))
    provenance = facts["provenance"]
    return {
        **row,
        "probability_covid": facts["probability_covid"],
        "probability_severe": facts["probability_severe"],
        "status": "ok",
        "error": None,
        "series_uid": facts["series_uid"],
        **spacing,
        **{key: facts[key] for key in ("slices", "slices_used", "lung_volume_litres")},
        **{key: facts[key] for key in ("age_years", "age_source", "sex", "sex_source")},
        **{f"probability_{key}": value for key, value in facts["probabilities"].items() if "_" in key},
        **{key: provenance[key] for key in ("bundle", "bundle_sha256", "device", "precision", "version")},
        **{f"seconds_{stage}": seconds for stage, seconds in facts["seconds"].items()},
        "seconds": round(sum(facts["seconds"].values()), 3),
    }


def check_table_path(path: Path) -> None:
    """Raise ValueError if `path` does not end as a table does, before hours of work rest on it."""
    if path.suffix.lower() not in TABLE_ENDINGS:
        raise ValueError(f"--out must end in {', '.join(TABLE_ENDINGS)}. Got {path.name!r} instead.")
    if not path.parent.is_dir():
        raise ValueError(f"--out must lie in an existing folder. {path.parent} does not exist.")


def write_table(rows: Sequence[Row], path: Path) -> None:
    """Write rows as .csv, .parquet or .json (by the ending), whole or not at all."""
    frame = pd.DataFrame(list(rows))
    frame = frame.reindex(columns=[*FIRST_COLUMNS, *(name for name in frame.columns if name not in FIRST_COLUMNS)])
    counts = {name: "Int64" for name in ("slices", "slices_used") if name in frame}
    frame = frame.astype(counts)  # a failed row has none, which would turn whole numbers into 58.0
    partial = path.with_name(f".{path.name}.partial")
    match path.suffix.lower():
        case ".csv":
            frame.to_csv(partial, index=False)
        case ".parquet":
            frame.to_parquet(partial, index=False)
        case ".json":
            frame.to_json(partial, orient="records", indent=1, double_precision=15)
    partial.replace(path)
