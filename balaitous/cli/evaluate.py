"""``balaitous evaluate``: predictions against outcomes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from balaitous.cli.console import UsageError, out, set_up_logging, usage_errors
from balaitous.models import DEFAULT, find_model


def evaluate(
    predictions: Annotated[
        Path,
        typer.Option(
            help="Table of `predict`, or out-of-fold predictions of a training; of severity also a folder of Grand "
            "Challenge outputs, or predictions.json of an evaluation."
        ),
    ],
    reference: Annotated[
        Path,
        typer.Option(
            help="CSV of what is true. Severity: PatientID,probCOVID,probSevere. Other models: PatientID or path, a "
            "column (1, 0 or empty) an output, or label; optionally patient, source."
        ),
    ],
    folder: Annotated[Path, typer.Option("--out", help="Folder for metrics.json, figures and report.html.")],
    compare: Annotated[
        Path | None, typer.Option("--compare", help="Predictions of a second model, for a paired test.")
    ] = None,
    threshold: Annotated[
        list[float] | None,
        typer.Option(help="Called positive from this probability on; may be repeated. Default: 0.5."),
    ] = None,
    model: Annotated[str, typer.Option(help="Whose predictions they are; see `balaitous info`.")] = DEFAULT,
    validation: Annotated[
        Path | None,
        typer.Option(help="Predictions of other items, on which a threshold more is chosen for each output."),
    ] = None,
    validation_reference: Annotated[Path | None, typer.Option(help="What is true of those.")] = None,
    bootstraps: Annotated[int, typer.Option(help="How often patients are drawn again.")] = 1000,
    seed: Annotated[int, typer.Option(help="Of the bootstrap.")] = 0,
) -> None:
    """Evaluate predictions: severity's as its challenge does, other models' output by output."""
    set_up_logging(verbose=False)
    from balaitous.container.submission import read_predictions_of
    from balaitous.evaluation.evaluate import evaluate, summary_lines, thresholds_on
    from balaitous.evaluation.metrics import THRESHOLDS
    from balaitous.evaluation.report import refuse_other_files, write_evaluation
    from balaitous.evaluation.tables import read_reference_of
    from balaitous.locks import Lock

    if (validation is None) != (validation_reference is None):
        raise UsageError("expected --validation and --validation-reference together, found one of them. Give both.")
    with usage_errors():
        row = find_model(model)
    truth = read_reference_of(reference, row)
    found = read_predictions_of(row, predictions, truth.key)
    other = read_predictions_of(row, compare, truth.key) if compare else None
    validated = None
    if validation and validation_reference:
        known = read_reference_of(validation_reference, row)
        validated = thresholds_on(read_predictions_of(row, validation, known.key), known, row)
    folder.mkdir(parents=True, exist_ok=True)
    with usage_errors(), Lock(folder):
        refuse_other_files(folder)
        evaluation = evaluate(
            *(found, truth, other),
            model=row,
            thresholds=threshold or THRESHOLDS,
            validated=validated,
            bootstraps=bootstraps,
            seed=seed,
        )
        written = write_evaluation(evaluation, folder)
    for line in summary_lines(evaluation):
        out.print(line)
    for path in written:
        out.print(f"wrote {path}")
