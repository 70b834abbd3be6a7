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

import json
import logging
import os
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import balaitous
from balaitous.ct.patient import Patient, resolve
from balaitous.errors import BalaitousError, InputError, explain

if TYPE_CHECKING:
    from balaitous.severity.pipeline import Balaitous, Prediction

log = logging.getLogger(__name__)

SCANS_FOLDER = "images/ct"
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
    path : the file, or the DICOM folder
    file : its name in the answers: the path inside the folder of scans
    image_name : the user's own name for it, where ``inputs.json`` tells
    age_years, sex : of the patient, where ``inputs.json`` tells; sex is 1 male, 0 female, 0.5 unknown
    """

    path: Path
    file: str
    image_name: str | None = None
    age_years: float | None = None
    sex: float | None = None


def find_cases(input_dir: Path) -> list[Case]:
    """The scans of a job, sorted by name.

    Parameters
    ----------
    input_dir : with ``images/ct``, the ``.mha`` files there; else any folder of scans, as the command takes it

    Raises
    ------
    InputError : if there is no scan, or ``inputs.json`` tells an age or sex that makes no sense
    """
    folder = input_dir / SCANS_FOLDER
    if folder.is_dir():
        paths = sorted(path for path in folder.iterdir() if path.suffix.lower() == ".mha" and path.name[0] != ".")
        if not paths:
            raise InputError(f"expected .mha files in {folder}, found none: check what is mounted there")
    else:
        from balaitous.cohort.scans import list_scans  # brings pandas, which a job does not need

        folder = input_dir
        paths = [Path(scan.path) for scan in list_scans([folder])]
    files = [str(path.relative_to(folder)) if path != folder else folder.name for path in paths]
    if len(paths) == 1:
        return [describe_case(paths[0], files[0], input_dir)]
    return [Case(path, file) for path, file in zip(paths, files, strict=True)]


def describe_case(path: Path, file: str, input_dir: Path) -> Case:
    """The only scan of a job, with what ``inputs.json`` tells of it."""
    image_name = age = sex = None
    try:
        for item in read_inputs(input_dir / "inputs.json"):
            socket = item.get("socket") or item.get("interface") or {}  # the platform renamed it in 2026
            words = str(socket.get("slug")).split("-")
            if item.get("image"):
                image_name = item["image"].get("name")
            elif "age" in words:
                age = socket_value(item, socket, input_dir)
            elif "sex" in words:
                sex = socket_value(item, socket, input_dir)
        told = resolve(Patient(), age, sex)
    except ValueError as error:
        raise InputError(f"an input of this job besides the scan: {error}") from None
    return Case(
        path,
        file,
        image_name,
        age_years=None if age is None else told.age_years,
        sex=None if sex is None else told.sex,
    )


def read_inputs(path: Path) -> list[dict[str, Any]]:
    """The items of ``inputs.json``; none where it is missing, or (with a warning) where it is something else."""
    if not path.exists():
        return []
    try:
        return [dict(item) for item in json.loads(path.read_bytes())]
    except (TypeError, ValueError) as error:
        log.warning("inputs.json is ignored: expected a JSON list of objects (%s)", error)
        return []


def socket_value(item: dict[str, Any], socket: dict[str, Any], input_dir: Path) -> Any:
    """The value of an input that is no image, in the item itself or in a JSON file of its own; None if it has none."""
    path = input_dir / str(socket.get("relative_path"))
    if item.get("value") is None and path.is_file():
        return json.loads(path.read_bytes())
    return item.get("value")


def open_output(output_dir: Path) -> None:
    """Make the output folder, and clear it of an earlier job's answers: the first write, before minutes of work."""
    output_dir.mkdir(parents=True, exist_ok=True)
    for name in PROBABILITY_FILES:
        (output_dir / name).unlink(missing_ok=True)
    write_answers([], output_dir, several=False)


def predict_cases(model: Balaitous, cases: Sequence[Case], output_dir: Path) -> int:
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
        try:
            prediction = predict_case(model, case)
        except Exception as error:
            log.info("%d/%d %s: failed", number, len(cases), case.file)
            exit_code = report(error)
            results.append(facts | {"status": "failed", "error": explain(error)})
        else:
            log.info("%d/%d %s: %s", number, len(cases), case.file, summary(prediction))
            results.append(facts | {"status": "ok", "error": None} | prediction.to_dict())
        write_answers(results, output_dir, several)
    failed = [result["file"] for result in results if result["status"] == "failed"]
    if failed and several:
        exit_code = report(
            SomeCasesFailed(f"{len(failed)} of {len(cases)} scans failed (why: {RESULTS_FILE}): {', '.join(failed)}")
        )
    written = [name for name in (*PROBABILITY_FILES, RESULTS_FILE) if (output_dir / name).exists()]
    log.info("written to %s: %s", output_dir, ", ".join(written))
    return exit_code


def predict_case(model: Balaitous, case: Case) -> Prediction:
    """The prediction for one case, with both probabilities in [0, 1]."""
    prediction = model.predict(case.path, age=case.age_years, sex=case.sex)
    for name in ("probability_covid", "probability_severe"):
        value = getattr(prediction, name)
        if not 0 <= value <= 1:  # NaN is not either
            raise BalaitousError(f"expected {name} in [0, 1], found {value}: try precision fp32, or other weights")
    return prediction


def summary(prediction: Prediction) -> str:
    """One line for the log."""
    patient = prediction.patient
    return (
        f"COVID-19 {prediction.probability_covid:.3f}, severe outcome {prediction.probability_severe:.3f}; "
        f"age {patient.age_years:g} ({patient.age_source}), sex {patient.sex:g} ({patient.sex_source}); "
        f"{sum(prediction.seconds.values()):.1f} s"
    )


def write_answers(results: Sequence[dict[str, Any]], output_dir: Path, several: bool) -> None:
    """Write ``results.json`` and, if any case succeeded, the probability files."""
    done = [result for result in results if result["status"] == "ok"]
    for name, key in PROBABILITY_FILES.items():
        if done:
            write_json(output_dir / name, {result["file"]: result[key] for result in done} if several else done[0][key])
    write_json(output_dir / RESULTS_FILE, {"version": balaitous.__version__, "cases": results})


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file at once: nobody ever sees half of it."""
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("w", encoding="utf-8") as file:
        json.dump(content, file, indent=2, allow_nan=False)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def report(error: Exception) -> int:
    """Print one ``ERROR:`` line on stderr, below the traceback if nobody expected this error; returns the exit code."""
    if not isinstance(error, BalaitousError | MemoryError | OSError):
        traceback.print_exception(error)
    print(f"ERROR: {explain(error)}", file=sys.stderr, flush=True)
    return EXIT_FILES if isinstance(error, OSError) else getattr(error, "exit_code", EXIT_UNEXPECTED)
