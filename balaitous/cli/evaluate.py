"""``balaitous evaluate``: predictions against outcomes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from balaitous.cli.console import out, set_up_logging, usage_errors


def evaluate(
    predictions: Annotated[
        Path,
        typer.Option(
            help="Table with PatientID, probability_covid, probability_severe; a folder of Grand Challenge outputs; or "
            "predictions.json of an evaluation."
        ),
    ],
    reference: Annotated[Path, typer.Option(help="CSV with PatientID,probCOVID,probSevere: what is true.")],
    folder: Annotated[Path, typer.Option("--out", help="Folder for metrics.json, figures and report.html.")],
    compare: Annotated[
        Path | None, typer.Option("--compare", help="Predictions of a second model, for a paired test.")
    ] = None,
    threshold: Annotated[
        list[float] | None,
        typer.Option(help="Called positive from this probability on; may be repeated. Default: 0.5."),
    ] = None,
    bootstraps: Annotated[int, typer.Option(help="How often patients are drawn again.")] = 1000,
    seed: Annotated[int, typer.Option(help="Of the bootstrap.")] = 0,
) -> None:
    """Evaluate predictions as the challenge does: COVID-19 on all patients, severity among those with COVID-19."""
    set_up_logging(verbose=False)
    from balaitous.container.submission import read_predictions
    from balaitous.evaluation.evaluate import evaluate, summary_lines
    from balaitous.evaluation.metrics import THRESHOLDS
    from balaitous.evaluation.report import refuse_other_files, write_evaluation
    from balaitous.evaluation.tasks import read_reference
    from balaitous.locks import Lock

    truth = read_reference(reference)
    found = read_predictions(predictions)
    other = read_predictions(compare) if compare else None
    folder.mkdir(parents=True, exist_ok=True)
    with usage_errors(), Lock(folder):
        refuse_other_files(folder)
        evaluation = evaluate(found, truth, other, thresholds=threshold or THRESHOLDS, bootstraps=bootstraps, seed=seed)
        written = write_evaluation(evaluation, folder)
    for line in summary_lines(evaluation):
        out.print(line)
    for path in written:
        out.print(f"wrote {path}")
