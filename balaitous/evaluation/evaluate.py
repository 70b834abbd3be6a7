"""An evaluation: what is measured of predictions on every task, of one model or of two that are compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from balaitous.evaluation.auc import Difference, compare
from balaitous.evaluation.figures import format_estimate
from balaitous.evaluation.matching import in_order, match, tasks_of
from balaitous.evaluation.metrics import THRESHOLDS, Evaluated, best_threshold, measure
from balaitous.evaluation.resampling import BOOTSTRAPS, Estimate
from balaitous.evaluation.scores import classes_of, compare_scores, findings_of
from balaitous.evaluation.tasks import Predictions, Reference, questions_of
from balaitous.models import DEFAULT, MODELS, Model

MOST_BOOTSTRAPS = 1_000_000  # each takes a ROC curve of every patient
MOST_SEED = 2**32 - 1  # of every library that draws


@dataclass(frozen=True)
class Evaluation:
    """What was found.

    Attributes
    ----------
    models : one, or the two that are compared, on the same patients
    differences : first minus second, by task; None where a class is absent; empty of a single model
    bootstraps, seed : of the bootstrap
    groups : how many the bootstrap draws from, whole; None: it draws patients
    unit : what is counted: "patients" or "items"
    other_differences : first minus second of the measures besides the area, by task, where there are groups
    threshold : from which on these call positive
    first : (items,) whether the model's first output is true, NaN where not known; None where there are no groups
    """

    models: tuple[Evaluated, ...]
    differences: Mapping[str, Difference | None]
    bootstraps: int
    seed: int
    groups: int | None = None
    unit: str = "patients"
    other_differences: Mapping[str, Mapping[str, Estimate]] = field(default_factory=dict)
    threshold: float = THRESHOLDS[0]
    first: NDArray[np.float64] | None = None


def evaluate(
    predictions: Predictions,
    reference: Reference,
    other: Predictions | None = None,
    *,
    model: Model = MODELS[DEFAULT],
    thresholds: Sequence[float] = THRESHOLDS,
    validated: Mapping[str, float] | None = None,
    bootstraps: int = BOOTSTRAPS,
    seed: int = 0,
) -> Evaluation:
    """Evaluate predictions: severity's as the challenge does, COVID-19 on all patients, severity among those with it.

    Parameters
    ----------
    other : a second model's, to compare with
    model : whose outputs they are
    thresholds : probabilities in [0, 1] from which on a patient is called positive
    validated : a threshold more of each output of the first model, as `thresholds_on` finds it

    Raises
    ------
    ValueError : a threshold that is no probability, fewer than 100 bootstraps, which make no interval, or more than
        anybody waits for, or a seed that is none
    InputError : a child of it, as `in_order` says
    """
    if wrong := [each for each in thresholds if not 0 <= each <= 1]:
        raise ValueError(f"thresholds must be in [0, 1]. Got {wrong[0]:g} instead.")
    if not 100 <= bootstraps <= MOST_BOOTSTRAPS:
        raise ValueError(f"bootstraps must be from 100 to {MOST_BOOTSTRAPS}. Got {bootstraps:.6g} instead.")
    if not 0 <= seed <= MOST_SEED:
        raise ValueError(f"seed must be from 0 to {MOST_SEED}. Got {seed:.6g} instead.")
    given = [each for each in (predictions, other) if each is not None]
    ordered = [in_order(each, reference, model) for each in given]
    names = [Path(each.name).name for each in given]
    if len(set(names)) < len(given):
        names = [each.name for each in given]
    models = []
    for name, each, probabilities, chosen in zip(names, given, ordered, (validated, None), strict=False):
        options = (model, thresholds, chosen or {}, bootstraps, seed)
        whole = evaluated(name, probabilities, reference, *options)
        sources = {
            source: evaluated(source, {key: values[of] for key, values in probabilities.items()}, part, *options)
            for source, of, part in parts_of(reference)
        }
        more: dict[str, Any] = {}
        if reference.groups is not None:
            more["findings"] = findings_of(probabilities, reference, whole.tasks, bootstraps, seed)
            more["classes"] = classes_of(probabilities, reference, model.outputs, bootstraps, seed)
        models.append(replace(whole, bundles=each.bundles, sources=sources, **more))
    differences: dict[str, Difference | None] = {}
    others: dict[str, dict[str, Estimate]] = {}
    if other is not None:
        for key, first in models[0].tasks.items():
            second = models[1].tasks[key]
            pair = (first.probability, second.probability)
            found = None if first.gap else compare(first.outcome, *pair, bootstraps, seed, first.groups)
            differences[key] = found
            if found and first.groups is not None:
                others[key] = compare_scores(first, second, thresholds[0], bootstraps, seed)
    if reference.groups is None:
        return Evaluation(tuple(models), differences, bootstraps, seed)
    first_output = next(iter(model.outputs))
    truth = reference.outcomes.get(first_output, np.full(len(reference.patients), np.nan))
    groups = len(np.unique(reference.groups))
    return Evaluation(
        tuple(models), differences, bootstraps, seed, groups, reference.unit, others, thresholds[0], truth
    )


def evaluated(
    name: str,
    probabilities: Mapping[str, NDArray[np.float64]],
    reference: Reference,
    model: Model,
    thresholds: Sequence[float],
    validated: Mapping[str, float],
    bootstraps: int,
    seed: int,
) -> Evaluated:
    """What is measured of one model's probabilities, in the order of the reference."""
    tasks = tasks_of(probabilities, reference, questions_of(model))
    metrics = {
        key: None if task.gap else measure(task, thresholds, bootstraps, seed, validated.get(key))
        for key, task in tasks.items()
    }
    return Evaluated(name, tasks, metrics, probabilities=probabilities, titles=model.outputs)


