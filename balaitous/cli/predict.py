"""``balaitous predict``: scans in, a table out."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table

from balaitous.cli.console import (
    EXIT_SOME_FAILED,
    Age,
    Device,
    Interrupted,
    Precision,
    Sex,
    Verbose,
    Weights,
    err,
    fail,
    note_use,
    out,
    outcome_line,
    scan_progress,
    set_up_logging,
    show_summary,
    usage_errors,
)
from balaitous.cli.info import bundle_facts
from balaitous.errors import exit_code_of
from balaitous.files import is_json_with, write_whole
from balaitous.models import DEFAULT, MODELS, Model, Settings, find_model
from balaitous.provenance import versions

if TYPE_CHECKING:
    from balaitous.cohort.engines import Engine
    from balaitous.cohort.items import Item
    from balaitous.cohort.run import Run
    from balaitous.cohort.table import Row
    from balaitous.weights.bundle import Bundle

MODEL_HELP = "; ".join(f"{model.name}: {model.title}" for model in MODELS.values()) + "."
ENGINES = ("local", "ray")
REPORT_KEYS = ("started", "finished", "model", "summary", "scans")  # what an earlier report is known by
SHOWN_ROWS = 100  # of a table that is in a file as well


def predict(
    paths: Annotated[
        list[str],
        typer.Argument(
            help="Image files, DICOM folders or zips, folders of scans, .csv with path[,age,sex]; addresses such as "
            "s3://bucket/scans too."
        ),
    ],
    model_name: Annotated[str, typer.Option("--model", help=MODEL_HELP)] = DEFAULT,
    age: Age = None,
    sex: Sex = None,
    series: Annotated[str | None, typer.Option(help="SeriesInstanceUID, of a DICOM folder with several.")] = None,
    weights: Weights = None,
    device: Device = "auto",
    precision: Precision = "auto",
    calibrated: Annotated[
        bool, typer.Option("--calibrated", help="Apply the calibration of a bundle that `weights calibrate` made.")
    ] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Refuse scans that a quality check warns of, instead of saying so.")
    ] = False,
    table_path: Annotated[
        Path | None,
        typer.Option(
            "--out",
            help="Table to write: .csv, .parquet or .json. A row is on disk as soon as its scan is done. One that "
            "holds predicted scans is never overwritten: add --resume, or remove it.",
        ),
    ] = None,
    save: Annotated[
        Path | None,
        typer.Option(
            help="Folder for what the model can show: a folder an item, with index.html and pictures, and an "
            "index.html of all.",
        ),
    ] = None,
    compare: Annotated[
        str | None,
        typer.Option(help="A second bundle's name or folder; its maps stand beside in what --save writes."),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Go on with the table of --out: skip scans that are done (known by their content, wherever they lie; "
            "addresses by their name; with --save, only if their folder is whole), try failed ones again.",
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
    """Predict scans or pictures, one row each."""
    set_up_logging(verbose)
    from balaitous.cohort.addresses import is_url
    from balaitous.cohort.groups import check_group_table, group_columns, group_table, write_group_table
    from balaitous.cohort.growing import ItemTable
    from balaitous.cohort.items import list_items
    from balaitous.cohort.local import first_reader
    from balaitous.cohort.run import Run, same_request_of
    from balaitous.cohort.saving import SavedFolders
    from balaitous.cohort.table import columns_of
    from balaitous.locks import Lock
    from balaitous.weights.bundle import open_bundle
    from balaitous.weights.search import find_bundle

    started = datetime.now(UTC)
    settings = Settings(weights, device, precision, calibrated, strict)
    with usage_errors():
        model = find_model(model_name)
        check_patient(age, sex)
        given = check_given(model, {"age": age, "sex": sex, "series": series})
        check_run_options(table_path, resume, engine, address, report_path)
        check_save_options(save, compare, model, engine)
        table = ItemTable(table_path, columns_of(model), resume) if table_path else None
        report_lock = Lock(report_path) if report_path else nullcontext()
    items = list_items(paths, model, given)
    with usage_errors():
        grouped = table_path is not None and any(item.group for item in items)
        groups_path = group_table(table_path, model) if table_path and grouped else None
        written = {"--out": table_path, "--report": report_path, "the second table of --out": groups_path}
        check_apart(written, paths, items)
        if groups_path:
            check_group_table(groups_path, group_columns(model), resume)
        compared = open_bundle(find_bundle(compare, model)) if compare else None
        folders = None
        if save:
            read = [each for each in (*paths, *(item.path for item in items)) if not is_url(each)]
            folders = SavedFolders(save, model, resume, compared.sha256 if compared else None, written.values(), read)
        readers = first_reader(model) if engine == "local" else None
        from balaitous.cohort.engines import local_engine, ray_engine  # brings PyTorch, while the process starts

        if engine == "ray":
            chosen = ray_engine(model, settings, items, workers, address)
        else:
            chosen = local_engine(model, settings, items, workers, readers, saves=save is not None, compare=compare)
        note_use(chosen.bundle)
        if compared:
            err.print(f"Compared with '{compared.name}' ({compared.sha256[:12]}).")
        if table and table.done:
            err.print(f"{table.path}: {len(table.done)} scans are done; looking for them…")
        same = same_request_of(model)
        run = Run(items, table, chosen.made_by, folders.and_whole(same) if folders else same, strict)
        rows: Any = chosen.predict(folders.assign(items, run) if folders else run.todo)

    try:
        with closing(rows), scan_progress(run) as advance:
            for row in rows:
                run.add(row)
                advance(outcome_line(row, model, single=len(items) == 1))
    except KeyboardInterrupt:
        goes_on = f"; their rows are in {table.path}, --resume goes on from there" if table else ""
        raise Interrupted(f"interrupted after {run.skipped + run.added} of {len(items)} scans{goes_on}.") from None
    finally:  # also when interrupted: nothing that was computed is lost
        done = run.finish()
        page = folders.finish([*done, *run.others]) if folders else None
        with report_lock:
            if report_path:
                write_report(report_path, model, chosen, run, started, compared)
    show_rows(done[:SHOWN_ROWS] if table else done, model)
    if table:
        others = f", {len(run.others)} of them of other scans that were there" if run.others else ""
        out.print(f"wrote {table.path} ({len(done) + len(run.others)} rows{others})")
    if groups_path:
        out.print(f"wrote {groups_path} ({write_group_table(groups_path, items, done, model)} rows)")
    if page:
        out.print(f"wrote {page}")
    failed = [row for row in done if row["status"] == "failed"]
    if len(items) > 1:
        show_summary(run.summary())
    elif failed:
        fail(failed[0]["error"], exit_code_of(failed[0]["error_kind"]))
    if failed:
        fail(f"{len(failed)} of {len(items)} scans failed, the others are done; see column 'error'.", EXIT_SOME_FAILED)


def check_run_options(
    table_path: Path | None, resume: bool, engine: str, address: str | None, report_path: Path | None
) -> None:
    """Raise ValueError for options that make no sense, before hours of work rest on them."""
    from balaitous.cohort.table import check_table_path

    if report_path:
        check_table_path(report_path, "--report", [".json"])
        if table_path and report_path.resolve() == table_path.resolve():
            raise ValueError(f"--report and --out must be two files. Got {report_path.name!r} for both.")
        if report_path.exists() and report_path.stat().st_size and not is_json_with(report_path, REPORT_KEYS):
            raise ValueError(
                f"{report_path} is there already: expected the report of an earlier run, found another file. Choose "
                "another name for --report, or remove it."
            )
    if resume and not table_path:
        raise ValueError("--resume needs --out, the table to go on with. Got none.")
    if engine not in ENGINES:
        raise ValueError(f"--engine must be one of {', '.join(ENGINES)}. Got {engine!r} instead.")
    if address and engine != "ray":
        raise ValueError(f"--address is for --engine ray. Got --engine {engine} instead.")


def check_save_options(save: Path | None, compare: str | None, model: Model, engine: str) -> None:
    """Raise ValueError for options of what is shown that make no sense."""
    if save and not model.saving:
        able = ", ".join(each.name for each in MODELS.values() if each.saving)
        raise ValueError(
            f"--save is not for the model {model.name}, which shows nothing yet. Leave it out; of: {able}."
        )
    if save and engine == "ray":
        raise ValueError("--save is for --engine local: workers of a cluster have folders of their own. Leave one out.")
    if compare and not save:
        raise ValueError("--compare needs --save, the folder for the maps. Got none.")


def check_apart(written: Mapping[str, Path | None], paths: Sequence[str], items: Sequence[Item]) -> None:
    """Raise ValueError for an option that would write over an input, or make a side-car of one, whatever it is called.

    Parameters
    ----------
    written : paths by option
    paths, items : of the command line, and what they stand for
    """
    from balaitous.cohort.addresses import is_url

    read = {Path(each).resolve() for each in (*paths, *(item.path for item in items)) if not is_url(each)}
    sidecars = {
        Path(item.path).absolute().with_name(f"{item.name}.json").resolve() for item in items if not is_url(item.path)
    }
    for option, path in written.items():
        if path and path.resolve() in read:
            raise ValueError(f"{option} must be another file than what is read. Got {path}: choose another name.")
        if path and path.resolve() in sidecars:
            raise ValueError(
                f"{option} must not be named as a scan beside it: the next run would take it for the scan's side-car. "
                f"Got {path}: choose another name."
            )


def check_given(model: Model, facts: Mapping[str, Any]) -> dict[str, Any]:
    """The facts that are given; ValueError for one that the model does not take."""
    given = {name: value for name, value in facts.items() if value is not None}
    if unknown := [name for name in given if name not in model.given]:
        takes = f"takes --{', --'.join(model.given)}" if model.given else "takes no such facts"
        raise ValueError(f"--{unknown[0]} is not for the model {model.name}, which {takes}. Leave it out.")
    return given


def check_patient(age: float | None, sex: str | None) -> None:
    """Raise ValueError for an age or sex that no patient has, before anything is loaded."""
    from balaitous.reading.patient import Patient, resolve

    resolve(Patient(), age=age, sex=sex)


def show_rows(rows: Sequence[Row], model: Model) -> None:
    """The table, as much of it as a person reads."""
    table = Table("PatientID", *model.outputs.values(), *model.shown, "quality", "s", "status", box=SIMPLE_HEAD)
    for row in rows:
        if row["status"] == "ok":
            probabilities = [f"{row[f'probability_{name}']:.3f}" for name in model.outputs]
            facts = [form.format_map(row) for form in model.shown.values()]
            table.add_row(
                row["PatientID"], *probabilities, *facts, row["quality"] or "–", f"{row['seconds']:.1f}", "ok"
            )
        else:
            nothing = ["–"] * (len(model.outputs) + len(model.shown))
            table.add_row(row["PatientID"], *nothing, row["quality"] or "–", "–", "failed")
    out.print(table)


def write_report(
    path: Path, model: Model, engine: Engine, run: Run, started: datetime, compared: Bundle | None
) -> None:
    """Everything that is needed to repeat a run, and what came of it."""
    report = {
        "started": started.isoformat(timespec="seconds"),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(run.last - run.began, 3),  # of a clock that is never set
        "model": model.name,
        "bundle": bundle_facts(engine.bundle),
        "compared_with": bundle_facts(compared) if compared else None,
        "device": engine.device,
        "precision": engine.precision,
        "calibration": engine.calibration,
        **engine.hardware,
        "seed": None,  # nothing is drawn at random
        "versions": versions(),
        "summary": run.summary(),
        "scans": [report_of(row, model) for row in run.rows if row],
    }
    write_whole(path, (json.dumps(report, indent=1) + "\n").encode())


def report_of(row: Row, model: Model) -> dict[str, Any]:
    """A row with its quality checks spelled out."""
    from balaitous.cohort.table import checks_of

    told = {name: value for name, value in row.items() if name != "quality_values"}
    return told | {"checks": [asdict(check) for check in checks_of(row, model)]}
