"""What training needs of many scans, kept on disk so that no scan is looked at twice; here: their features."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

import balaitous
from balaitous.cohort.engines import default_workers
from balaitous.cohort.local import predict_scans
from balaitous.cohort.run import Run
from balaitous.cohort.scans import Scan
from balaitous.cohort.table import Row, ScanTable
from balaitous.files import replacing
from balaitous.severity.heads import VIEWS
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


class FeatureStore:
    """Features by content: ``<folder>/<bundle>-<precision>-<version>/<hash of the scan>.npz``, each written at once."""

    def __init__(self, folder: Path, model: Balaitous) -> None:
        self.folder = folder / f"{model.bundle.sha256[:16]}-{model.precision}-{balaitous.__version__}"
        self.folder.mkdir(parents=True, exist_ok=True)

    def path(self, input_sha256: str) -> Path:
        """Where the features of a scan are, or will be."""
        return self.folder / f"{input_sha256}.npz"

    def save(self, prediction: Prediction) -> None:
        """Keep what the heads see of a scan."""
        assert prediction.input_sha256 is not None
        full, lung = (prediction.features[view] for view in VIEWS)
        with replacing(self.path(prediction.input_sha256)) as file:
            np.savez(file, full=full, lung=lung)

    def load(self, input_sha256: str) -> dict[str, NDArray]:
        """(width,) of each view."""
        with np.load(self.path(input_sha256), allow_pickle=False) as archive:
            return {view: archive[view] for view in VIEWS}

    def features(self, rows: Iterable[Row]) -> dict[str, NDArray]:
        """(scans, width) of each view, of the rows of predicted scans."""
        loaded = [self.load(row["input_sha256"]) for row in rows]
        return {view: np.stack([each[view] for each in loaded]) for view in VIEWS}


class Keeper(Balaitous):
    """A model that keeps something of every scan it predicts: what, its store says."""

    store: Store

    def predict(self, *arguments: Any, **options: Any) -> Prediction:
        """As `Balaitous.predict`."""
        prediction = super().predict(*arguments, **options)
        self.store.save(prediction)
        return prediction


class FeatureKeeper(Keeper):
    """A model that keeps the features of every scan it predicts."""

    store: FeatureStore

    def __init__(self, folder: Path, weights: str | None, device: str | None = None, precision: str = "auto") -> None:
        super().__init__(weights, device, precision)
        self.store = FeatureStore(folder, self)


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
