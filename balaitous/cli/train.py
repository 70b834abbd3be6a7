"""``balaitous train``: heads on the features of a bundle's encoders, and encoders on slices without labels."""

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

train_app = typer.Typer(help="Train heads, or an encoder.", no_args_is_help=True)


@train_app.callback()
def train() -> None:
    """Train heads, or an encoder."""


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


@train_app.command("encoder")
def train_encoder_command(
    data: Annotated[
        list[Path], typer.Option(help="A scan, a 2-D image, or a folder of them; may be given several times.")
    ],
    folder: Annotated[Path, typer.Option("--out", help="Folder for the weights, checkpoints, curves and slices.")],
    view: Annotated[str, typer.Option(help="full: whole slices; lung: the lung alone, of volumes.")] = "full",
    recipe: Annotated[str, typer.Option(help="stoic, mini, or a TOML file.")] = "stoic",
    start: Annotated[
        str | None,
        typer.Option(
            help="Weights to go on from: a bundle's name or folder, .pth or .safetensors. Default: drawn anew."
        ),
    ] = None,
    weights: Annotated[
        str | None, typer.Option(help="The bundle whose U-Net finds the lungs. Default: as `predict`.")
    ] = None,
    probe: Annotated[
        Path | None,
        typer.Option(help="CSV with path,label,split (0 or 1; train or test): what the encoder is tried on."),
    ] = None,
    slices: Annotated[
        Path | None, typer.Option(help="Folder where slices are kept, for other runs too. Default: OUT/slices.")
    ] = None,
    device: Device = "auto",
    workers: Annotated[int | None, typer.Option(min=1, help="Scans at a time, and processes that draw views.")] = None,
) -> None:
    """Train an encoder by self-distillation (iBOT), without labels; interrupted, it goes on where it was."""
    set_up_logging(verbose=True)
    with usage_errors():
        from balaitous.training.encoder_command import EncoderTraining, train_encoder_on

        training = EncoderTraining(view, recipe, start, weights, probe, device, workers)
        file = train_encoder_on(data, folder, training, slices or folder / "slices", follow=show)
    out.print(f"wrote {file}", markup=False)


def show(run: Run, rows: Iterator[Row]) -> None:
    """Add rows to a run, with a bar or lines."""
    with scan_progress(run) as advance:
        for row in rows:
            run.add(row)
            advance(outcome_line(row, single=False))
    show_summary(run.summary())
