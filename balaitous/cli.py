"""The ``balaitous`` command: parses, calls, prints. Nothing else in the package prints.

Exit codes: 0 done, 2 usage, 3 input not usable, 4 weights missing or not what they claim, 5 some of many scans failed.
"""

from __future__ import annotations

import atexit
import json
import logging
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from multiprocessing import active_children
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

import balaitous
from balaitous import errors
from balaitous.errors import BalaitousError, WeightsError, explain

if TYPE_CHECKING:
    from balaitous.cohort.engines import Engine
    from balaitous.cohort.run import Run
    from balaitous.cohort.table import Row
    from balaitous.weights.bundle import Bundle

EXIT_UNEXPECTED = 1
EXIT_USAGE = 2
EXIT_FILES = 3
EXIT_SOME_FAILED = 5
EXIT_INTERRUPTED = 130
ENGINES = ("local", "ray")
CHILD_SECONDS = 1  # that a process gets to end by itself
PACE_SECONDS = 30  # between two estimates of the time left, where lines stay
SHOWN_ROWS = 100  # of a table that is in a file as well
DISCLAIMER = "Research use only, not for diagnosis."

app = typer.Typer(
    help=f"Probability of COVID-19 and of a severe outcome from a chest CT. {DISCLAIMER}",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode=None,
)
weights_app = typer.Typer(help="List, fetch, verify and pack weight bundles.", no_args_is_help=True)
app.add_typer(weights_app, name="weights")

# No terminal, no width: a table in a log or a file should not be squeezed into 80 columns.
out = Console(soft_wrap=True, highlight=False, width=None if sys.stdout.isatty() else 200)
err = Console(soft_wrap=True, highlight=False, stderr=True)

