"""An evaluation, from predictions to ``metrics.json``, figures and a report on one page."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import balaitous
from balaitous.evaluation.auc import Difference
from balaitous.evaluation.evaluate import Evaluation
from balaitous.evaluation.figures import ENDINGS, TITLES, figures_of, files_of
from balaitous.evaluation.metrics import Evaluated, TaskMetrics
from balaitous.evaluation.page import page
from balaitous.evaluation.resampling import LEVEL, Estimate
from balaitous.evaluation.scores import Ranked, Scores
from balaitous.evaluation.tasks import Task
from balaitous.files import refuse_others, write_together

METRICS_FILE = "metrics.json"
REPORT_FILE = "report.html"


def write_evaluation(evaluation: Evaluation, folder: Path) -> list[Path]:
    """Write ``metrics.json``, the figures as PNG and SVG, and ``report.html``, which needs no other file.

    Returns
    -------
    the files
    """
    folder.mkdir(parents=True, exist_ok=True)
    figures = {TITLES[stem]: files_of(figure, folder / stem) for stem, figure in figures_of(evaluation).items()}
    drawn = {path: content for files in figures.values() for path, content in files.items()}
    metrics = folder / METRICS_FILE
    report = folder / REPORT_FILE
    text = page(evaluation, {title: list(files.values())[-1] for title, files in figures.items()})
    numbers = json.dumps(metrics_of(evaluation), indent=1, allow_nan=False) + "\n"
    write_together({**drawn, report: text.encode(), metrics: numbers.encode()})
    return [metrics, report, *drawn]


def refuse_other_files(folder: Path) -> None:
    """Make sure that `write_evaluation` overwrites nothing there but an earlier evaluation.

    Raises
    ------
    ValueError : it would
    """
    figures = [stem + ending for stem in TITLES for ending in ENDINGS]
    refuse_others(folder, [REPORT_FILE, *figures], METRICS_FILE, ("aggregates", "tasks", "predictions", "method"))


def metrics_of(evaluation: Evaluation) -> dict[str, Any]:
    """``metrics.json`` in the platform's form: ``aggregates`` is what leaderboards show; no patient is named."""
    model = evaluation.models[0]
    content: dict[str, Any] = {
        "aggregates": {f"auc_{key}": estimate(aggregate(model, key)) for key in model.tasks},
        **tasks_of_model(model),
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
            **tasks_of_model(other),
            "differences": {
                key: difference_of(each, other.tasks[key])
                | {name: estimate(found) for name, found in evaluation.other_differences.get(key, {}).items()}
                for key, each in evaluation.differences.items()
            },
        }
    if evaluation.groups is not None:
        content["method"]["groups"] = evaluation.groups
    return content


def tasks_of_model(model: Evaluated) -> dict[str, Any]:
    """What was measured of a model, for JSON: its tasks, and where it has them its findings, classes and sources."""
    content: dict[str, Any] = {
        "tasks": {key: task_metrics(model.tasks[key], model.metrics[key]) for key in model.tasks}
    }
    if model.findings:
        content["findings"] = {
            key: {"everywhere": ranked_of(each.everywhere), "among_bearing": ranked_of(each.among_bearing)}
            for key, each in model.findings.items()
        }
    if model.classes:
        measures = ("accuracy", "balanced_accuracy", "macro_f1")
        content["classes"] = {
            "names": list(model.tasks),
            "confusion": model.classes.confusion.tolist(),
            **{name: estimate(getattr(model.classes, name)) for name in measures},
            "not_known": model.classes.not_known,
        }
    if model.sources:
        content["sources"] = {name: tasks_of_model(each)["tasks"] for name, each in model.sources.items()}
    return content


def ranked_of(found: Ranked) -> dict[str, Any]:
    """How a finding is ranked, for JSON."""
    return {
        "items": found.items,
        "positives": found.positives,
        "prevalence": found.prevalence,
        "average_precision": estimate(found.average_precision),
        "average_precision_of_first_output": estimate(found.of_first),
    }


def aggregate(model: Evaluated, key: str) -> Estimate:
    """The area of a task with its DeLong interval, or why there is none."""
    metrics = model.metrics[key]
    return metrics.auc.delong if metrics else Estimate(None, reason=model.tasks[key].gap)


def estimate(found: Estimate) -> dict[str, Any]:
    """``{value, ci_low, ci_high}``, and ``reason`` where there is one."""
    return {name: value for name, value in asdict(found).items() if name != "reason" or value}


def task_metrics(task: Task, metrics: TaskMetrics | None) -> dict[str, Any]:
    """All that was measured of one task, for JSON."""
    counts: dict[str, Any] = {task.unit: len(task.outcome), "positives": int(task.outcome.sum())}
    if task.groups is not None:
        counts["not_known"] = task.not_known
    if metrics is None:
        return counts | {"reason": task.gap}
    if metrics.scores:
        counts |= scores_of(metrics.scores)
    fit = metrics.calibration
    content: dict[str, Any] = {
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
                {task.unit: each.patients, "predicted": each.predicted, "observed": estimate(each.observed)}
                for each in fit.curve
            ],
        },
    }
    if metrics.scores:
        del content["operating_points"]  # "calls" say the same with intervals that know groups
    return counts | content


def scores_of(scores: Scores) -> dict[str, Any]:
    """What was measured with groups drawn whole, for JSON."""
    return {
        "prevalence": scores.prevalence,
        "average_precision": estimate(scores.average_precision),
        "calls": [
            {
                "chosen": each.chosen,
                "threshold": each.threshold,
                "confusion": each.confusion,
                **{name: estimate(found) for name, found in each.estimates.items()},
            }
            for each in scores.calls
        ],
    }


def difference_of(found: Difference | None, task: Task) -> dict[str, Any]:
    """A difference of two areas, for JSON."""
    if found is None:
        return {"reason": task.gap}
    return estimate(found.delong) | {
        "p_value": found.p_value_delong,
        "bootstrap": estimate(found.bootstrap) | {"p_value": found.p_value_bootstrap},
    }
