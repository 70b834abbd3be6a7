"""What jobs of a Grand Challenge submission answered: folders of their outputs, and the platform's list of them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from balaitous.container.answers import PROBABILITY_FILES, RESULTS_FILE
from balaitous.errors import InputError
from balaitous.evaluation.tables import EXPECTED, PROBABILITIES, TABLE_ENDINGS, read_json, read_table
from balaitous.evaluation.tasks import PATIENT, Predictions, predictions_of
from balaitous.models import DEFAULT, Model
from balaitous.reading.headers import scan_name

SUBMISSION_FILE = "predictions.json"
SUCCEEDED = "Succeeded"  # status of a job, in the platform's words
OTHERS = f"or a folder of Grand Challenge outputs, or {SUBMISSION_FILE}."


def read_predictions_of(model: Model, path: Path, key: str = PATIENT) -> Predictions:
    """Predictions of a model: of severity in whatever form, of the others as a table.

    Parameters
    ----------
    key : the column with the names

    Raises
    ------
    InputError : it is missing, or none of these
    """
    return read_predictions(path) if model.name == DEFAULT else read_table(path, model.outputs, key)


def read_predictions(path: Path) -> Predictions:
    """Read predictions, whatever form they have.

    Parameters
    ----------
    path : a table of `predict` (or any with ``PatientID``, ``probability_covid`` and ``probability_severe``);
        a folder of outputs (one job's, or a sub-folder for each); ``predictions.json`` of an evaluation container,
        beside the folders of its jobs, or that folder

    Raises
    ------
    InputError : it is missing, or none of these
    """
    if path.is_dir():
        return read_submission(path / SUBMISSION_FILE) if (path / SUBMISSION_FILE).exists() else read_outputs(path)
    if path.suffix.lower() == ".json" and is_submission(read_json(path)):
        return read_submission(path)
    if path.suffix.lower() not in TABLE_ENDINGS:
        raise InputError(f"{path}: cannot be read as predictions. {EXPECTED}; {OTHERS}")
    return read_table(path)


def read_outputs(folder: Path) -> Predictions:
    """Predictions of a folder of outputs: one job's, or a sub-folder for each job, with or without ``output`` in it.

    A scan is called as the user called it, where ``results.json`` tells; else as its file; else as the job's folder.

    Raises
    ------
    InputError : there are no outputs, or a job's do not belong together
    """
    rows: list[tuple[str, Any, Any]] = []
    failed: dict[str, str] = {}
    jobs = list(jobs_in(folder))
    if not jobs:
        raise InputError(f"{folder}: no {', '.join(PROBABILITY_FILES)} in it or its sub-folders. {EXPECTED}; {OTHERS}")
    for name, job in jobs:
        names, failures = names_in_results(job)
        failed |= failures
        pair = [read_probability(job, key) for key in PROBABILITIES]
        if all(isinstance(value, dict) for value in pair):
            covid, severe = pair
            if covid.keys() != severe.keys():
                raise InputError(
                    f"{job}: expected both probabilities of every scan, found one alone of "
                    f"{', '.join(sorted(covid.keys() ^ severe.keys()))}. Run this job again."
                )
            rows += [(names.get(file, scan_name(file)), covid[file], severe[file]) for file in covid]
        elif pair != [None, None]:  # nothing but results.json: its only scan failed
            rows.append((next(iter(names.values()), name), *pair))
    return predictions_of(rows, str(folder), failed=failed)


def jobs_in(folder: Path) -> Iterator[tuple[str, Path]]:
    """(name, folder with outputs) of each job in a folder, by name; the folder itself may be the only one."""
    if holds_outputs(folder):
        yield folder.name, folder
        return
    for each in sorted(path for path in folder.iterdir() if path.is_dir()):
        for place in (each, each / "output"):
            if holds_outputs(place):
                yield each.name, place


def holds_outputs(folder: Path) -> bool:
    """Whether a folder has an answer of the container in it."""
    return any((folder / name).is_file() for name in (*PROBABILITY_FILES, RESULTS_FILE))


def names_in_results(job: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Names of a job's predicted scans by file, and why the others failed, by name. Only our container tells."""
    if not (job / RESULTS_FILE).exists():
        return {}, {}
    names, failed = {}, {}
    try:
        for case in read_json(job / RESULTS_FILE)["cases"]:
            name = scan_name(case.get("image_name") or case["file"])
            if case["status"] == "ok":
                names[case["file"]] = name
            else:
                failed[name] = str(case["error"])
    except (TypeError, KeyError, AttributeError):
        raise InputError(f"{job / RESULTS_FILE}: expected cases with file and status, found other content.") from None
    return names, failed


def read_probability(job: Path, key: str) -> Any:
    """What a job says of one question: a number, or {file: number}; None if it says nothing."""
    paths = [job / name for name, each in PROBABILITY_FILES.items() if each == key]
    return next((read_json(path) for path in paths if path.is_file()), None)


def is_submission(content: Any) -> bool:
    """Whether the content of a JSON file is a list of the platform's jobs."""
    return isinstance(content, list) and any(isinstance(job, dict) and "outputs" in job for job in content)


def read_submission(path: Path) -> Predictions:
    """Predictions of a list of jobs, whose outputs lie in ``<pk>/output/`` beside it; scans as their users called them.

    Raises
    ------
    InputError : it is missing, or not such a list, or a job does not say which image it is of
    """
    rows: list[tuple[str, Any, Any]] = []
    failed: dict[str, str] = {}
    jobs = read_json(path)
    if not is_submission(jobs):
        raise InputError(f"{path}: expected a list of jobs with pk, inputs, outputs and status, found other content.")
    for job in jobs:
        try:
            images = [item["image"]["name"] for item in job["inputs"] if item.get("image")]
            outputs = {socket_of(item)["slug"]: item for item in job["outputs"]}
            folder = path.parent / str(job["pk"]) / "output"
        except (TypeError, KeyError, AttributeError) as error:
            raise InputError(f"{path}: a job has no {error}; expected pk, inputs, outputs and status.") from None
        if Path(str(job["pk"])).name != str(job["pk"]) or str(job["pk"]) in ("", ".."):
            raise InputError(f"{path}: expected the name of a job's folder as pk, found {str(job['pk'])[:80]!r}.")
        if len(images) != 1 or not isinstance(images[0], str):
            raise InputError(f"{path}: job {job['pk']}: expected one image with its name, found {images}.")
        name = scan_name(images[0])
        if job.get("status", SUCCEEDED) != SUCCEEDED:
            failed[name] = f"job {job['pk']} is {job['status']}"
            continue
        pair = [output_value(outputs, folder, key) for key in PROBABILITIES]
        if None in pair:
            failed[name] = f"job {job['pk']} has no {PROBABILITIES[pair.index(None)]} among its outputs"
        else:
            rows.append((name, *pair))
    return predictions_of(rows, str(path), failed=failed)


def socket_of(item: Mapping[str, Any]) -> Mapping[str, Any]:
    """Of an input or output, what it is; the platform renamed the key in 2026."""
    return item.get("socket") or item["interface"]


def output_value(outputs: Mapping[str, Mapping[str, Any]], folder: Path, key: str) -> Any:
    """What a job says of one question: in its file, else in the list of jobs itself; None if it says nothing."""
    slugs = [Path(name).stem for name, each in PROBABILITY_FILES.items() if each == key]
    output = next((outputs[slug] for slug in slugs if slug in outputs), None)
    if output is None:
        return None
    relative = os.path.normpath(str(socket_of(output).get("relative_path")))
    if os.path.isabs(relative) or relative.startswith(".."):
        raise InputError(f"{folder}: expected a file in it as {slugs[0]}, found {relative[:80]!r}. Correct its path.")
    file = folder / relative
    return read_json(file) if file.is_file() else output.get("value")
