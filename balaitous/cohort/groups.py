"""A second table beside the first: what all rows of a patient say together, or of whatever else a list names."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

from balaitous.cohort.items import Item
from balaitous.cohort.table import Columns, Row, read_table, write_table
from balaitous.errors import first_few
from balaitous.models import Model
from balaitous.text import printable

log = logging.getLogger(__name__)

FAILED = "failed"


def group_table(table: Path, model: Model) -> Path:
    """Where the second table lies: ``t_patients.csv`` beside ``t.csv``."""
    return table.with_name(f"{table.stem}_{model.grouped_by}s{table.suffix}")


def group_columns(model: Model) -> dict[str, type]:
    """Its columns: whose row it is, the mean and the largest of each probability, how many of what, how many failed."""
    names = [f"probability_{output}" for output in model.outputs]
    return {
        model.grouped_by: str,
        **dict.fromkeys(names, float),
        **dict.fromkeys((f"{name}_max" for name in names), float),
        **dict.fromkeys(model.counted, int),
        FAILED: int,
    }


def check_group_table(path: Path, columns: Columns, resume: bool) -> None:
    """Raise ValueError if another file lies there, or a table that is not to be resumed."""
    if not (path.exists() and path.stat().st_size):
        return
    if read_table(path, columns) and not resume:
        raise ValueError(f"{path} is there already, of an earlier run. Add --resume to go on with it, or remove it.")


def write_group_table(path: Path, items: Sequence[Item], rows: Sequence[Row], model: Model) -> int:
    """Write the second table; what is not in its means is told.

    Parameters
    ----------
    items, rows : of each other

    Returns
    -------
    how many rows it has
    """
    found = group_rows(items, rows, model)
    if alone := sum(not item.group for item in items):
        log.warning("%s: items without a %s, which are in none of its rows: %d", path, model.grouped_by, alone)
    if failed := [str(row[model.grouped_by]) for row in found if row[FAILED]]:
        count = sum(row[FAILED] for row in found)
        log.warning("%s: failed items, which are not in the means: %d, of %s", path, count, first_few(failed))
    write_table(found, path, group_columns(model))
    return len(found)


def group_rows(items: Sequence[Item], rows: Sequence[Row], model: Model) -> list[Row]:
    """A row for each group, in the order in which the items name them; items without one are left out.

    Of a row that stands for several (a CT for its slices) the probabilities count as often: the mean is over all of
    them. The largest is known where the row tells it, or stands for one; where it does not, there is none.

    Parameters
    ----------
    items, rows : of each other
    """
    groups: dict[str, list[Row]] = {}
    for item, row in zip(items, rows, strict=True):
        if item.group:
            groups.setdefault(printable(item.group), []).append(row)
    return [group_row(name, members, model) for name, members in groups.items()]


def group_row(name: str, members: Sequence[Row], model: Model) -> Row:
    """The row of one group."""
    done = [row for row in members if row["status"] == "ok"]
    (column,) = model.counted.values() or ("",)
    counts = [row[column] if column else 1 for row in done]
    total = sum(counts)
    row: Row = {model.grouped_by: name}
    names = [f"probability_{output}" for output in model.outputs]
    for each in names:
        row[each] = sum(own[each] * many for own, many in zip(done, counts, strict=True)) / total if total else None
    for each in names:
        largest = list(largest_of(each, done, counts))
        row[f"{each}_max"] = None if None in largest else max(largest, default=None)  # type: ignore[type-var]
    return row | dict.fromkeys(model.counted, total) | {FAILED: len(members) - len(done)}


def largest_of(name: str, rows: Sequence[Row], counts: Sequence[int]) -> Iterator[float | None]:
    """Of each row the largest of the probabilities that it stands for, None where it does not tell."""
    for row, count in zip(rows, counts, strict=True):
        told = row.get(f"{name}_max")
        yield row[name] if told is None and count == 1 else told
