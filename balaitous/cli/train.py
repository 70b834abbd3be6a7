"""``balaitous train``: the heads, an encoder, or the lung U-Net."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from balaitous.cli.console import (
    Device,
    Precision,
    UsageError,
    Weights,
    err,
    note_use,
    out,
    outcome_line,
    print_lines,
    scan_progress,
    set_up_logging,
    show_summary,
    usage_errors,
)
from balaitous.models import MODELS

if TYPE_CHECKING:
    from balaitous.cohort.run import Run
    from balaitous.cohort.table import Row

TRAINING_PRECISIONS = ("fp32", "bf16")

train_app = typer.Typer(help="Train heads, an encoder or the lung U-Net on scans of your own.", no_args_is_help=True)


@train_app.callback()
def train() -> None:
    """Train heads, an encoder or the lung U-Net on scans of your own."""


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
    from balaitous.severity.pipeline import Balaitous
    from balaitous.training.heads.run import FEATURES_FOLDER, HeadTraining, train_heads

    with usage_errors():
        model = Balaitous(weights, device, precision)
        note_use(model.bundle)
        text = train_heads(
            data,
            folder,
            model,
            HeadTraining(components, repeats, folds, seed),
            features=features or folder / FEATURES_FOLDER,
            name=name or folder.absolute().name,
            licence=licence,
            workers=workers,
            follow=show,
        )
    print_lines(text)
    out.print(f"wrote {folder}")


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
        from balaitous.training.encoder.run import EncoderTraining, train_encoder_on

        training = EncoderTraining(view, recipe, start, weights, probe, device, workers)
        file = train_encoder_on(data, folder, training, slices or folder / "slices", follow=show)
    out.print(f"wrote {file}")


def show(run: Run, rows: Iterator[Row]) -> None:
    """Add rows to a run, with a bar or lines."""
    with scan_progress(run) as advance:
        for row in rows:
            run.add(row)
            advance(outcome_line(row, MODELS["severity"], single=False))
    show_summary(run.summary())


@train_app.command("lungs")
def train_lungs_command(
    folder: Annotated[Path, typer.Option("--out", help="Folder for the weights, loss.csv and dice.csv.")],
    data: Annotated[
        Path | None,
        typer.Option(
            help="CSV with columns path[,mask][,held_out][,unsure], or folder of scans, where <name>_lungmask or "
            "<name>_mask beside a scan is its mask. A scan without a mask gets a pseudo-mask."
        ),
    ] = None,
    held_out: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Scan to measure Dice on instead of training on it; may be repeated."),
    ] = None,
    phantoms: Annotated[int, typer.Option(min=0, help="Synthetic chests to train on as well.")] = 0,
    start: Annotated[
        str | None, typer.Option(help="U-Net to go on from: a bundle's name or folder, or a .pth or .safetensors file.")
    ] = None,
    steps: Annotated[int, typer.Option(min=1, help="Batches; the first 60 % at half resolution.")] = 2000,
    batch: Annotated[int, typer.Option(min=1, help="Slices in a batch.")] = 12,
    learning_rate: Annotated[float, typer.Option(min=0, help="Highest; it warms up, then falls by a cosine.")] = 3e-3,
    width: Annotated[
        int | None, typer.Option(min=1, help="Channels of the first level. Default: 16, or that of START; R231 has 64.")
    ] = None,
    variants: Annotated[int, typer.Option(min=0, help="Versions of each scan with synthetic opacities.")] = 4,
    seed: Annotated[int, typer.Option(min=0, help="Of the weights, the opacities and the augmentation.")] = 0,
    device: Device = "auto",
    precision: Annotated[str, typer.Option(help="fp32 or bf16.")] = "fp32",
) -> None:
    """Train the lung U-Net on CTs with or without lung masks; interrupted, it goes on where it was."""
    set_up_logging(verbose=True)
    from balaitous.networks.runtime import choose_device, choose_precision
    from balaitous.training.lungs.data import list_lung_scans, prepare_cases
    from balaitous.training.lungs.train import WEIGHTS_FILE, read_unet, train_lungs, write_dice

    if precision not in TRAINING_PRECISIONS:
        raise UsageError(f"precision must be one of {', '.join(TRAINING_PRECISIONS)}. Got {precision!r} instead.")
    if data is None and (held_out or not phantoms):
        raise UsageError("expected scans (--data), or phantoms alone to try it out (--phantoms 20).")
    if start and width is not None:
        raise UsageError("expected --width or --start, found both. The U-Net to go on from has its own width.")
    with usage_errors():
        chosen = choose_device(device)
        _, dtype = choose_precision(precision, chosen)
        unet = read_unet(start) if start else None
        cases = prepare_cases(list_lung_scans(data, held_out or []) if data else [], folder / "cases", phantoms)
        network = train_lungs(
            cases.training,
            folder,
            steps=steps,
            batch=batch,
            learning_rate=learning_rate,
            width=width,
            variants=variants,
            seed=seed,
            start=unet,
            device=chosen,
            dtype=dtype,
        )
    out.print(f"wrote {folder / WEIGHTS_FILE}")
    if cases.held_out:
        print_lines(write_dice(network, cases.held_out, folder))
    else:
        err.print("No Dice: no scan that can be used is held out. See --held-out, or the column held_out.")


@train_app.command("slices")
def train_slices_command(
    data: Annotated[
        list[Path],
        typer.Option(
            help="CSV with path (or imgname) and a column an output, 0/1/empty or COVID-CT's tokens; optional patient, "
            "source, split (train, val, test); may be given several times."
        ),
    ],
    folder: Annotated[Path, typer.Option("--out", help="Folder for the bundle, checkpoints and curves.")],
    validation: Annotated[
        list[Path] | None, typer.Option(help="CSV of pictures that the weights are chosen on; may be repeated.")
    ] = None,
    recipe: Annotated[
        str, typer.Option(help="mini-slices, la-dnn-densenet169, la-dnn-densenet121, la-dnn-vgg16, or a TOML file.")
    ] = "mini-slices",
    start: Annotated[
        str, typer.Option(help="imagenet, none (drawn from the seed), a bundle's name or folder, .pth or .safetensors.")
    ] = "imagenet",
    apart: Annotated[
        list[Path] | None,
        typer.Option(help="CSV of pictures: what shares a group with one of them or looks like it is not trained on."),
    ] = None,
    folds: Annotated[
        str | None, typer.Option(help="patient or source: also train without each, and write out_of_fold.csv.")
    ] = None,
    device: Device = "auto",
    name: Annotated[str | None, typer.Option(help="Of the new bundle. Default: the name of OUT.")] = None,
    licence: Annotated[str, typer.Option(help="Of the new bundle: the strictest of its pictures.")] = "not stated",
) -> None:
    """Train the slices model on labelled pictures of CT slices; interrupted, it goes on where it was."""
    set_up_logging(verbose=True)
    from balaitous.training.classifier.slices import SlicesTraining, train_slices

    with usage_errors():
        chosen = SlicesTraining(recipe, start, tuple(apart or ()), folds, device, name, licence)
        bundle, table = train_slices(data, validation or [], folder, chosen)
    out.print(f"wrote {bundle}", markup=False)
    if table:
        out.print(f"wrote {table}", markup=False)
