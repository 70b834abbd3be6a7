"""One row an item: the columns and rows of the table that `predict` writes, as .csv, .parquet and .json."""

from __future__ import annotations

import csv
import errno
import io
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from balaitous.checks import check_value, verdict
from balaitous.cohort.addresses import redacted
from balaitous.errors import explain, reason_of
from balaitous.files import write_whole
from balaitous.models import imported
from balaitous.text import as_cell, from_cell, printable

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
    "saved": str,  # the folder with what the model shows of the item
}
TABLE_ENDINGS = (".csv", ".parquet", ".json")


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
            "saved": str(item.folder) if item.folder else None,
        }
    return {name: printable(value) if isinstance(value := row.get(name), str) else value for name in columns_of(model)}


def row_names(item: Item) -> Row:
    """How an item is called in its row: ``PatientID`` and ``path``."""
    return {"PatientID": printable(item.name), "path": printable(redacted(item.path))}


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


def check_table_path(path: Path, option: str = "--out", endings: Sequence[str] = TABLE_ENDINGS) -> None:
    """Find out before hours of work rest on it if a file could not be written there.

    Raises
    ------
    ValueError : the name does not end as it should, there is no such folder, or something there that is no file
    PermissionError : the folder or the file cannot be written to
    """
    if path.suffix.lower() not in endings:
        raise ValueError(f"{option} must end in {', '.join(endings)}. Got {path.name!r} instead.")
    target = path.resolve()  # of a link
    if not target.parent.is_dir():
        raise ValueError(f"{option} must lie in an existing folder. {target.parent} does not exist.")
    if target.exists() and not target.is_file():
        raise ValueError(f"{option} must be a file. Got {path}, which is none.")
    if not all(os.access(each, os.W_OK) for each in (target.parent, target) if each.exists()):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), os.fspath(path))


def write_table(rows: Sequence[Row], path: Path, columns: Columns, like: Path | None = None) -> None:
    """Write rows as .csv, .parquet or .json (by the ending), whole or not at all; `like` as `write_whole` has it."""
    match path.suffix.lower():
        case ".csv":
            content = csv_line(columns) + b"".join(csv_line(row.values()) for row in rows)
        case ".json":
            content = (json.dumps(list(rows), indent=1) + "\n").encode()
        case ".parquet":
            content = parquet_of(rows, columns)
    write_whole(path, content, like)


def csv_line(values: Iterable[Any]) -> bytes:
    """A line of CSV: texts as `as_cell` does, numbers as Python writes them, which reads back as the same number."""
    line = io.StringIO()
    cells = (as_cell(value) if isinstance(value, str) else value for value in values)
    csv.writer(line, lineterminator="\n").writerow(cells)
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
                rows = read_parquet(path)
        if not isinstance(rows, list) or any(list(dict(row)) != list(columns) for row in rows):
            raise ValueError("other columns")
    except (ValueError, TypeError, RecursionError, csv.Error) as error:
        raise ValueError(
            f"{path} is there already: expected a table of this version of `predict` and of this model, found another "
            f"file ({error}). Choose another name, or remove it."
        ) from None
    return rows


def read_parquet(path: Path) -> list[Row]:
    """The rows of a Parquet file; ValueError if it is none."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.read_table(path).to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise ValueError(reason_of(error)) from None


def read_rows(path: Path, columns: Columns) -> list[Row]:
    """Rows with the types of the columns, None where a field is empty."""
    whole, _, _ = path.read_bytes().rpartition(b"\n")  # behind the last line end lies nothing, or half a row
    header, *records = csv.reader(whole.decode().split("\n"), strict=True)
    if header != list(columns):
        raise ValueError("other columns")
    return [
        {name: value_of(text, kind) for (name, kind), text in zip(columns.items(), record, strict=True)}
        for record in records
    ]


def value_of(cell: str, kind: type) -> Any:
    """What a cell of CSV holds: a value of its column's type, None if it is empty."""
    return None if cell == "" else kind(from_cell(cell))
