"""An evaluation: what is measured of predictions on every task, of one model or of two that are compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from balaitous.evaluation.auc import BOOTSTRAPS, Difference, compare
from balaitous.evaluation.figures import format_estimate
from balaitous.evaluation.metrics import THRESHOLDS, Evaluated, measure
from balaitous.evaluation.tasks import Predictions, Reference, match


@dataclass(frozen=True)
class Evaluation:
    """What was found.

    Attributes
    ----------
    models : one, or the two that are compared, on the same patients
    differences : first minus second, by task; None where a class is absent; empty of a single model
    bootstraps, seed : of the bootstrap
    """

    models: tuple[Evaluated, ...]
    differences: Mapping[str, Difference | None]
    bootstraps: int
    seed: int


def evaluate(
    predictions: Predictions,
    reference: Reference,
    other: Predictions | None = None,
    *,
    thresholds: Sequence[float] = THRESHOLDS,
    bootstraps: int = BOOTSTRAPS,
    seed: int = 0,
) -> Evaluation:
    """Evaluate predictions as the challenge does: COVID-19 on all patients, severity among those with COVID-19.

    Parameters
    ----------
    other : a second model's, to compare with
    thresholds : probabilities in [0, 1] from which on a patient is called positive

    Raises
    ------
    ValueError : a threshold that is no probability, or fewer than 100 bootstraps, which make no interval
    InputError : a child of it, as `match` says
    """
    if wrong := [each for each in thresholds if not 0 <= each <= 1]:
        raise ValueError(f"thresholds must be in [0, 1]. Got {wrong[0]:g} instead.")
    if bootstraps < 100:
        raise ValueError(f"bootstraps must be at least 100. Got {bootstraps} instead.")
    given = [each for each in (predictions, other) if each is not None]
    matched = [match(each, reference) for each in given]
    names = [Path(each.name).name for each in given]
    if len(set(names)) < len(given):
        names = [each.name for each in given]
    models = tuple(
        Evaluated(
            name,
            tasks,
            {key: None if task.gap else measure(task, thresholds, bootstraps, seed) for key, task in tasks.items()},
            each.bundles,
        )
        for name, each, tasks in zip(names, given, matched, strict=True)
    )
    differences: dict[str, Difference | None] = {}
    if other is not None:
        for key, task in matched[0].items():
            pair = (task.probability, matched[1][key].probability)
            differences[key] = None if task.gap else compare(task.outcome, *pair, bootstraps, seed)
    return Evaluation(models, differences, bootstraps, seed)


def summary_lines(evaluation: Evaluation) -> list[str]:
    """The main figures as lines for a terminal."""
    lines = []
    for model in evaluation.models:
        for key, task in model.tasks.items():
            metrics = model.metrics[key]
            found = (
                f"AUC {format_estimate(metrics.auc.delong)}, Brier {metrics.brier:.3f}" if metrics else "not measured"
            )
            reason = f" ({task.gap})" if task.gap else ""
            counts = f"{len(task.outcome)} patients, {int(task.outcome.sum())} with it"
            lines.append(f"{model.name}: {task.title}: {found}{reason}; {counts}")
    for key, difference in evaluation.differences.items():
        if difference:
            title = evaluation.models[0].tasks[key].title
            lines.append(f"first minus second: {title}: {format_estimate(difference.delong)}, DeLong")
    return lines
