"""``balaitous train``: new heads on the features of a bundle's encoders."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from balaitous.cli.console import (
    Device,
    Precision,
    Weights,
    note_use,
    out,
    outcome_line,
    scan_progress,
    set_up_logging,
    show_summary,
    usage_errors,
)

if TYPE_CHECKING:
    from balaitous.cohort.run import Run
    from balaitous.cohort.table import Row

train_app = typer.Typer(help="Train on scans whose outcomes are known.", no_args_is_help=True)


@train_app.callback()
def train() -> None:
    """Train on scans whose outcomes are known."""


@train_app.command("heads")
def train_heads_command(
    data: Annotated[Path, typer.Option(help="Folder with data/mha/<PatientID>.mha and metadata/reference.csv.")],
    folder: Annotated[Path, typer.Option("--out", help="Folder for the bundle, the table, figures and predictions.")],
    weights: Weights = None,
    device: Device = "auto",
    precision: Precision = "auto",
    features: Annotated[
        Path | None, typer.Option(help="Folder where features are kept, for other runs too. Default: OUT/features.")
    ] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Scans at a time.")] = None,
    components: Annotated[
        int | None,
        typer.Option(min=1, help="Principal components of the features that are kept. Default: all features."),
    ] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Of the cross-validation.")] = 4,
    folds: Annotated[
        int, typer.Option(min=2, help="Of the cross-validation; fewer where a class has fewer patients.")
    ] = 8,
    seed: Annotated[int, typer.Option(help="Of the folds.")] = 0,
    name: Annotated[str | None, typer.Option(help="Of the new bundle. Default: the name of OUT.")] = None,
    licence: Annotated[
        str, typer.Option(help="Of the new bundle: that of the data, and of the encoders.")
    ] = "not stated",
) -> None:
    """Fit and cross-validate the four logistic regressions; interrupted, it goes on where it was."""
    set_up_logging(verbose=True)
    from balaitous.training.features import FeatureKeeper
    from balaitous.training.heads_run import FEATURES_FOLDER, HeadTraining, train_heads

    with usage_errors():
        model = FeatureKeeper(features or folder / FEATURES_FOLDER, weights, device, precision)
        note_use(model.bundle)
        text = train_heads(
            data,
            folder,
            model,
            HeadTraining(components, repeats, folds, seed),
            name=name or folder.absolute().name,
            licence=licence,
            workers=workers,
            follow=show,
        )
    out.print(text, markup=False)
    out.print(f"wrote {folder}", markup=False)


def show(run: Run, rows: Iterator[Row]) -> None:
    """Add rows to a run, with a bar or lines."""
    with scan_progress(run) as advance:
        for row in rows:
            run.add(row)
            advance(outcome_line(row, single=False))
    show_summary(run.summary())
