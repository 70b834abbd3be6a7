"""One run over a cohort: what is done already, what is to do, what came of it."""

from __future__ import annotations

import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from balaitous.cohort.addresses import is_url
from balaitous.cohort.growing import ItemTable
from balaitous.cohort.items import Item
from balaitous.cohort.table import Row, row_names
from balaitous.errors import InputError
from balaitous.models import Model, imported
from balaitous.reading.fingerprint import content_sha256

SameRequest = Callable[[Path | str, Mapping[str, Any], Row], bool]  # path, what was given, row

HASHING_THREADS = 4  # files are often on a network, where several at a time come faster


class Run:
    """The rows of a run, in the order of its items, whatever the order they come in.

    Attributes
    ----------
    rows : of each item, None until it is there
    todo : items that have no row yet
    others : rows that were in the table and belong to none of the items; they stay, at its end
    """

    def __init__(
        self,
        items: Sequence[Item],
        table: ItemTable | None = None,
        made_by: Mapping[str, str | None] | None = None,
        same_request: SameRequest | None = None,
        strict: bool = False,
    ) -> None:
        """Find out what is done already.

        Parameters
        ----------
        table : where rows go as soon as they are there, and those of an earlier run come from
        made_by : bundle_sha256, precision and version of this run
        same_request : whether a row is what an item would get today; None: the same content is enough
        strict : items that a quality check warned of are to be refused, and do not count as done

        Raises
        ------
        ValueError : if rows of the table were made by something else
        """
        done = table.done if table else []
        check_made_by(done, made_by or {})
        self.table = table
        self.rows, self.others = done_rows(items, done, same_request, strict)
        self.todo = [item for item, row in zip(items, self.rows, strict=True) if row is None]
        self.skipped = len(items) - len(self.todo)
        self.places: dict[str, deque[int]] = defaultdict(deque)
        for place, (item, row) in enumerate(zip(items, self.rows, strict=True)):
            if row is None:
                self.places[row_names(item)["path"]].append(place)
        if table:
            table.begin([*filter(None, self.rows), *self.others])
        self.began = self.last = time.monotonic()
        self.added = 0

    def add(self, row: Row) -> None:
        """Keep a row, on disk if there is a table."""
        self.rows[self.places[row["path"]].popleft()] = row
        self.added += 1
        self.last = time.monotonic()
        if self.table:
            self.table.append(row)

    def finish(self) -> list[Row]:
        """All rows in their order, written to the table; rows that new ones took the place of are gone."""
        rows = [row for row in self.rows if row is not None]
        paths = {row["path"] for row in rows}
        self.others = [row for row in self.others if row["path"] not in paths]
        if self.table:
            self.table.finish([*rows, *self.others])
        return rows

    @property
    def scans_a_minute(self) -> float:
        """Of those that this run predicted or tried, up to the last."""
        return 60 * self.added / max(self.last - self.began, 1e-9)

    @property
    def seconds_left(self) -> float | None:
        """As long as the items that are left will take if they take as long as those so far."""
        return 60 * (len(self.todo) - self.added) / self.scans_a_minute if self.added else None

    def summary(self) -> dict[str, Any]:
        """Scans done, skipped (done before) and failed, by kind of error with an example; items a minute."""
        failed = [row for row in self.rows if row and row["status"] == "failed"]
        kinds = Counter(row["error_kind"] for row in failed)
        return {
            "scans": len(self.rows),
            "done": self.added - len(failed),
            "skipped": self.skipped,
            "failed": {
                kind: {"count": count, "example": next(row["error"] for row in failed if row["error_kind"] == kind)}
                for kind, count in kinds.most_common()
            },
            "not_tried": len(self.todo) - self.added,
            "scans_a_minute": round(self.scans_a_minute, 2),
        }


def same_request_of(model: Model) -> SameRequest | None:
    """What tells whether a row of the model is what an item would get today; None: nothing but content decides."""
    return imported(model.same_request) if model.same_request else None


def check_made_by(rows: Sequence[Row], made_by: Mapping[str, str | None]) -> None:
    """Raise ValueError if a row was made by other weights, in another precision or by another version than this run."""
    for key, expected in made_by.items():
        for found in {row[key] for row in rows} - {expected}:
            raise ValueError(
                f"--resume: expected a table made with {key} {expected} as this run has, found {found}. Use the same "
                "--weights, --precision and version of balaitous, or another name for --out."
            )


def done_rows(
    items: Sequence[Item], done: Sequence[Row], same_request: SameRequest | None, strict: bool = False
) -> tuple[list[Row | None], list[Row]]:
    """For each item the row that is its already, or None; and the rows that are left over.

    A row is an item's if it was made from the same content at the same request (age and sex, say); of several, the one
    of the same path. Otherwise the item was moved, and the row gets its new path. A row is one item's only.
    """
    rows: list[Row | None] = [None] * len(items)
    left: dict[str | None, list[Row]] = defaultdict(list)
    for row in done:
        left[row["path"] if is_url(row["path"]) else row["input_sha256"]].append(row)
    if not done:
        return rows, []
    with ThreadPoolExecutor(HASHING_THREADS) as pool:
        keys = list(pool.map(content_key, items))
    for moved in (False, True):  # first the items that lie where they lay
        for place, (item, key) in enumerate(zip(items, keys, strict=True)):
            names = row_names(item)
            fitting = [
                row
                for row in left[key]
                if (moved or row["path"] == names["path"])
                and not (strict and row["quality"] == "warn")
                and (same_request is None or same_request(item.path, item.given, row))
            ]
            if rows[place] is None and fitting:
                left[key].remove(fitting[0])
                rows[place] = fitting[0] | names
    return rows, [row for each in left.values() for row in each]


def content_key(item: Item) -> str | None:
    """What an item is known by: its content; an address by itself, because to hash it is to fetch it."""
    if is_url(item.path):
        return row_names(item)["path"]
    try:
        return content_sha256(item.path)
    except (OSError, InputError):  # predicting it will say what is wrong
        return None
