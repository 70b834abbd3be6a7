"""Keep the features that heads are trained on."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import balaitous
from balaitous.cohort.table import Row
from balaitous.files import replacing
from balaitous.severity.heads import VIEWS
from balaitous.severity.pipeline import Balaitous, Prediction


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