def parts_of(reference: Reference) -> list[tuple[str, NDArray[np.bool_], Reference]]:
    """Each source with who is of it, where there are several."""
    names = [] if reference.sources is None else np.unique(reference.sources).tolist()
    if len(names) < 2:
        return []
    members = [(name, reference.sources == name) for name in names]
    return [(name, of, reference.of(of)) for name, of in members]


def thresholds_on(predictions: Predictions, reference: Reference, model: Model) -> dict[str, float]:
    """The threshold of each output at which sensitivity + specificity is largest, on validation.

    Outputs of which a class is absent there have none.

    Raises
    ------
    InputError : a child of it, as `in_order` says
    """
    tasks = match(predictions, reference, model)
    return {key: min(best_threshold(task), 1.0) for key, task in tasks.items() if not task.gap}


def summary_lines(evaluation: Evaluation) -> list[str]:
    """The main figures as lines for a terminal."""
    lines = []
    for model in evaluation.models:
        for key, task in model.tasks.items():
            metrics = model.metrics[key]
            found = "not measured"
            if metrics:
                found = f"AUC {format_estimate(metrics.auc.delong)}, Brier {metrics.brier:.3f}"
            if metrics and metrics.scores:
                accuracy = metrics.scores.calls[0].estimates["accuracy"]
                found += f", average precision {format_estimate(metrics.scores.average_precision)}"
                found += f", accuracy {format_estimate(accuracy)}"
            reason = f" ({task.gap})" if task.gap else ""
            counts = f"{len(task.outcome)} {task.unit}, {int(task.outcome.sum())} with it"
            counts += f", {task.not_known} not known" if task.not_known else ""
            lines.append(f"{model.name}: {task.title}: {found}{reason}; {counts}")
        if model.classes:
            found = f"accuracy {format_estimate(model.classes.accuracy)}, "
            found += f"macro F1 {format_estimate(model.classes.macro_f1)}"
            lines.append(f"{model.name}: which of {len(model.classes.titles)} classes: {found}")
    for key, difference in evaluation.differences.items():
        if difference:
            title = evaluation.models[0].tasks[key].title
            lines.append(f"first minus second: {title}: {format_estimate(difference.delong)}, DeLong")
    return lines
