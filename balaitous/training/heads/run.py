"""Training of the heads from a STOIC folder to a bundle: features, cross-validation, fit, report."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import balaitous
from balaitous.cohort.run import Run
from balaitous.cohort.table import Row
from balaitous.locks import Lock
from balaitous.severity.pipeline import Balaitous
from balaitous.training.heads.features import FeatureStore
from balaitous.training.heads.fit import FOLDS, LEAST_PATIENTS, REPEATS, cross_validate, fit_heads
from balaitous.training.heads.report import refuse_other_files, write_training
from balaitous.training.heads.stoic import labelled, read_stoic
from balaitous.training.keeping import begin_keeping

log = logging.getLogger(__name__)

FEATURES_FOLDER = "features"


@dataclass(frozen=True)
class HeadTraining:
    """How heads are trained.

    Attributes
    ----------
    components : principal components of the features that are kept; None: all features
    repeats, folds : of the cross-validation; fewer folds where a class has fewer patients
    """

    components: int | None = None
    repeats: int = REPEATS
    folds: int = FOLDS
    seed: int = 0


def add_rows(run: Run, rows: Iterator[Row]) -> None:
    """Take the rows as they come."""
    for row in rows:
        run.add(row)


def train_heads(
    folder: Path,
    out: Path,
    model: Balaitous,
    settings: HeadTraining | None = None,
    *,
    features: Path,
    name: str,
    licence: str,
    workers: int | None = None,
    follow: Callable[[Run, Iterator[Row]], None] = add_rows,
) -> str:
    """Train heads on the scans of a STOIC folder; a run that was interrupted goes on with the features that are there.

    Parameters
    ----------
    folder : with ``data/mha`` and ``metadata/reference.csv``
    out : for the bundle, the table, figures and predictions
    model : whose encoders make the features
    features : folder where they are kept, for other runs too
    name, licence : of the new bundle
    follow : takes the rows of the scans and adds them to the run

    Returns
    -------
    the table and pooled areas, in Markdown

    Raises
    ------
    ValueError : there is a bundle in `out` already, or a file of another kind; or another run writes there
    InputError : the folder cannot be used, or too few patients of a class can
    WeightsError : the bundle cannot be written
    """
    settings = settings or HeadTraining()
    out.mkdir(parents=True, exist_ok=True)
    lock = Lock(out)
    refuse_other_files(out)
    cohort = read_stoic(folder)
    store = FeatureStore(features, model)
    run, rows = begin_keeping(model, store, cohort.scans, workers)
    try:
        with closing(rows):
            follow(run, rows)
    finally:
        done = run.finish()
    data = labelled(done, store, cohort.reference)
    folds = min(settings.folds, max(LEAST_PATIENTS, int(np.bincount(data.strata, minlength=3).min())))
    if folds < settings.folds:
        log.warning("%d folds instead of %d: a class has no more patients", folds, settings.folds)
    log.info("cross-validation: %d × %d folds, %d patients", settings.repeats, folds, len(data.patients))
    components, seed = settings.components, settings.seed
    found = cross_validate(data, components=components, repeats=settings.repeats, folds=folds, seed=seed)
    arrays = fit_heads(data, components=components, seed=seed)
    facts = {
        "command": "balaitous train heads",
        "version": balaitous.__version__,
        "repeats": settings.repeats,
        "folds": folds,
        "components": components,
        "seed": seed,
        "precision_of_features": model.precision,
        "failed_scans": sum(row["status"] != "ok" for row in done),
    }
    text = write_training(out, model.bundle, data, found, arrays, facts, name=name, licence=licence)
    lock.release()
    return text
