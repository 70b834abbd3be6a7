"""One row an item: the table that `predict` writes, a row at a time, and goes on with after an interruption."""

from __future__ import annotations

import csv
import errno
import io
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from balaitous.checks import check_value, verdict
from balaitous.cohort.addresses import redacted
from balaitous.errors import explain
from balaitous.files import write_whole
from balaitous.models import imported

if TYPE_CHECKING:
    from balaitous.checks import Check
    from balaitous.cohort.items import Item
    from balaitous.models import Model
    from balaitous.provenance import Provenance

Row = dict[str, Any]
Columns = Mapping[str, type]

TYPES = {"str": str, "int": int, "float": float}
NAMES: Columns = {"PatientID": str, "path": str}
OUTCOME: Columns = {"status": str, "error": str}
COMMON: Columns = {
    "error_kind": str,
    "input_sha256": str,
    "quality": str,
    "quality_notes": str,
    "quality_values": str,
    "bundle": str,
    "bundle_sha256": str,
    "device": str,
    "device_name": str,
    "threads": int,
    "precision": str,
    "int8_sha256": str,
    "calibration": str,
    "version": str,
    "seconds": float,
    "warnings": str,
}
TABLE_ENDINGS = (".csv", ".parquet", ".json")
NOT_IN_A_LINE = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")  # line ends, and bytes of file names that are no UTF-8


class Prediction(Protocol):
    """What every model says of one item, whatever it is.

    Attributes
    ----------
    input_sha256 : of the item's files, as `content_sha256` has it
    checks : what was measured of it, and how that was judged
    provenance : versions, weights, device
    seconds : wall-clock time of each stage
    warnings : what was logged as a warning meanwhile
    """

    @property
    def input_sha256(self) -> str | None: ...
    @property
    def checks(self) -> tuple[Check, ...]: ...
    @property
    def provenance(self) -> Provenance: ...
    @property
    def seconds(self) -> Mapping[str, float]: ...
    @property
    def warnings(self) -> tuple[str, ...]: ...

    def row(self) -> Row:
        """Its probabilities, and the values of `Model.columns`."""
        ...

    def to_dict(self) -> dict[str, Any]:
        """All but the arrays, ready for JSON."""
        ...


def columns_of(model: Model) -> dict[str, type]:
    """The columns of a model's tables: names, its probabilities, whether it failed, its own, those of every model.

    Every row has all of them, None where there is nothing to tell, so that rows can be appended to a file one by one.
    Other people's scripts read the first ones.
    """
    probabilities = {f"probability_{output}": float for output in model.outputs}
    own = {name: TYPES[kind] for name, kind in model.columns.items()}
    return {**NAMES, **probabilities, **OUTCOME, **own, **COMMON}


def row_of(item: Item, outcome: Prediction | Exception, model: Model) -> Row:
    """The row of an item that was predicted, or that failed."""
    row = row_names(item) | quality_of(getattr(outcome, "checks", ()))
    if isinstance(outcome, Exception):
        row |= {"status": "failed", "error": redacted(explain(outcome)), "error_kind": type(outcome).__name__}
    else:
        made_by = vars(outcome.provenance)
        row |= {"status": "ok", "input_sha256": outcome.input_sha256, **outcome.row()}
        row |= {name: made_by[name] for name in COMMON if name in made_by}
        row |= {
            "seconds": round(sum(round(each, 3) for each in outcome.seconds.values()), 3),
            "warnings": "; ".join(outcome.warnings) or None,
        }
    return {name: escape_controls(row.get(name)) for name in columns_of(model)}


def row_names(item: Item) -> Row:
    """How an item is called in its row: ``PatientID`` and ``path``."""
    return {"PatientID": escape_controls(item.name), "path": escape_controls(redacted(item.path))}


def quality_of(checks: Iterable[Check]) -> Row:
    """What a row tells of an item's checks: worst status, what is not ok, and every value as JSON, {name: number}."""
    record = verdict(checks)
    values = {check["name"]: check["value"] for check in record["checks"]}
    del record["checks"]
    return record | {"quality_values": json.dumps(values) if values else None}


def checks_of(row: Row, model: Model) -> list[Check]:
    """The checks that a row tells of: the same value, the same check."""
    values = json.loads(row["quality_values"] or "{}")
    limits = imported(model.limits) if values else {}
    return [check_value(name, value, limits[name]) for name, value in values.items()]


def escape_controls(value: Any) -> Any:
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


