"""A table that grows by a row at a time, belongs to one run meanwhile, and goes on after an interruption."""

from __future__ import annotations

import io
import json
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from balaitous.cohort.table import NAMES, Columns, Row, check_table_path, csv_line, read_table, write_table
from balaitous.errors import first_few
from balaitous.locks import Lock

log = logging.getLogger(__name__)


class ItemTable:
    """A table on disk that grows by a row as soon as a scan is done, so that a kill loses at most the item in hand.

    A .csv grows itself. For .parquet and .json, which cannot, the rows lie in a hidden .csv beside it until `finish`.
    From its making to its `finish` it is this run's alone.

    Attributes
    ----------
    done : the rows of predicted items that were there already

    Parameters
    ----------
    path : of the table: .csv, .parquet or .json; a link stays one
    columns : as `columns_of` a model
    resume : go on with the rows that are there
    wait : for another run that writes it, instead of refusing

    Raises
    ------
    ValueError : if `path` does not end as a table does, if another file lies there, or a table with predicted items
        that is not to be resumed: hours of work are not overwritten; or if another run writes it
    """

    def __init__(self, path: Path, columns: Columns, resume: bool = False, wait: bool = False) -> None:
        check_table_path(path)
        self.path, self.columns = path, columns
        target = path.resolve()  # beside which another run, by whatever name, looks for the rows
        self.growing = path if path.suffix.lower() == ".csv" else target.with_name(f".{target.name}.rows.csv")
        self.file: io.FileIO | None = None
        self.lock = Lock(path, wait)
        try:
            self.done = self._done(resume)
        except BaseException:
            self.lock.release()
            raise

    def _done(self, resume: bool) -> list[Row]:
        # what grows holds all that the finished table holds
        found = next((each for each in (self.growing, self.path) if each.exists() and each.stat().st_size), None)
        rows = [row for row in read_table(found, self.columns) if row["status"] == "ok"] if found else []
        if rows and not resume:
            raise ValueError(
                f"{found} is there already, with {len(rows)} predicted scans. Add --resume to go on with it, or "
                "remove it to start anew."
            )
        done = [row for row in rows if is_done(row, self.columns)]
        if wrong := [str(row["PatientID"]) for row in rows if not is_done(row, self.columns)]:
            log.warning(
                "%s: %d rows are called ok and hold no whole answer, with probabilities in [0, 1]; these scans are "
                "predicted again: %s",
                found,
                len(wrong),
                first_few(wrong),
            )
        return done

    def begin(self, rows: Sequence[Row] = ()) -> None:
        """Start with these rows; every other one goes."""
        write_table(rows, self.growing, self.columns, like=self.path)
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
        """Write the table as it shall be, with all its rows in their order, and let others write it."""
        write_table(rows, self.path, self.columns)
        if self.file:
            self.file.close()
        if self.growing != self.path:
            self.growing.unlink(missing_ok=True)
        self.lock.release()


def is_done(row: Row, columns: Columns) -> bool:
    """Whether the row of an item says all that a predicted one does: what it was made of, and its probabilities.

    A row that somebody changed, or that another program wrote, may be called ok and hold no answer.
    """
    if any(value is not None and not is_a(value, columns[name]) for name, value in row.items()):
        return False
    names = list(columns)
    answers = names[len(NAMES) : names.index("status")]
    told = [row[name] for name in columns if name.startswith("probability_") and row[name] is not None]
    return (
        all(row[name] is not None for name in (*NAMES, "input_sha256", *answers))
        and all(0 <= probability <= 1 for probability in told)  # NaN is neither
        and is_json(row["quality_values"] or "{}")
    )


def is_a(value: Any, kind: type) -> bool:
    """Whether a value is of a column's type; a whole number may stand for any number."""
    return isinstance(value, (int, float) if kind is float else kind) and not isinstance(value, bool)


def is_json(text: str) -> bool:
    """Whether a text is JSON."""
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True
