"""An evaluation, from predictions to ``metrics.json``, figures and a report on one page."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import balaitous
from balaitous.evaluation.auc import LEVEL, Difference, Estimate
from balaitous.evaluation.evaluate import Evaluation
from balaitous.evaluation.figures import ENDINGS, calibration_figure, files_of, roc_figure
from balaitous.evaluation.metrics import Evaluated, TaskMetrics
from balaitous.evaluation.page import page
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
    figures = {
        "ROC curves": files_of(roc_figure(evaluation.models), folder / "roc"),
        "Calibration": files_of(calibration_figure(evaluation.models), folder / "calibration"),
    }
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
    figures = [stem + ending for stem in ("roc", "calibration") for ending in ENDINGS]
    refuse_others(folder, [REPORT_FILE, *figures], METRICS_FILE, ("aggregates", "tasks", "predictions", "method"))


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
