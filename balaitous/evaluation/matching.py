"""Match predictions with their reference: every patient is once in both, or an error names those who are not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import PurePath

import numpy as np
from numpy.typing import NDArray

from balaitous.errors import InputError, first_few
from balaitous.evaluation.tasks import PATH, Predictions, Question, Reference, Task, questions_of, repeated
from balaitous.models import DEFAULT, MODELS, Model

COUNTS = {1: "one finite number", 2: "two finite numbers"}


class MissingPredictionsError(InputError):
    """Patients of the reference have no prediction, or a failed one."""


class ExtraPredictionsError(InputError):
    """Predictions are of patients that the reference does not have."""


class DuplicatePredictionsError(InputError):
    """A patient has several predictions."""


class InvalidPredictionsError(InputError):
    """A prediction is not a number in [0, 1]."""


def match(predictions: Predictions, reference: Reference, model: Model = MODELS[DEFAULT]) -> dict[str, Task]:
    """The questions, patients in the order of the reference, each among those of whom it is asked.

    Raises
    ------
    InputError : a child of it, as `in_order` says
    """
    return tasks_of(in_order(predictions, reference, model), reference, questions_of(model))


def tasks_of(
    probabilities: Mapping[str, NDArray[np.float64]], reference: Reference, questions: Mapping[str, Question]
) -> dict[str, Task]:
    """The questions that the reference answers, each among those of whom it is asked and known.

    Parameters
    ----------
    probabilities : of each output, as `in_order` gives them
    """
    tasks = {}
    for output, outcome in reference.outcomes.items():
        among = questions[output].among
        asked = np.ones(len(outcome), bool) if among is None else reference.outcomes[among] == 1
        known = asked & np.isfinite(outcome)
        tasks[output] = Task(
            questions[output].title,
            outcome[known] == 1,
            probabilities[output][known],
            groups=None if reference.groups is None else reference.groups[known],
            not_known=int((asked & ~known).sum()),
        )
    return tasks


def in_order(
    predictions: Predictions, reference: Reference, model: Model = MODELS[DEFAULT]
) -> dict[str, NDArray[np.float64]]:
    """The probabilities of each output of a model, patients in the order of the reference.

    Raises
    ------
    DuplicatePredictionsError, ExtraPredictionsError, MissingPredictionsError, InvalidPredictionsError
        If not every patient of the reference has exactly one prediction, a number in [0, 1] for each output.
    """
    if reference.key == PATH:
        predictions = called_as_in(reference, predictions)
    unit = reference.unit
    expected, source = f"one prediction for each of {len(reference.patients)} {unit}", predictions.name
    if twice := repeated([*predictions.patients, *predictions.failed]):
        raise DuplicatePredictionsError(
            f"{source}: expected {expected}, found several for {first_few(twice)}. Keep one of each."
        )
    known = set(reference.patients)
    if extra := [name for name in (*predictions.patients, *predictions.failed) if name not in known]:
        raise ExtraPredictionsError(
            f"{source}: expected {expected}, found some of others: {first_few(extra)}. Remove them, or take the "
            "reference that has them."
        )
    index = {name: position for position, name in enumerate(predictions.patients)}
    if missing := [name for name in reference.patients if name not in index]:
        raise MissingPredictionsError(
            f"{source}: expected {expected}, found none for {first_few(missing)}{why_failed(predictions, missing)}. "
            f"Predict these as well: an evaluation that leaves {unit} out cannot be compared."
        )
    order = [index[name] for name in reference.patients]
    ordered = {output: predictions.probabilities[output][order] for output in model.outputs}
    valid = np.all([(each >= 0) & (each <= 1) for each in ordered.values()], axis=0)  # NaN is neither
    if not valid.all():
        wrong = [name for name, good in zip(reference.patients, valid, strict=True) if not good]
        first = int(np.argmin(valid))
        shown = [f"{ordered[output][first]:g} ({title})" for output, title in model.outputs.items()]
        count = COUNTS.get(len(shown), f"{len(shown)} finite numbers")
        raise InvalidPredictionsError(
            f"{source}: expected {count} in [0, 1] for every {unit[:-1]}, found others for {first_few(wrong)}, "
            f"such as {' and '.join(shown)}. Predict these again."
        )
    return ordered


def called_as_in(reference: Reference, predictions: Predictions) -> Predictions:
    """Predictions by the paths of the reference, each the end of a predicted one; a path that none fits stays."""
    ends = {PurePath(name).parts: name for name in reference.patients}

    def called(path: str) -> str:
        parts = PurePath(path).parts
        return next((ends[parts[start:]] for start in range(len(parts)) if parts[start:] in ends), path)

    failed = {called(path): reason for path, reason in predictions.failed.items()}
    return replace(predictions, patients=[called(path) for path in predictions.patients], failed=failed)


def why_failed(predictions: Predictions, missing: Sequence[str]) -> str:
    """How many of the missing ones failed, and why the first did."""
    failed = [name for name in missing if name in predictions.failed]
    if not failed:
        return ""
    return f" ({len(failed)} failed; {failed[0]}: {predictions.failed[failed[0]].rstrip('.')})"
