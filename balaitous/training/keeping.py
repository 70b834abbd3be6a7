"""What training needs of many scans, kept on disk so that no scan is looked at twice."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any, Protocol

from balaitous.cohort.engines import default_workers
from balaitous.cohort.growing import ItemTable
from balaitous.cohort.items import Item
from balaitous.cohort.local import Predictor, predict_items
from balaitous.cohort.run import Run, same_request_of
from balaitous.cohort.table import Row, columns_of

TABLE_FILE = "scans.csv"


class Store(Protocol):
    """A folder with something of every scan, by the hash of the scan's content."""

    folder: Path

    def path(self, input_sha256: str) -> Path:
        """The file that is there once all of a scan is kept."""
        ...

    def save(self, prediction: Any) -> None:
        """Keep what is wanted of a scan, wholly or not at all."""
        ...


def begin_keeping(
    model: Predictor, store: Store, items: Sequence[Item], workers: int | None = None
) -> tuple[Run, Generator[Row]]:
    """A run over scans of which something is wanted: those of which it is kept already are not looked at again.

    Parameters
    ----------
    workers : scans at a time; None: as many as suit the device

    Returns
    -------
    the run, and the rows to add to it, each as soon as its scan is done and what is wanted of it on disk
    """
    table = ItemTable(store.folder / TABLE_FILE, columns_of(model.MODEL), resume=True, wait=True)
    table.done = [row for row in table.done if store.path(row["input_sha256"]).exists()]
    run = Run(items, table, same_request=same_request_of(model.MODEL))
    count = workers or default_workers(len(run.todo), model.device.type)
    return run, predict_items(model, run.todo, count, keep=store.save)
