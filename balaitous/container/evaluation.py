"""The challenge's evaluation container: a submission's jobs against the ground truth, to ``/output/metrics.json``."""

from __future__ import annotations

import logging
from pathlib import Path

from balaitous.container.answers import METRICS_FILE, remove_answers
from balaitous.container.grand_challenge import write_json
from balaitous.container.submission import SUBMISSION_FILE, read_submission
from balaitous.errors import InputError
from balaitous.evaluation.evaluate import evaluate
from balaitous.evaluation.report import metrics_of
from balaitous.evaluation.tasks import read_reference

log = logging.getLogger(__name__)

GROUND_TRUTH = Path("/opt/ml/input/data/ground_truth")  # where the platform unpacks the organisers' tarball
REFERENCE_FILE = "reference.csv"


def evaluate_submission(input_dir: Path, output_dir: Path, ground_truth: Path = GROUND_TRUTH) -> None:
    """Evaluate a submission and write ``metrics.json``: the areas and what else was measured.

    Figures are left out: a participant knows their own predictions, and could read the patients' outcomes from the
    steps of a ROC curve.

    Parameters
    ----------
    input_dir : with ``predictions.json`` and the outputs of its jobs, ``<pk>/output/``
    output_dir : exists, and can be written to
    ground_truth : with one ``reference.csv``, in it or in a folder below

    Raises
    ------
    InputError : a child of it, where predictions and reference do not match one to one
    """
    remove_answers(output_dir, "evaluate")
    reference = read_reference(find_reference(ground_truth))
    log.info("reference: %d patients, %d with COVID-19", len(reference.patients), reference.outcomes["covid"].sum())
    evaluation = evaluate(read_submission(input_dir / SUBMISSION_FILE), reference)
    metrics = metrics_of(evaluation)
    for name, found in metrics["aggregates"].items():
        shown = (
            found["reason"]
            if found["value"] is None
            else f"{found['value']:.4f} ({found['ci_low']}–{found['ci_high']})"
        )
        log.info("%s: %s", name, shown)
    write_json(output_dir / METRICS_FILE, metrics)
    log.info("written to %s: %s", output_dir, METRICS_FILE)


def find_reference(ground_truth: Path) -> Path:
    """The only ``reference.csv`` in or below a folder; the organisers' tarball may have a folder of its own in it.

    Raises
    ------
    InputError : there is none, or several
    """
    found = sorted(ground_truth.rglob(REFERENCE_FILE))
    if len(found) != 1:
        raise InputError(
            f"{ground_truth}: expected one {REFERENCE_FILE} in it or below, found {len(found)}. Upload a tarball "
            "of the ground truth with that file."
        )
    return found[0]
