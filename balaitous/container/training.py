"""The training container of STOIC's final phase: a cohort in, artefacts out as they are made, one last line."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

from balaitous.cohort.run import Run
from balaitous.cohort.table import Row
from balaitous.severity.pipeline import Balaitous
from balaitous.training.heads.run import FEATURES_FOLDER, train_heads

log = logging.getLogger(__name__)

LAST_LINE = "Training completed."


def train_submission(input_dir: Path, output_dir: Path) -> None:
    """Train heads on the cohort of a job, on the features of the weights in use.

    Parameters
    ----------
    input_dir : with ``data/mha/*.mha`` and ``metadata/reference.csv``; only read
    output_dir : exists, and can be written to. Features go there scan by scan: a job that is cut short, and started
        again with what it left, goes on from them. ``bundle`` below it is what ``/opt/ml/model`` expects

    Raises
    ------
    InputError, WeightsError, ValueError : as `train_heads`
    """
    model = Balaitous()
    log.info("features of bundle %s on %s", model.bundle.name, model.device)
    text = train_heads(
        input_dir,
        output_dir,
        model,
        features=output_dir / FEATURES_FOLDER,
        name=f"{model.bundle.name}-retrained",
        licence=f"that of the training data; networks: {model.bundle.licence}",
        follow=log_rows,
    )
    for line in text.splitlines():
        log.info("%s", line)
    log.info(LAST_LINE)


def log_rows(run: Run, rows: Iterator[Row]) -> None:
    """Add rows to a run, a line each."""
    for row in rows:
        run.add(row)
        log.info("%d/%d %s: %s", run.skipped + run.added, len(run.rows), row["PatientID"], row["status"])
