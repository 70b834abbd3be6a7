"""The report of an evaluation: one HTML page that needs nothing but itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import balaitous
from balaitous.evaluation.auc import LEVEL
from balaitous.evaluation.figures import format_estimate
from balaitous.report.page import document, drawing, heading, note, notes, table, use

if TYPE_CHECKING:
    from balaitous.evaluation.evaluate import Evaluation
    from balaitous.evaluation.metrics import TaskMetrics
    from balaitous.evaluation.tasks import Task

NOTES = (
    f"Intervals cover {LEVEL:.0%}. AUC: area under the ROC curve, with DeLong's interval and that of a bootstrap that "
    "draws patients again; the band of the ROC curve is the bootstrap's, at each point for itself.",
    "Severity is evaluated among patients with COVID-19 only.",
    "Sensitivity and specificity have Wilson's intervals. A threshold that was found on these patients flatters; only "
    "a given one says what it would do elsewhere.",
    "Brier score: mean squared difference of probability and outcome, 0 at best; to beat is the score of a model that "
    "says the prevalence for everybody. Calibration slope: 1 at best, below 1 the predictions are too extreme. "
    "Intercept: 0 at best, below 0 they are too high on the whole.",
)


def page(evaluation: Evaluation, figures: Mapping[str, bytes]) -> str:
    """The report as HTML.

    Parameters
    ----------
    figures : SVG by its title
    """
    title = "Evaluation of " + " and ".join(model.name for model in evaluation.models)
    made = f"balaitous {balaitous.__version__}, {datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
    bundles = sorted({f"{name} {sha[:12]}" for model in evaluation.models for sha, name in model.bundles.items()})
    facts = [made, f"{evaluation.bootstraps} bootstraps, seed {evaluation.seed}"]
    facts += [f"weights {', '.join(bundles)}"] if bundles else []
    parts = [
        note("; ".join(facts)),
        use(),
        table(("task", "model", "patients", "with outcome", "AUC (DeLong)", "bootstrap"), area_rows(evaluation)),
        *(note(f"{reason}.") for reason in reasons(evaluation)),
    ]
    if evaluation.differences:
        parts += [heading("Difference of the areas, first minus second, on the same patients")]
        parts += [table(("task", "DeLong", "p", "paired bootstrap", "p"), difference_rows(evaluation))]
    for name, figure in figures.items():
        parts += [heading(name), drawing(figure, name)]
    parts += [
        table(
            ("task", "model", "Brier score", "of the prevalence", "slope", "intercept"), calibration_rows(evaluation)
        ),
        heading("Sensitivity and specificity"),
        table(("task", "model", "called positive from", "", "sensitivity", "specificity"), point_rows(evaluation)),
        heading("How to read this"),
        notes(NOTES),
    ]
    return document(title, parts)


def area_rows(evaluation: Evaluation) -> Iterator[tuple[str, ...]]:
    """Of each result: its name, cases, those with the outcome, area with DeLong's interval and with the bootstrap's."""
    for task, metrics, *head in results(evaluation):
        counts = (str(len(task.outcome)), str(int(task.outcome.sum())))
        areas = (
            (format_estimate(metrics.auc.delong), format_estimate(metrics.auc.bootstrap))
            if metrics
            else ("not measured", "–")
        )
        yield (*head, *counts, *areas)


def difference_rows(evaluation: Evaluation) -> Iterator[tuple[str, ...]]:
    """Of each task that both models have: difference of areas with interval and p-value, by both methods."""
    for key, found in evaluation.differences.items():
        if found:
            yield (
                evaluation.models[0].tasks[key].title,
                format_estimate(found.delong),
                format_p_value(found.p_value_delong),
                format_estimate(found.bootstrap),
                format_p_value(found.p_value_bootstrap),
            )


def calibration_rows(evaluation: Evaluation) -> Iterator[tuple[str, ...]]:
    """Of each result: its name, Brier score, that of the prevalence alone, slope and intercept of the calibration."""
    for _, metrics, *head in results(evaluation):
        if metrics:
            fit = metrics.calibration
            scores = (f"{metrics.brier:.4f}", f"{metrics.brier_of_prevalence:.4f}")
            yield (*head, *scores, format_estimate(fit.slope), format_estimate(fit.intercept))


def point_rows(evaluation: Evaluation) -> Iterator[tuple[str, ...]]:
    """Of each result and each threshold: its name, threshold, how it was chosen, sensitivity and specificity."""
    for _, metrics, *head in results(evaluation):
        for point in metrics.points if metrics else ():
            threshold = "nobody" if point.threshold is None else f"{point.threshold:.3f}"
            yield (
                *head,
                threshold,
                point.chosen,
                format_estimate(point.sensitivity),
                format_estimate(point.specificity),
            )


def reasons(evaluation: Evaluation) -> list[str]:
    """Why a number or an interval is missing or means little, each once."""
    found: dict[str, None] = {}
    for task, metrics, *_ in results(evaluation):
        estimates = (metrics.auc.delong, metrics.calibration.slope) if metrics else ()
        texts = [f"{task.title}: {each.reason}" for each in estimates if each.reason]
        found |= dict.fromkeys([task.gap] if task.gap else texts)
    return list(found)


def results(evaluation: Evaluation) -> Iterator[tuple[Task, TaskMetrics | None, str, str]]:
    """(task, its metrics, the task's title, the model's name) of every task and model."""
    for key, first in evaluation.models[0].tasks.items():
        for model in evaluation.models:
            yield model.tasks[key], model.metrics[key], first.title, model.name


def format_p_value(p_value: float | None) -> str:
    """A p-value as journals print it."""
    if p_value is None:
        return "–"
    return "< 0.001" if p_value < 0.001 else f"{p_value:.3f}"
