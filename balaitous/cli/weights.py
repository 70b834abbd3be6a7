"""``balaitous weights``: list, fetch, verify, quantise, calibrate and pack weight bundles."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from balaitous.cli.console import UsageError, Weights, err, fail, out, set_up_logging, usage_errors
from balaitous.errors import WeightsError

weights_app = typer.Typer(help="List, fetch, verify and pack weight bundles.", no_args_is_help=True)


@weights_app.command("list")
def list_weights() -> None:
    """Where each model's weights are looked for, in order, and what is there; then what can be fetched."""
    from balaitous.models import MODELS
    from balaitous.weights.inventory import list_bundles
    from balaitous.weights.registry import published_bundles

    for model in MODELS.values():
        out.print(f"{model.name}: {model.title}")
        for each in list_bundles(model):
            found = each.bundle
            what = each.problem or "nothing"
            if found:
                what = f"{found.name}, {each.size_bytes / 1e6:.1f} MB, sha256 {found.sha256[:12]}"
                what += f", licence: {found.licence}"
                if found.model != model.name:
                    what += f"; for {found.model}"
            out.print(f"{'*' if each.in_use else ' '} {each.place}: {each.folder}")
            out.print(f"    {what}")
    out.print("* is the one in use. To be fetched:")
    for name, published in published_bundles().items():
        size_bytes = sum(file.size_bytes for file in published.files)
        out.print(f"balaitous weights fetch {name}: about {size_bytes / 1e9:.1f} GB")
        for file in published.files:
            out.print(f"  {file.name}  {file.url}  {file.licence}; {file.citation}")


@weights_app.command("fetch")
def fetch_weights(
    name: Annotated[str, typer.Argument(help="The published bundle: stoic.")] = "stoic",
    from_dir: Annotated[
        Path | None, typer.Option("--from", help="Folder with the published files, copied by hand.")
    ] = None,
    folder: Annotated[Path | None, typer.Option("--out", help="Where to put the bundle.")] = None,
) -> None:
    """Download the published weights (resumed if interrupted), verify them and make a bundle."""
    from balaitous.weights.fetch import fetch

    set_up_logging(verbose=True)
    with usage_errors(), download_progress() as on_progress:
        bundle = fetch(name, folder, from_dir, on_progress)
    out.print(f"{bundle} is ready")


@contextmanager
def download_progress() -> Iterator[Any]:
    """A bar a file on a terminal; elsewhere a line every tenth of a file."""
    if not err.is_terminal:
        tenths: dict[str, int] = {}

        def line(file: str, done: int, total: int | None) -> None:
            tenth = 10 * done // total if total else done // 100_000_000
            if tenths.get(file) != tenth:
                tenths[file] = tenth
                err.print(
                    f"{file}: {done / 1e6:.0f} of {total / 1e6:.0f} MB" if total else f"{file}: {done / 1e6:.0f} MB"
                )

        yield line
        return
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err) as progress:
        tasks: dict[str, Any] = {}

        def advance(file: str, done: int, total: int | None) -> None:
            if file not in tasks:
                tasks[file] = progress.add_task(file, total=total)
            progress.update(tasks[file], completed=done, total=total)

        yield advance


@weights_app.command("verify")
def verify_weights(
    weights: Annotated[str | None, typer.Argument(help="A bundle's name or folder; default: the one in use.")] = None,
) -> None:
    """Check every file of a bundle: hash, tensors, shapes."""
    from balaitous.weights.inventory import verify
    from balaitous.weights.search import find_bundle, named_bundle

    folder = find_bundle() if weights is None else named_bundle(weights)
    checks = verify(folder)
    for check in checks:
        out.print(f"{'ok    ' if check.ok else 'FAILED'} {folder / check.file}")
    wrong = [check for check in checks if not check.ok]
    if wrong:
        fail(str(wrong[0].problem), WeightsError.exit_code)


