"""The files of a Grand Challenge job: the scans and facts it brings, the answers it must leave.

====================================  ================================================================================
``images/ct/<uuid>.mha``              the scan; offline evaluation puts several there
``inputs.json``                       optional: the user's own file name, and age and sex where the job has such inputs
``probability-covid.json``, …         one scan: a bare number in [0, 1]; several: {file name: number}
``results.json``                      every scan with its facts and provenance, or with its error
====================================  ================================================================================

The platform calls the two probabilities ``probability-covid-19`` and ``probability-severe-covid-19``, the users of the
2021 challenge called them without the 19. Both pairs are written: the platform ignores files that are not declared.
"""

from __future__ import annotations

import io
import json
import logging
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import balaitous
from balaitous.checks import verdict
from balaitous.cohort.local import outcome_of
from balaitous.container.inputs import INPUTS_FILE, SCANS_FOLDER, JobInputs, read_inputs
from balaitous.errors import BalaitousError, InputError, explain
from balaitous.files import remove_partials, write_together, write_whole
from balaitous.models import MODELS
from balaitous.reading.integrity import check_inside
from balaitous.text import PlainFormatter

if TYPE_CHECKING:
    from balaitous.cohort.items import Item
    from balaitous.severity.pipeline import Balaitous, Prediction

log = logging.getLogger(__name__)

MODEL = MODELS["severity"]
PROBABILITY_FILES = {
    "probability-covid.json": "probability_covid",
    "probability-covid-19.json": "probability_covid",
    "probability-severe-covid.json": "probability_severe",
    "probability-severe-covid-19.json": "probability_severe",
}
RESULTS_FILE = "results.json"
EXIT_UNEXPECTED = 1
EXIT_FILES = 3


class SomeCasesFailed(BalaitousError):
    """Some of several cases could not be predicted; the others are written."""

    exit_code = 5


@dataclass(frozen=True)
class Case:
    """One scan of a job.

    Attributes
    ----------
    item : the file or DICOM folder, with age and sex where ``inputs.json`` tells them
    file : its name in the answers: the path inside the folder of scans
    image_name : the user's own name for it, where ``inputs.json`` tells
    """

    item: Item
    file: str
    image_name: str | None = None


def find_cases(input_dir: Path) -> list[Case]:
    """The scans of a job, sorted by name.

    Parameters
    ----------
    input_dir : with ``images/ct``, the ``.mha`` files there; else any folder of scans, as the command takes it

    Raises
    ------
    InputError : if there is no scan, one links out of `input_dir`, or ``inputs.json`` is not what `read_inputs` expects
    """
    from balaitous.cohort.items import Item, list_items  # brings what reads DICOM, while the reading process starts

    folder = input_dir / SCANS_FOLDER
    if folder.is_dir():
        paths = sorted(path for path in folder.iterdir() if path.suffix.lower() == ".mha" and path.name[0] != ".")
        if not paths:
            raise InputError(f"expected .mha files in {folder}, found none: check what is mounted there")
        for path in paths:
            check_inside(path, input_dir)
    else:
        folder = input_dir
        paths = [Path(item.path) for item in list_items([folder], MODEL)]
    files = [str(path.relative_to(folder)) if path != folder else folder.name for path in paths]
    told = JobInputs()
    if len(paths) == 1:
        told = read_inputs(input_dir)
    elif (input_dir / INPUTS_FILE).exists():
        log.warning("%s is left out: it describes one scan, and there are %d", INPUTS_FILE, len(paths))
    facts = {"age": told.age_years, "sex": told.sex}
    given = {name: value for name, value in facts.items() if value is not None}
    return [Case(Item(path, given), file, told.image_name) for path, file in zip(paths, files, strict=True)]


def run_job(
    load_model: Callable[[], Balaitous], input_dir: Path, output_dir: Path, reader: Executor | None = None
) -> int:
    """Run one job, from the scans in one folder to the answers in another, and return its exit code.

    Parameters
    ----------
    load_model : called once a job turned out to have a scan: loading takes seconds
    input_dir, output_dir : as `find_cases` and `open_output` take them
    reader : where scans are read, so that one which ends the process ends no more than that; None: here

    Raises
    ------
    InputError, OSError : before anything was predicted, or because an answer cannot be written
    """
    open_output(output_dir)
    cases = find_cases(input_dir)
    return predict_cases(load_model(), cases, output_dir, reader)


def load_model() -> Balaitous:
    """The model, with the weights that are found first."""
    from balaitous import Balaitous  # brings torch, which a job without a scan should not wait for

    return Balaitous()


