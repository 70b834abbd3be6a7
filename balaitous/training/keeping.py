"""What training needs of many scans, kept on disk so that no scan is looked at twice."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any, Protocol

from balaitous.cohort.engines import default_workers
from balaitous.cohort.items import Scan
from balaitous.cohort.local import predict_scans
from balaitous.cohort.run import Run
from balaitous.cohort.table import Row, ScanTable
from balaitous.severity.pipeline import Balaitous, Prediction

TABLE_FILE = "scans.csv"


class Store(Protocol):
    """A folder with something of every scan, by the hash of the scan's content."""

    folder: Path

    def path(self, input_sha256: str) -> Path:
        """The file that is there once all of a scan is kept."""
        ...

    def save(self, prediction: Prediction) -> None:
        """Keep what is wanted of a scan, wholly or not at all."""
        ...


class Keeper(Balaitous):
    """A model that keeps something of every scan it predicts: what, its store says."""

    store: Store

    def predict(self, *arguments: Any, **options: Any) -> Prediction:
        """As `Balaitous.predict`."""
        prediction = super().predict(*arguments, **options)
        self.store.save(prediction)
        return prediction


def begin_keeping(model: Keeper, scans: Sequence[Scan], workers: int | None = None) -> tuple[Run, Generator[Row]]:
    """A run over scans of which something is wanted: those of which it is kept already are not looked at again.

    Parameters
    ----------
    workers : scans at a time; None: as many as suit the device

    Returns
    -------
    the run, and the rows to add to it, each as soon as its scan is done and what is wanted of it on disk
    """
    table = ScanTable(model.store.folder / TABLE_FILE, resume=True)
    table.done = [row for row in table.done if model.store.path(row["input_sha256"]).exists()]
    run = Run(scans, table)
    count = workers or default_workers(len(run.todo), model.device.type)
    return run, predict_scans(model, run.todo, workers=count)