@weights_app.command("quantize")
def quantize_weights(
    paths: Annotated[list[str], typer.Argument(help="Scans like those to predict; the first few are used.")],
    weights: Weights = None,
) -> None:
    """Quantise a bundle's networks to int8 for this machine's CPU, in place of what `predict` made by itself."""
    set_up_logging(verbose=True)
    from balaitous.cohort.engines import quantize
    from balaitous.cohort.items import list_items
    from balaitous.models import MODELS
    from balaitous.weights.search import find_bundle

    model = MODELS["severity"]
    with usage_errors():
        folder = quantize(model, find_bundle(weights), list_items(paths, model))
    out.print(f"wrote {folder}")


@weights_app.command("calibrate")
def calibrate_weights(
    predictions: Annotated[Path, typer.Option(help="Of patients that the bundle was not trained on; as `evaluate`.")],
    reference: Annotated[Path, typer.Option(help="CSV with PatientID,probCOVID,probSevere.")],
    folder: Annotated[Path, typer.Option("--out", help="The new bundle's folder, new or empty.")],
    weights: Weights = None,
    method: Annotated[str, typer.Option(help="platt, or isotonic for hundreds of patients.")] = "platt",
) -> None:
    """Make a bundle with the same weights that knows how to calibrate; `predict --calibrated` does it."""
    from balaitous.container.submission import read_predictions
    from balaitous.evaluation.calibration import calibrate, summary_lines
    from balaitous.evaluation.tasks import read_reference
    from balaitous.severity.parts import open_parts
    from balaitous.weights.search import find_bundle

    bundle = open_parts(find_bundle(weights))
    with usage_errors():
        before, after = calibrate(read_predictions(predictions), read_reference(reference), bundle, folder, method)
    for line in summary_lines(before, after):
        out.print(line)
    out.print(f"wrote {folder}")


@weights_app.command("pack")
def pack_weights(
    folder: Annotated[Path, typer.Option("--out", help="The bundle's folder, new or empty.")],
    lung_unet: Annotated[Path | None, typer.Option(help="U-Net R231: .pth or .safetensors.")] = None,
    encoder_full: Annotated[Path | None, typer.Option(help="ViT for the whole slice: .pth or .safetensors.")] = None,
    encoder_lung: Annotated[Path | None, typer.Option(help="ViT for the lung alone: .pth or .safetensors.")] = None,
    heads: Annotated[Path | None, typer.Option(help="Logistic regressions: .npz, .csv or .safetensors.")] = None,
    base: Annotated[str | None, typer.Option(help="Bundle with the parts that are not given.")] = None,
    dtype: Annotated[
        str | None,
        typer.Option(help="float32 or float16. Default: as the parts of BASE and the files are, or float32."),
    ] = None,
    blocks_full: Annotated[
        int | None,
        typer.Option(min=1, help="Blocks of encoder-full that run. Default: as in BASE, or 24 as published."),
    ] = None,
    blocks_lung: Annotated[
        int | None,
        typer.Option(min=1, help="Blocks of encoder-lung that run. Default: as in BASE, or 16 as published."),
    ] = None,
    licence: Annotated[str | None, typer.Option(help="Of the bundle. Default: that of BASE, or not stated.")] = None,
) -> None:
    """Make a bundle from files in the published layouts; only the layers that run are stored."""
    set_up_logging(verbose=False)
    from balaitous.severity.pack import pack, repack
    from balaitous.severity.parts import open_parts
    from balaitous.weights.pack import Facts
    from balaitous.weights.search import find_bundle

    with usage_errors():
        if base is not None:
            bundle = repack(
                open_parts(find_bundle(base)),
                folder,
                lung_unet=lung_unet,
                encoder_full=encoder_full,
                encoder_lung=encoder_lung,
                heads=heads,
                dtype=dtype,
                blocks_full=blocks_full,
                blocks_lung=blocks_lung,
                licence=licence,
            )
        elif lung_unet and encoder_full and encoder_lung and heads:
            bundle = pack(
                lung_unet,
                encoder_full,
                encoder_lung,
                heads,
                folder,
                dtype=dtype or "float32",
                blocks_full=blocks_full or 24,
                blocks_lung=blocks_lung or 16,
                facts=Facts(folder.absolute().name, licence=licence or "not stated"),
            )
        else:
            raise UsageError("expected all four parts, or --base BUNDLE that has the others. Give what is missing.")
    out.print(f"wrote {bundle}")