def open_output(output_dir: Path) -> None:
    """Make the output folder, and clear it of an earlier job's answers: the first write, before minutes of work."""
    output_dir.mkdir(parents=True, exist_ok=True)
    for name in (RESULTS_FILE, *PROBABILITY_FILES):  # the file that vouches for the others goes first
        (output_dir / name).unlink(missing_ok=True)
        remove_partials(output_dir / name)  # of a job that was killed
    write_answers([], output_dir, several=False)


def predict_cases(model: Balaitous, cases: Sequence[Case], output_dir: Path, reader: Executor | None = None) -> int:
    """Predict every case and write the answers after each: a job that is cut short leaves what it had.

    Returns
    -------
    exit code : 0; that of the error if the only case failed; that of `SomeCasesFailed` if any of several did
    """
    log.info("device %s, precision %s, %d scan(s)", model.device, model.precision, len(cases))
    several = len(cases) > 1
    exit_code = 0
    results: list[dict[str, Any]] = []
    for number, case in enumerate(cases, start=1):
        facts = {"file": case.file, "image_name": case.image_name}
        outcome = outcome_of(model, case.item, executor=reader)
        if isinstance(outcome, Exception):
            log.info("%d/%d %s: failed", number, len(cases), case.file)
            exit_code = report(outcome)
            checks = verdict(getattr(outcome, "checks", ()))
            results.append(facts | {"status": "failed", "error": explain(outcome)} | checks)
        else:
            log.info("%d/%d %s: %s", number, len(cases), case.file, summary(outcome))
            for check in outcome.checks:
                if check.status != "ok":
                    log.info("  check: %s", check.message)
            results.append(facts | {"status": "ok", "error": None} | outcome.to_dict())
        write_answers(results, output_dir, several)
    failed = [result["file"] for result in results if result["status"] == "failed"]
    if failed and several:
        exit_code = report(
            SomeCasesFailed(f"{len(failed)} of {len(cases)} scans failed (why: {RESULTS_FILE}): {', '.join(failed)}")
        )
    written = [name for name in (*PROBABILITY_FILES, RESULTS_FILE) if (output_dir / name).exists()]
    log.info("written to %s: %s", output_dir, ", ".join(written))
    return exit_code


def summary(prediction: Prediction) -> str:
    """One line for the log."""
    patient = prediction.patient
    return (
        f"COVID-19 {prediction.probability_covid:.3f}, severe outcome {prediction.probability_severe:.3f}; "
        f"age {patient.age_years:g} ({patient.age_source}), sex {patient.sex:g} ({patient.sex_source}); "
        f"{sum(prediction.seconds.values()):.1f} s"
    )


def write_answers(results: Sequence[dict[str, Any]], output_dir: Path, several: bool) -> None:
    """Write ``results.json`` and, if any case succeeded, the probability files: all of them, or none.

    ``results.json`` is the last to appear: whatever cuts the job short, a case that it calls ok is in every other file.
    """
    done = [result for result in results if result["status"] == "ok"]
    answers: dict[str, Any] = {}
    for name, key in PROBABILITY_FILES.items():
        if done:
            answers[name] = {result["file"]: result[key] for result in done} if several else done[0][key]
    answers[RESULTS_FILE] = {"version": balaitous.__version__, "cases": results}
    write_together({output_dir / name: as_json(content) for name, content in answers.items()})


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file at once: nobody ever sees half of it."""
    write_whole(path, as_json(content))


def as_json(content: Any) -> bytes:
    """JSON as the platform's schema takes it: NaN is none.

    Raises
    ------
    ValueError : a number is not finite
    """
    return (json.dumps(content, indent=2, allow_nan=False) + "\n").encode()


def log_to_stdout() -> None:
    """Facts go to stdout: Grand Challenge shows stderr as warnings, and its last line as the reason of a failure."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # file names may be no text
    logging.raiseExceptions = False  # a log that nobody reads, or that is full, is no failure of the job
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(PlainFormatter("%(message)s"))
    logging.basicConfig(handlers=[handler])
    logging.getLogger("balaitous").setLevel(logging.INFO)


def flush_log() -> None:
    """Write what is left of the log, or drop it: Python would try at its end, and a full log fail a job that worked."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def report(error: Exception) -> int:
    """Print one ``ERROR:`` line on stderr, below the traceback if nobody expected this error; returns the exit code."""
    if not isinstance(error, BalaitousError | MemoryError | OSError):
        traceback.print_exception(error)
    print(f"ERROR: {explain(error)}", file=sys.stderr, flush=True)
    return EXIT_FILES if isinstance(error, OSError) else getattr(error, "exit_code", EXIT_UNEXPECTED)
