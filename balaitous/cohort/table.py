"""One row a scan: the table that `predict` writes, a row at a time, and goes on with after an interruption."""

from __future__ import annotations

import csv
import errno
import io
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from balaitous.checks import check_value, verdict
from balaitous.cohort.addresses import shown
from balaitous.ct.quality_limits import LIMITS
from balaitous.ct.volume import scan_name
from balaitous.errors import BalaitousError, explain
from balaitous.files import write_whole

if TYPE_CHECKING:
    from balaitous.checks import Check
    from balaitous.cohort.items import Scan
    from balaitous.severity.pipeline import Prediction

Row = dict[str, Any]

# Every row has all of them, None where there is nothing to tell, so that rows can be appended to a file one by one.
# Other people's scripts read the first six.
COLUMNS: Mapping[str, type] = {
    "PatientID": str,
    "path": str,
    "probability_covid": float,
    "probability_severe": float,
    "status": str,
    "error": str,
    "error_kind": str,
    "input_sha256": str,
    "series_uid": str,
    "spacing_x_mm": float,
    "spacing_y_mm": float,
    "spacing_z_mm": float,
    "slices": int,
    "slices_used": int,
    "lung_volume_litres": float,
    "quality": str,
    "quality_notes": str,
    "quality_values": str,
    "age_years": float,
    "age_source": str,
    "sex": float,
    "sex_source": str,
    "probability_full_covid": float,
    "probability_lung_covid": float,
    "probability_full_severe": float,
    "probability_lung_severe": float,
    "bundle": str,
    "bundle_sha256": str,
    "device": str,
    "device_name": str,
    "threads": int,
    "precision": str,
    "int8_sha256": str,
    "calibration": str,
    "version": str,
    "seconds_read": float,
    "seconds_resample": float,
    "seconds_body_crops": float,
    "seconds_lung_unet": float,
    "seconds_lung_view": float,
    "seconds_features_full": float,
    "seconds_features_lung": float,
    "seconds": float,
    "warnings": str,
}
FIRST_COLUMNS = tuple(COLUMNS)[:6]
TABLE_ENDINGS = (".csv", ".parquet", ".json")
NOT_IN_A_LINE = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")  # line ends, and bytes of file names that are no UTF-8


def row_of(scan: Scan, outcome: Prediction | Exception) -> Row:
    """The row of a scan that was predicted, or that failed."""
    row = row_names(scan)
    if not isinstance(outcome, Exception):
        pair = (outcome.probability_covid, outcome.probability_severe)
        if not all(0 <= each <= 1 for each in pair):  # NaN is not either
            outcome = BalaitousError(f"expected probabilities in [0, 1], found {pair}: try precision fp32")
    row |= quality_of(getattr(outcome, "checks", ()))
    if isinstance(outcome, Exception):
        row |= {"status": "failed", "error": shown(explain(outcome)), "error_kind": type(outcome).__name__}
    else:
        facts = outcome.to_dict()
        row |= facts | facts["provenance"] | row | {"status": "ok"}
        row |= dict(zip(("spacing_x_mm", "spacing_y_mm", "spacing_z_mm"), facts["spacing_mm"], strict=True))
        row |= {f"probability_{key}": value for key, value in facts["probabilities"].items()}
        row |= {f"seconds_{stage}": seconds for stage, seconds in facts["seconds"].items()}
        row["warnings"] = "; ".join(facts["warnings"]) or None
        row["seconds"] = round(sum(facts["seconds"].values()), 3)
    return {name: in_a_line(row.get(name)) for name in COLUMNS}


def row_names(scan: Scan) -> Row:
    """How a scan is called in its row: ``PatientID`` and ``path``."""
    path = shown(scan.path)
    return {"PatientID": in_a_line(scan_name(path)), "path": in_a_line(path)}


def quality_of(checks: Iterable[Check]) -> Row:
    """What a row tells of a scan's checks: worst status, what is not ok, and every value as JSON, {name: number}."""
    record = verdict(checks)
    values = {check["name"]: check["value"] for check in record["checks"]}
    return record | {"quality_values": json.dumps(values) if values else None}


def checks_of(row: Row) -> list[Check]:
    """The checks that a row tells of: the same value, the same check."""
    return [check_value(name, value, LIMITS[name]) for name, value in json.loads(row["quality_values"] or "{}").items()]


def in_a_line(value: Any) -> Any:
    """A text with what a line of a table cannot hold written as escapes; anything else as it is."""
    if not isinstance(value, str):
        return value
    return NOT_IN_A_LINE.sub(lambda match: match[0].encode("unicode_escape").decode(), value)


def check_table_path(path: Path, option: str = "--out", endings: Sequence[str] = TABLE_ENDINGS) -> None:
    """Find out before hours of work rest on it if a file could not be written there.

    Raises
    ------
    ValueError : the name does not end as it should, or there is no such folder
    PermissionError : the folder cannot be written to
    """
    if path.suffix.lower() not in endings:
        raise ValueError(f"{option} must end in {', '.join(endings)}. Got {path.name!r} instead.")
    if not path.parent.is_dir():
        raise ValueError(f"{option} must lie in an existing folder. {path.parent} does not exist.")
    if not os.access(path.parent, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), os.fspath(path))