Age = Annotated[float | None, typer.Option(help="Age in years, when the scan does not tell.")]
Sex = Annotated[str | None, typer.Option(help="M or 1, F or 0; 0.5 if unknown.")]
Weights = Annotated[str | None, typer.Option(help="A bundle's name or folder; see `balaitous weights list`.")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
Precision = Annotated[str, typer.Option(help="auto, fp32, fp16, bf16 or int8.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Log what happens.")]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command; errors of the user's end in one line and an exit code."""
    try:
        app(arguments)
    except BalaitousError as error:
        fail(str(error), error.exit_code)
    except UsageError as error:
        fail(str(error), EXIT_USAGE)
    except OSError as error:
        fail(explain(error), EXIT_FILES)
    except Interrupted as error:
        end_children()
        err.print(f"ERROR: {error}", markup=False)
        # All is written. The usual way out would first wait for the threads that have scans in hand.
        atexit._run_exitfuncs()
        os._exit(EXIT_INTERRUPTED)


def end_children() -> None:
    """End the reading processes: politely, so that they remove what they unpacked, then surely."""
    children = active_children()
    for process in children:
        process.terminate()
    for process in children:
        process.join(CHILD_SECONDS)
        process.kill()


class Interrupted(Exception):
    """Ctrl-C in the middle of a run."""


class UsageError(Exception):
    """Arguments that make no sense."""


@contextmanager
def usage_errors() -> Iterator[None]:
    """Arguments are checked by the library, which raises ValueError; where only they can be wrong, that is misuse."""
    try:
        yield
    except ValueError as error:
        raise UsageError(str(error)) from error


def fail(message: str, exit_code: int) -> NoReturn:
    err.print(f"ERROR: {message}", markup=False)
    sys.exit(exit_code)


@app.callback(invoke_without_command=True)
def published_form(
    context: typer.Context,
    path: Annotated[Path | None, typer.Option(help="One scan, in the published package's form.")] = None,
    age: Age = None,
    sex: Sex = None,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """The published package's command line: ``balaitous --path scan.mha --age 65 --sex 1``."""
    if version:
        out.print(f"balaitous version : {balaitous.__version__}")
    elif path is not None:
        if context.invoked_subcommand:
            raise UsageError(f"--path stands alone. Use `balaitous {context.invoked_subcommand} {path}` instead.")
        with usage_errors():
            check_patient(age, sex)
        from balaitous.severity.pipeline import Balaitous

        model = Balaitous()
        p_covid, p_severe = model(path, age=age, sex=sex)
        note_use(model.bundle)
        out.print(f"Probability covid: {100 * p_covid:.2f}%")
        out.print(f"Probability severe: {100 * p_severe:.2f}%")
    elif context.invoked_subcommand is None:
        raise UsageError("expected a command or --path. Try `balaitous --help`.")


@app.command()
def predict(
    paths: Annotated[
        list[str],
        typer.Argument(
            help="Image files, DICOM folders or zips, folders of scans, .csv with path[,age,sex]; addresses such as "
            "s3://bucket/scans too."
        ),
    ],
    age: Age = None,
    sex: Sex = None,
    series: Annotated[str | None, typer.Option(help="SeriesInstanceUID, of a DICOM folder with several.")] = None,
    weights: Weights = None,
    device: Device = "auto",
    precision: Precision = "auto",
    table_path: Annotated[
        Path | None,
        typer.Option(
            "--out",
            help="Table to write: .csv, .parquet or .json. A row is on disk as soon as its scan is done. One that "
            "holds predicted scans is never overwritten: add --resume, or remove it.",
        ),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Go on with the table of --out: skip scans that are done (known by their content, wherever they lie; "
            "addresses by their name), try failed ones again.",
        ),
    ] = False,
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Scans at a time. Default: 1 of a single scan, 2 on a CPU, up to 8 with a GPU."),
    ] = None,
    engine: Annotated[str, typer.Option(help="local, or ray for a cluster.")] = "local",
    address: Annotated[
        str | None, typer.Option(help="HOST:PORT of a Ray cluster; default: one on this machine.")
    ] = None,
    report_path: Annotated[Path | None, typer.Option("--report", help="Report of the run to write: .json.")] = None,
    verbose: Verbose = False,
) -> None:
    """Predict scans, one row each."""
    set_up_logging(verbose)
    from balaitous.cohort.engines import local_engine, ray_engine
    from balaitous.cohort.run import Run
    from balaitous.cohort.scans import list_scans
    from balaitous.cohort.table import ScanTable

    started = datetime.now(UTC)
    with usage_errors():
        check_patient(age, sex)
        check_run_options(table_path, resume, engine, address, report_path)
        table = ScanTable(table_path, resume) if table_path else None
    scans = list_scans(paths, age, sex)
    with usage_errors():
        if engine == "ray":
            chosen = ray_engine(weights, device, precision, series, workers, scans, address)
        else:
            chosen = local_engine(weights, device, precision, series, workers, scans)
        note_use(chosen.bundle)
        if table and table.done:
            err.print(f"{table.path}: {len(table.done)} scans are done; looking for them…", markup=False)
        run = Run(scans, table, chosen.made_by, series)
        rows: Any = chosen.predict(run.todo)

    try:
        with closing(rows), scan_progress(run) as advance:
            for row in rows:
                run.add(row)
                advance(outcome_line(row, single=len(scans) == 1))
    except KeyboardInterrupt:
        goes_on = f"; their rows are in {table.path}, --resume goes on from there" if table else ""
        raise Interrupted(f"interrupted after {run.skipped + run.added} of {len(scans)} scans{goes_on}.") from None
    finally:  # also when interrupted: nothing that was computed is lost
        done = run.finish()
        if report_path:
            write_report(report_path, chosen, run, started)
    show_rows(done[:SHOWN_ROWS] if table else done)
    if table:
        others = f", {len(run.others)} of them of other scans that were there" if run.others else ""
        out.print(f"wrote {table.path} ({len(done) + len(run.others)} rows{others})", markup=False)
    failed = [row for row in done if row["status"] == "failed"]
    if len(scans) > 1:
        show_summary(run.summary())
    elif failed:
        fail(failed[0]["error"], exit_code_of(failed[0]))
    if failed:
        fail(f"{len(failed)} of {len(scans)} scans failed, the others are done; see column 'error'.", EXIT_SOME_FAILED)


def check_run_options(
    table_path: Path | None, resume: bool, engine: str, address: str | None, report_path: Path | None
) -> None:
    """Raise ValueError for options that make no sense, before hours of work rest on them."""
    from balaitous.cohort.table import check_table_path

    if report_path:
        check_table_path(report_path, "--report", [".json"])
        if report_path == table_path:
            raise ValueError(f"--report and --out must be two files. Got {report_path.name!r} for both.")
    if resume and not table_path:
        raise ValueError("--resume needs --out, the table to go on with. Got none.")
    if engine not in ENGINES:
        raise ValueError(f"--engine must be one of {', '.join(ENGINES)}. Got {engine!r} instead.")
    if address and engine != "ray":
        raise ValueError(f"--address is for --engine ray. Got --engine {engine} instead.")


def check_patient(age: float | None, sex: str | None) -> None:
    """Raise ValueError for an age or sex that no patient has, before anything is loaded."""
    from balaitous.ct.patient import Patient, resolve

    resolve(Patient(), age=age, sex=sex)


def note_use(bundle: Bundle) -> None:
    """Say once what the weights are good for."""
    err.print(f"Weights '{bundle.name}' ({bundle.sha256[:12]}): {bundle.intended_use}", markup=False)
    if bundle.demonstration:
        err.print("These probabilities are a demonstration. For the published weights: balaitous weights fetch stoic")


@contextmanager
def scan_progress(run: Run) -> Iterator[Callable[[str], None]]:
    """A bar on a terminal, a plain line a scan elsewhere; both say how fast it goes and how long it will take."""
    total = len(run.rows)
    if not err.is_terminal:
        said = time.monotonic()

        def line(text: str) -> None:
            nonlocal said
            pace = ""
            if time.monotonic() - said > PACE_SECONDS:
                said, pace = time.monotonic(), f" ({pace_of(run)})"
            err.print(f"[{run.skipped + run.added}/{total}] {text}{pace}", markup=False)

        yield line
        return
    columns = (TextColumn("scans"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[pace]}"))
    with Progress(*columns, console=err) as progress:
        task = progress.add_task("scans", total=total, completed=run.skipped, pace="")

        def advance(text: str) -> None:
            progress.console.print(text, markup=False)
            progress.update(task, advance=1, pace=pace_of(run))

        yield advance


def pace_of(run: Run) -> str:
    """How fast a run goes and how long it will take."""
    minutes = (run.seconds_left or 0) / 60
    left = f"{minutes / 60:.1f} h" if minutes >= 90 else f"{minutes:.0f} min" if minutes >= 1 else "less than a minute"
    return f"{run.scans_a_minute:.3g} scans a minute, {left} left"


def outcome_line(row: Row, single: bool) -> str:
    """What came of a scan."""
    if row["status"] == "failed":
        reason = "" if single else f". {row['error']}"  # of a single scan it comes last
        return f"{row['PatientID']}: failed{reason}"
    probabilities = f"COVID-19 {row['probability_covid']:.3f}, severe {row['probability_severe']:.3f}"
    return f"{row['PatientID']}: {probabilities} ({row['seconds']:.1f} s)"


def show_summary(summary: Mapping[str, Any]) -> None:
    """What came of several scans."""
    failed = summary["failed"]
    parts = {
        "done": summary["done"],
        "done before": summary["skipped"],
        "failed": sum(each["count"] for each in failed.values()),
        "not tried": summary["not_tried"],
    }
    counts = ", ".join(f"{count} {what}" for what, count in parts.items() if count)
    pace = f"; {summary['scans_a_minute']:.3g} scans a minute" if summary["scans_a_minute"] else ""
    err.print(f"{summary['scans']} scans: {counts}{pace}", markup=False)
    for kind, each in failed.items():
        err.print(f"  {each['count']} × {kind}, such as: {each['example']}", markup=False)


def exit_code_of(row: Row) -> int:
    """The exit code that belongs to a failed row's kind of error."""
    return getattr(getattr(errors, row["error_kind"], None), "exit_code", EXIT_UNEXPECTED)


def show_rows(rows: Sequence[Row]) -> None:
    """The table, as much of it as a person reads."""
    table = Table(
        "PatientID", "COVID-19", "severe", "lungs (l)", "age", "sex", "slices", "s", "status", box=SIMPLE_HEAD
    )
    for row in rows:
        if row["status"] == "ok":
            table.add_row(
                row["PatientID"],
                f"{row['probability_covid']:.3f}",
                f"{row['probability_severe']:.3f}",
                f"{row['lung_volume_litres']:.2f}",
                f"{row['age_years']:g} ({row['age_source']})",
                f"{row['sex']:g} ({row['sex_source']})",
                str(row["slices"]),
                f"{row['seconds']:.1f}",
                "ok",
            )
        else:
            table.add_row(row["PatientID"], "–", "–", "–", "–", "–", "–", "–", "failed")
    out.print(table)


def write_report(path: Path, engine: Engine, run: Run, started: datetime) -> None:
    """Everything that is needed to repeat a run, and what came of it."""
    report = {
        "started": started.isoformat(timespec="seconds"),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "bundle": bundle_facts(engine.bundle),
        "device": engine.device,
        "precision": engine.precision,
        "versions": versions(),
        "summary": run.summary(),
        "scans": [row for row in run.rows if row],
    }
    path.write_text(json.dumps(report, indent=1) + "\n")


@app.command()
def info(as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False) -> None:
    """Versions, device and the weights that would be used."""
    import torch

    from balaitous.networks.runtime import choose_device
    from balaitous.weights.bundle import find_bundle, open_bundle

    device = choose_device()
    facts: dict[str, Any] = {
        "versions": versions(),
        "device": str(device),
        "device_name": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or "CPU",
        "threads": torch.get_num_threads(),
    }
    try:
        facts["bundle"] = bundle_facts(open_bundle(find_bundle()))
    except BalaitousError as error:  # `info` is what one runs when something is wrong: it shows what it can
        facts["bundle"] = {"error": str(error)}
    if as_json:
        print(json.dumps(facts, indent=1))
        return
    for key, value in facts.items():
        if isinstance(value, dict):
            out.print(f"{key}:")
            for name, fact in value.items():
                out.print(f"  {name}: {fact}", markup=False)
        else:
            out.print(f"{key}: {value}", markup=False)
    out.print(DISCLAIMER)


def versions() -> dict[str, str]:
    """Of ourselves and of what the numbers depend on."""
    from importlib.metadata import version

    packages = ("torch", "timm", "SimpleITK", "numpy", "scipy", "scikit-learn", "safetensors")
    return {
        "balaitous": balaitous.__version__,
        "python": platform.python_version(),
        **{package: version(package) for package in packages},
    }


def bundle_facts(bundle: Bundle) -> dict[str, Any]:
    return {
        "name": bundle.name,
        "folder": str(bundle.folder),
        "sha256": bundle.sha256,
        "licence": bundle.licence,
        "intended_use": bundle.intended_use,
        "demonstration": bundle.demonstration,
    }


def set_up_logging(verbose: bool) -> None:
    """Warnings of the library as plain lines on stderr, with ``--verbose`` also what it does."""
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING, stream=sys.stderr, force=True)
    logging.getLogger("balaitous").setLevel(logging.INFO if verbose else logging.WARNING)


@weights_app.command("list")
def list_weights() -> None:
    """Where weights are looked for, in order, and what is there; then what can be fetched."""
    from balaitous.weights.inventory import list_bundles
    from balaitous.weights.registry import PUBLISHED

    for each in list_bundles():
        found = each.bundle
        what = each.problem or "nothing"
        if found:
            what = f"{found.name}, {each.size_bytes / 1e6:.1f} MB, sha256 {found.sha256[:12]}, licence: {found.licence}"
        out.print(f"{'*' if each.in_use else ' '} {each.place}: {each.folder}\n    {what}", markup=False)
    out.print("* is the one in use. To be fetched:")
    for name, published in PUBLISHED.items():
        size = sum(file.size_bytes for file in published.files)
        out.print(f"balaitous weights fetch {name}: about {size / 1e9:.1f} GB", markup=False)
        for file in published.files:
            out.print(f"  {file.name}  {file.url}  {file.licence}; {file.citation}", markup=False)


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
    out.print(f"{bundle} is ready", markup=False)


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
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
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
    from balaitous.weights.bundle import find_bundle
    from balaitous.weights.inventory import verify

    folder = find_bundle(weights)
    checks = verify(folder)
    for check in checks:
        out.print(f"{'ok    ' if check.ok else 'FAILED'} {folder / check.file}", markup=False)
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
    from balaitous.cohort.engines import local_copies
    from balaitous.cohort.scans import list_scans
    from balaitous.severity.quantize import quantize_bundle
    from balaitous.weights.bundle import find_bundle

    with usage_errors():
        folder = quantize_bundle(find_bundle(weights), local_copies(list_scans(paths)))
    out.print(f"wrote {folder}", markup=False)


@weights_app.command("pack")
def pack_weights(
    lung_unet: Annotated[Path, typer.Option(help="U-Net R231: .pth or .safetensors.")],
    encoder_full: Annotated[Path, typer.Option(help="ViT for the whole slice: .pth or .safetensors.")],
    encoder_lung: Annotated[Path, typer.Option(help="ViT for the lung alone: .pth or .safetensors.")],
    heads: Annotated[Path, typer.Option(help="Logistic regressions: .npz, .csv or .safetensors.")],
    folder: Annotated[Path, typer.Option("--out", help="The bundle's folder, new or empty.")],
    dtype: Annotated[str, typer.Option(help="float32 or float16.")] = "float32",
    blocks_full: Annotated[int, typer.Option(help="Blocks of encoder-full that run.")] = 24,
    blocks_lung: Annotated[int, typer.Option(help="Blocks of encoder-lung that run.")] = 16,
) -> None:
    """Make a bundle from files in the published layouts; only the layers that run are stored."""
    from balaitous.weights.pack import pack

    with usage_errors():
        bundle = pack(
            lung_unet,
            encoder_full,
            encoder_lung,
            heads,
            folder,
            dtype=dtype,
            blocks_full=blocks_full,
            blocks_lung=blocks_lung,
        )
    out.print(f"wrote {bundle}", markup=False)