def write_table(rows: Sequence[Row], path: Path, columns: Columns) -> None:
    """Write rows as .csv, .parquet or .json (by the ending), whole or not at all."""
    match path.suffix.lower():
        case ".csv":
            content = csv_line(columns) + b"".join(csv_line(row.values()) for row in rows)
        case ".json":
            content = (json.dumps(list(rows), indent=1) + "\n").encode()
        case ".parquet":
            content = parquet_of(rows, columns)
    write_whole(path, content)


def csv_line(values: Iterable[Any]) -> bytes:
    """A line of CSV; numbers as Python writes them, which reads back as the same number."""
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(values)
    return line.getvalue().encode()


def parquet_of(rows: Sequence[Row], columns: Columns) -> bytes:
    """Rows as a Parquet file; columns keep their types where nothing is in them, pandas reads counts as Int64."""
    import pandas as pd
    import pyarrow as pa
    import pyarrow.parquet as pq

    types = {str: pa.string(), int: pa.int64(), float: pa.float64()}
    counts = {name: "Int64" for name, kind in columns.items() if kind is int}
    frame = pd.DataFrame(list(rows), columns=list(columns), dtype=object).astype(counts)
    schema = pa.schema([(name, types[kind]) for name, kind in columns.items()])
    content = io.BytesIO()
    pq.write_table(pa.Table.from_pandas(frame, schema, preserve_index=False), content)
    return content.getvalue()


def read_table(path: Path, columns: Columns) -> list[Row]:
    """The rows of a table that `write_table` or `ItemTable` wrote; a last line of CSV that is cut short is left out.

    Raises
    ------
    ValueError : if it is no such table
    """
    try:
        match path.suffix.lower():
            case ".csv":
                rows = read_rows(path, columns)
            case ".json":
                rows = json.loads(path.read_bytes())
            case ".parquet":
                import pyarrow.parquet as pq

                rows = pq.read_table(path).to_pylist()
        if any(list(row) != list(columns) for row in rows):
            raise ValueError("other columns")
    except (ValueError, TypeError, csv.Error) as error:
        raise ValueError(
            f"{path} is there already: expected a table of this version of `predict` and of this model, found another "
            f"file ({error}). Choose another name, or remove it."
        ) from None
    return rows


def read_rows(path: Path, columns: Columns) -> list[Row]:
    """Rows with the types of the columns, None where a field is empty."""
    whole, _, _ = path.read_bytes().rpartition(b"\n")  # behind the last line end lies nothing, or half a row
    header, *records = csv.reader(whole.decode().split("\n"), strict=True)
    if header != list(columns):
        raise ValueError("other columns")
    return [
        {name: None if text == "" else kind(text) for (name, kind), text in zip(columns.items(), record, strict=True)}
        for record in records
    ]


class ItemTable:
    """A table on disk that grows by a row as soon as a scan is done, so that a kill loses at most the item in hand.

    A .csv grows itself. For .parquet and .json, which cannot, the rows lie in a hidden .csv beside it until `finish`.

    Attributes
    ----------
    done : the rows of predicted items that were there already

    Parameters
    ----------
    path : of the table: .csv, .parquet or .json
    columns : as `columns_of` a model
    resume : go on with the rows that are there

    Raises
    ------
    ValueError : if `path` does not end as a table does, if another file lies there, or a table with predicted items
        that is not to be resumed: hours of work are not overwritten
    """

    def __init__(self, path: Path, columns: Columns, resume: bool = False) -> None:
        check_table_path(path)
        self.path, self.columns = path, columns
        self.growing = path if path.suffix.lower() == ".csv" else path.with_name(f".{path.name}.rows.csv")
        self.file: io.FileIO | None = None
        # what grows holds all that the finished table holds
        found = next((each for each in (self.growing, path) if each.exists() and each.stat().st_size), None)
        self.done = [row for row in read_table(found, columns) if row["status"] == "ok"] if found else []
        if self.done and not resume:
            raise ValueError(
                f"{found} is there already, with {len(self.done)} predicted scans. Add --resume to go on with it, or "
                "remove it to start anew."
            )

    def begin(self, rows: Sequence[Row] = ()) -> None:
        """Start with these rows; every other one goes."""
        write_table(rows, self.growing, self.columns)
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
        write_table(rows, self.path, self.columns)
        if self.file:
            self.file.close()
        if self.growing != self.path:
            self.growing.unlink(missing_ok=True)