def write_table(rows: Sequence[Row], path: Path) -> None:
    """Write rows as .csv, .parquet or .json (by the ending), whole or not at all."""
    match path.suffix.lower():
        case ".csv":
            content = csv_line(COLUMNS) + b"".join(csv_line(row.values()) for row in rows)
        case ".json":
            content = (json.dumps(list(rows), indent=1) + "\n").encode()
        case ".parquet":
            content = parquet_of(rows)
    write_whole(path, content)


def csv_line(values: Iterable[Any]) -> bytes:
    """A line of CSV; numbers as Python writes them, which reads back as the same number."""
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(values)
    return line.getvalue().encode()


def parquet_of(rows: Sequence[Row]) -> bytes:
    """Rows as a Parquet file; columns keep their types where nothing is in them, pandas reads counts as Int64."""
    import pandas as pd
    import pyarrow as pa
    import pyarrow.parquet as pq

    types = {str: pa.string(), int: pa.int64(), float: pa.float64()}
    counts = {name: "Int64" for name, kind in COLUMNS.items() if kind is int}
    frame = pd.DataFrame(list(rows), columns=list(COLUMNS), dtype=object).astype(counts)
    schema = pa.schema([(name, types[kind]) for name, kind in COLUMNS.items()])
    content = io.BytesIO()
    pq.write_table(pa.Table.from_pandas(frame, schema, preserve_index=False), content)
    return content.getvalue()


def read_table(path: Path) -> list[Row]:
    """The rows of a table that `write_table` or `ScanTable` wrote; a last line of CSV that is cut short is left out.

    Raises
    ------
    ValueError : if it is no such table
    """
    try:
        match path.suffix.lower():
            case ".csv":
                rows = read_csv(path)
            case ".json":
                rows = json.loads(path.read_bytes())
            case ".parquet":
                import pyarrow.parquet as pq

                rows = pq.read_table(path).to_pylist()
        if any(list(row) != list(COLUMNS) for row in rows):
            raise ValueError("other columns")
    except (ValueError, TypeError, csv.Error) as error:
        raise ValueError(
            f"{path} is there already: expected a table of this version of `predict`, found another file "
            f"({error}). Choose another name, or remove it."
        ) from None
    return rows


def read_csv(path: Path) -> list[Row]:
    """Rows with the types of `COLUMNS`, None where a field is empty."""
    whole, _, _ = path.read_bytes().rpartition(b"\n")  # behind the last line end lies nothing, or half a row
    header, *records = csv.reader(whole.decode().split("\n"), strict=True)
    if header != list(COLUMNS):
        raise ValueError("other columns")
    return [
        {name: None if text == "" else kind(text) for (name, kind), text in zip(COLUMNS.items(), record, strict=True)}
        for record in records
    ]


class ScanTable:
    """A table on disk that grows by a row as soon as a scan is done, so that a kill loses at most the scan in hand.

    A .csv grows itself. For .parquet and .json, which cannot, the rows lie in a hidden .csv beside it until `finish`.

    Attributes
    ----------
    done : the rows of predicted scans that were there already

    Parameters
    ----------
    path : of the table: .csv, .parquet or .json
    resume : go on with the rows that are there

    Raises
    ------
    ValueError : if `path` does not end as a table does, if another file lies there, or a table with predicted scans
        that is not to be resumed: hours of work are not overwritten
    """

    def __init__(self, path: Path, resume: bool = False) -> None:
        check_table_path(path)
        self.path = path
        self.growing = path if path.suffix.lower() == ".csv" else path.with_name(f".{path.name}.rows.csv")
        self.file: io.FileIO | None = None
        # what grows holds all that the finished table holds
        found = next((each for each in (self.growing, path) if each.exists() and each.stat().st_size), None)
        self.done = [row for row in read_table(found) if row["status"] == "ok"] if found else []
        if self.done and not resume:
            raise ValueError(
                f"{found} is there already, with {len(self.done)} predicted scans. Add --resume to go on with it, or "
                "remove it to start anew."
            )

    def begin(self, rows: Sequence[Row] = ()) -> None:
        """Start with these rows; every other one goes."""
        write_table(rows, self.growing)
        self.file = self.growing.open("ab", buffering=0)

    def append(self, row: Row) -> None:
        """Add a row; once this returns, nothing but a broken disk loses it.

        Raises
        ------
        OSError : the disk is full, say; the table then ends with the row before
        """
        assert self.file is not None
        line, end = csv_line(row.values()), self.file.tell()
        try:
            while line:  # a disk that fills up takes a part of it first
                line = line[self.file.write(line) :]
            os.fsync(self.file.fileno())
        except OSError as error:
            self.file.truncate(end)
            raise OSError(error.errno, error.strerror, os.fspath(self.growing)) from error

    def finish(self, rows: Sequence[Row]) -> None:
        """Write the table as it shall be, with all its rows in their order."""
        write_table(rows, self.path)
        if self.file:
            self.file.close()
        if self.growing != self.path:
            self.growing.unlink(missing_ok=True)
