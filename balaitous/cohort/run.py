"""One run over a cohort: what is done already, what is to do, what came of it."""

from __future__ import annotations

import os
import time
from collections import Counter, defaultdict, deque
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from balaitous.cohort.addresses import is_url
from balaitous.cohort.items import Scan
from balaitous.cohort.table import Row, ScanTable, row_names
from balaitous.ct.volume import scan_name
from balaitous.errors import InputError
from balaitous.reading.fingerprint import content_sha256
from balaitous.reading.patient import Patient, read_sidecar, resolve

HASHING_THREADS = 4  # files are often on a network, where several at a time come faster


class Run:
    """The rows of a run, in the order of its scans, whatever the order they come in.

    Attributes
    ----------
    rows : of each scan, None until it is there
    todo : scans that have no row yet
    others : rows that were in the table and belong to none of the scans; they stay, at its end
    """

    def __init__(
        self,
        scans: Sequence[Scan],
        table: ScanTable | None = None,
        made_by: Mapping[str, str | None] | None = None,
        series: str | None = None,
        strict: bool = False,
    ) -> None:
        """Find out what is done already.

        Parameters
        ----------
        table : where rows go as soon as they are there, and those of an earlier run come from
        made_by : bundle_sha256, precision and version of this run
        series : SeriesInstanceUID that was asked for
        strict : scans that a quality check warned of are to be refused, and do not count as done

        Raises
        ------
        ValueError : if rows of the table were made by something else
        """
        done = table.done if table else []
        check_made_by(done, made_by or {})
        self.table = table
        self.rows, self.others = done_rows(scans, done, series, strict)
        self.todo = [scan for scan, row in zip(scans, self.rows, strict=True) if row is None]
        self.skipped = len(scans) - len(self.todo)
        self.places: dict[str, deque[int]] = defaultdict(deque)
        for place, (scan, row) in enumerate(zip(scans, self.rows, strict=True)):
            if row is None:
                self.places[row_names(scan)["path"]].append(place)
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
        """As long as the scans that are left will take if they take as long as those so far."""
        return 60 * (len(self.todo) - self.added) / self.scans_a_minute if self.added else None

    def summary(self) -> dict[str, Any]:
        """Scans done, skipped (done before) and failed, by kind of error with an example; scans a minute."""
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


def check_made_by(rows: Sequence[Row], made_by: Mapping[str, str | None]) -> None:
    """Raise ValueError if a row was made by other weights, in another precision or by another version than this run."""
    for key, expected in made_by.items():
        for found in {row[key] for row in rows} - {expected}:
            raise ValueError(
                f"--resume: expected a table made with {key} {expected} as this run has, found {found}. Use the same "
                "--weights, --precision and version of balaitous, or another name for --out."
            )


def done_rows(
    scans: Sequence[Scan], done: Sequence[Row], series: str | None, strict: bool = False
) -> tuple[list[Row | None], list[Row]]:
    """For each scan the row that is its already, or None; and the rows that are left over.

    A row is a scan's if it was made from the same content, with the same age and sex; of several, the one of the same
    path. Otherwise the scan was moved, and the row gets its new path. A row is one scan's only.
    """
    rows: list[Row | None] = [None] * len(scans)
    left: dict[str | None, list[Row]] = defaultdict(list)
    for row in done:
        left[row["path"] if is_url(row["path"]) else row["input_sha256"]].append(row)
    if not done:
        return rows, []
    with ThreadPoolExecutor(HASHING_THREADS) as pool:
        keys = list(pool.map(content_key, scans))
    for moved in (False, True):  # first the scans that lie where they lay
        for place, (scan, key) in enumerate(zip(scans, keys, strict=True)):
            names = row_names(scan)
            fitting = [
                row
                for row in left[key]
                if (moved or row["path"] == names["path"]) and same_request(scan, series, strict, row)
            ]
            if rows[place] is None and fitting:
                left[key].remove(fitting[0])
                rows[place] = fitting[0] | names
    return rows, [row for each in left.values() for row in each]


def content_key(scan: Scan) -> str | None:
    """What a scan is known by: its content; an address by itself, because to hash it is to fetch it."""
    if is_url(scan.path):
        return row_names(scan)["path"]
    try:
        return content_sha256(scan.path)
    except (OSError, InputError):  # predicting it will say what is wrong
        return None


def same_request(scan: Scan, series: str | None, strict: bool, row: Row) -> bool:
    """Whether the row is what the scan would get today: series, age, sex and side-car are not part of its content."""
    if series not in (None, row["series_uid"]) or (strict and row["quality"] == "warn"):
        return False
    stored = ("header", "dicom", "sidecar") if is_url(scan.path) else ("header", "dicom")
    made_with = Patient(*(row[key] for key in ("age_years", "age_source", "sex", "sex_source")))
    age = (made_with.age_years, made_with.age_source) if made_with.age_source in stored else (None, None)
    sex = (made_with.sex, made_with.sex_source) if made_with.sex_source in stored else (None, None)
    try:
        return resolve(Patient(*age, *sex).filled_from(sidecar_of(scan)), scan.age, scan.sex) == made_with
    except InputError:  # a side-car that is none: predicting the scan will say so
        return False


def sidecar_of(scan: Scan) -> Patient:
    """What the side-car beside a local scan tells."""
    sidecar = Path(os.path.abspath(scan.path)).parent / f"{scan_name(scan.path)}.json"
    return read_sidecar(sidecar) if not is_url(scan.path) and sidecar.is_file() else Patient()
