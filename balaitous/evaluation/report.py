"""An evaluation, from predictions to ``metrics.json``, figures and a report on one page."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import balaitous
from balaitous.evaluation.auc import BOOTSTRAPS, LEVEL, Difference, Estimate, compare
from balaitous.evaluation.figures import calibration_figure, in_words, roc_figure, save
from balaitous.evaluation.metrics import THRESHOLDS, Evaluated, TaskMetrics, measure
from balaitous.evaluation.page import page
from balaitous.evaluation.predictions import Predictions, Reference, Task, match
from balaitous.files import write_together

METRICS_FILE = "metrics.json"
REPORT_FILE = "report.html"


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


def in_lines(evaluation: Evaluation) -> list[str]:
    """What matters most, for a terminal."""
    lines = []
    for model in evaluation.models:
        for key, task in model.tasks.items():
            metrics = model.metrics[key]
            found = f"AUC {in_words(metrics.auc.delong)}, Brier {metrics.brier:.3f}" if metrics else "not measured"
            reason = f" ({task.gap})" if task.gap else ""
            counts = f"{len(task.outcome)} patients, {int(task.outcome.sum())} with it"
            lines.append(f"{model.name}: {task.title}: {found}{reason}; {counts}")
    for key, difference in evaluation.differences.items():
        if difference:
            title = evaluation.models[0].tasks[key].title
            lines.append(f"first minus second: {title}: {in_words(difference.delong)}, DeLong")
    return lines


def write_evaluation(evaluation: Evaluation, folder: Path) -> list[Path]:
    """Write ``metrics.json``, the figures as PNG and SVG, and ``report.html``, which needs no other file.

    Returns
    -------
    the files
    """
    folder.mkdir(parents=True, exist_ok=True)
    figures = {
        "ROC curves": save(roc_figure(evaluation.models), folder / "roc"),
        "Calibration": save(calibration_figure(evaluation.models), folder / "calibration"),
    }
    metrics = folder / METRICS_FILE
    report = folder / REPORT_FILE
    contents = {
        report: page(evaluation, {title: paths[-1] for title, paths in figures.items()}),
        metrics: json.dumps(metrics_of(evaluation), indent=1, allow_nan=False) + "\n",
    }
    write_together({path: text.encode() for path, text in contents.items()})
    return [metrics, report, *(path for paths in figures.values() for path in paths)]


def metrics_of(evaluation: Evaluation) -> dict[str, Any]:
    """``metrics.json`` in the platform's form: ``aggregates`` is what leaderboards show; no patient is named."""
    model = evaluation.models[0]
    content: dict[str, Any] = {
        "aggregates": {f"auc_{key}": estimate(aggregate(model, key)) for key in model.tasks},
        "tasks": {key: task_metrics(model.tasks[key], model.metrics[key]) for key in model.tasks},
        "predictions": {"name": model.name, "bundles": dict(model.bundles)},
        "method": {
            "intervals": LEVEL,
            "aggregates": "DeLong",
            "bootstraps": evaluation.bootstraps,
            "bootstrap_seed": evaluation.seed,
            "balaitous": balaitous.__version__,
        },
    }
    if len(evaluation.models) > 1:
        other = evaluation.models[1]
        content["comparison"] = {
            "predictions": {"name": other.name, "bundles": dict(other.bundles)},
            "tasks": {key: task_metrics(other.tasks[key], other.metrics[key]) for key in other.tasks},
            "differences": {key: difference_of(each, other.tasks[key]) for key, each in evaluation.differences.items()},
        }
    return content


def aggregate(model: Evaluated, key: str) -> Estimate:
    """The area of a task with its DeLong interval, or why there is none."""
    metrics = model.metrics[key]
    return metrics.auc.delong if metrics else Estimate(None, reason=model.tasks[key].gap)


def estimate(found: Estimate) -> dict[str, Any]:
    """``{value, ci_low, ci_high}``, and ``reason`` where there is one."""
    return {name: value for name, value in asdict(found).items() if name != "reason" or value}


def task_metrics(task: Task, metrics: TaskMetrics | None) -> dict[str, Any]:
    """All that was measured of one task, for JSON."""
    counts = {"patients": len(task.outcome), "positives": int(task.outcome.sum())}
    if metrics is None:
        return counts | {"reason": task.gap}
    fit = metrics.calibration
    return counts | {
        "auc": estimate(metrics.auc.delong)
        | {"standard_error": metrics.auc.standard_error, "bootstrap": estimate(metrics.auc.bootstrap)},
        "operating_points": [
            {
                "chosen": point.chosen,
                "threshold": point.threshold,
                "sensitivity": estimate(point.sensitivity),
                "specificity": estimate(point.specificity),
            }
            for point in metrics.points
        ],
        "brier": metrics.brier,
        "brier_of_prevalence": metrics.brier_of_prevalence,
        "calibration": {
            "slope": estimate(fit.slope),
            "intercept": estimate(fit.intercept),
            "curve": [
                {"patients": each.patients, "predicted": each.predicted, "observed": estimate(each.observed)}
                for each in fit.curve
            ],
        },
    }


def difference_of(found: Difference | None, task: Task) -> dict[str, Any]:
    """A difference of two areas, for JSON."""
    if found is None:
        return {"reason": task.gap}
    return estimate(found.delong) | {
        "p_value": found.p_value_delong,
        "bootstrap": estimate(found.bootstrap) | {"p_value": found.p_value_bootstrap},
    }
