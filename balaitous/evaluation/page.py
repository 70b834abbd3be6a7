"""The report of an evaluation: one HTML page that needs nothing but itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import balaitous
from balaitous.evaluation.figures import format_estimate
from balaitous.evaluation.resampling import LEVEL
from balaitous.evaluation.scores import CALLS
from balaitous.evaluation.tasks import FEWEST
from balaitous.report.page import document, drawing, heading, note, notes, table, use

if TYPE_CHECKING:
    from balaitous.evaluation.evaluate import Evaluation
    from balaitous.evaluation.metrics import TaskMetrics
    from balaitous.evaluation.tasks import Task

SEVERITY_NOTES = (
    f"Intervals cover {LEVEL:.0%}. AUC: area under the ROC curve, with DeLong's interval and that of a bootstrap that "
    "draws patients again; the band of the ROC curve is the bootstrap's, at each point for itself.",
    "Severity is evaluated among patients with COVID-19 only.",
    "Sensitivity and specificity have Wilson's intervals. A threshold that was found on these patients flatters; only "
    "a given one says what it would do elsewhere.",
)
CALL_TITLES = tuple(name.replace("f1", "F1") for name in CALLS)
NOTES = (
    f"Intervals cover {LEVEL:.0%}. Those of the bootstrap draw groups whole, with replacement, such as all pictures of "
    "one patient; DeLong's are Obuchowski's, which know groups as well. Those of the calibration take every item for "
    "itself.",
    "AUC: area under the ROC curve. Average precision: mean precision over the positives, in the order of their "
    "probabilities; to beat is the prevalence. F1: harmonic mean of precision and recall.",
    "Only a threshold that was given, or chosen on validation, says what it would do elsewhere: none is chosen here.",
    f"With fewer than {FEWEST} positives nothing is measured. Items whose truth is not known are left out, output by "
    "output.",
)
CALIBRATION_NOTES = (
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
    facts += [] if evaluation.groups is None else [f"{evaluation.groups} groups of items"]
    facts += [f"weights {', '.join(bundles)}"] if bundles else []
    parts = [
        note("; ".join(facts)),
        use(),
        area_table(evaluation),
        *(note(f"{reason}.") for reason in reasons(evaluation)),
        *more_tables(evaluation),
    ]
    if evaluation.differences:
        parts += [heading(f"Difference of the areas, first minus second, on the same {evaluation.unit}")]
        parts += [table(("task", "DeLong", "p", "paired bootstrap", "p"), difference_rows(evaluation))]
    if evaluation.other_differences:
        parts += [heading(f"Other differences; called positive from {evaluation.threshold:g}")]
        parts += [table(("task", "average precision", *CALL_TITLES), other_difference_rows(evaluation))]
    for name, figure in figures.items():
        parts += [heading(name), drawing(figure, name, own_size=evaluation.groups is not None)]
    parts += [] if evaluation.groups is None else [heading("Calibration in numbers")]
    parts += [
        table(
            ("task", "model", "Brier score", "of the prevalence", "slope", "intercept"), calibration_rows(evaluation)
        ),
        *point_tables(evaluation),
        heading("How to read this"),
        notes(notes_of(evaluation)),
    ]
    return document(title, parts)


def notes_of(evaluation: Evaluation) -> Sequence[str]:
    """What a reader must know of the numbers."""
    return (*(SEVERITY_NOTES if evaluation.groups is None else NOTES), *CALIBRATION_NOTES)


def area_table(evaluation: Evaluation) -> str:
    """The areas; where there are groups also the average precision."""
    if evaluation.groups is None:
        severity = ("task", "model", "patients", "with outcome", "AUC (DeLong)", "bootstrap")
        return table(severity, area_rows(evaluation))
    header = ("output", "model", "items", "with it", "AUC (DeLong)", "AUC (bootstrap)", "average precision")
    return table(header, ranking_rows(evaluation))


def more_tables(evaluation: Evaluation) -> list[str]:
    """What is measured of classes, of findings and of each source, where there is such a thing."""
    tables: list[str] = []
    header: tuple[str, ...]
    if any(model.classes for model in evaluation.models):
        header = ("model", "items", "accuracy", "balanced accuracy", "macro F1")
        tables += [heading("The most probable class"), table(header, class_rows(evaluation))]
    if any(model.findings for model in evaluation.models):
        first = next(iter(evaluation.models[0].titles.values()))
        header = ("finding", "model", "among", "items", "with it", "prevalence", "average precision", f"of {first}")
        tables += [
            heading("Findings"),
            table(header, finding_rows(evaluation)),
            note(
                f"Average precision of each finding by its own probability, and by that of {first} in its place, among "
                "all items and among those with any of these findings."
            ),
        ]
    if any(model.sources for model in evaluation.models):
        header = ("source", "output", "model", "items", "with it", "AUC", "average precision", "accuracy")
        tables += [heading("Source by source"), table(header, source_rows(evaluation))]
    return tables


def point_tables(evaluation: Evaluation) -> list[str]:
    """What comes of calling patients positive from thresholds on."""
    if evaluation.groups is None:
        header = ("task", "model", "called positive from", "", "sensitivity", "specificity")
        return [heading("Sensitivity and specificity"), table(header, point_rows(evaluation))]
    return [
        heading("At thresholds"),
        table(("output", "model", "called positive from", *CALL_TITLES), call_rows(evaluation)),
    ]


def ranking_rows(evaluation: Evaluation) -> Iterator[tuple[str, ...]]:
    """A row a result: name, items, items with the outcome, areas with either interval, average precision."""
    for task, metrics, *head in results(evaluation):
        not_known = f", {task.not_known} not known" if task.not_known else ""
        counts = (f"{len(task.outcome)}{not_known}", str(int(task.outcome.sum())))
        found: tuple[str, ...] = ("not measured", "–", "–")
        if metrics and metrics.scores:
            estimates = (metrics.auc.delong, metrics.auc.bootstrap, metrics.scores.average_precision)
            found = tuple(map(format_estimate, estimates))
        yield (*head, *counts, *found)


def class_rows(evaluation: Evaluation) -> Iterator[tuple[str, ...]]:
    """A row a model: items, and the measures of `Classes`."""
    for model in evaluation.models:
        if found := model.classes:
            not_known = f", {found.not_known} not known" if found.not_known else ""
            estimates = (found.accuracy, found.balanced_accuracy, found.macro_f1)
            yield (model.name, f"{found.confusion.sum()}{not_known}", *map(format_estimate, estimates))


def finding_rows(evaluation: Evaluation) -> Iterator[tuple[str, ...]]:
    """A row a finding, a model and whom it is asked of."""
    for key in evaluation.models[0].findings:
        for model in evaluation.models:
            each = model.findings[key]
            for among, found in (("all", each.everywhere), ("bearing", each.among_bearing)):
                prevalence = "–" if found.prevalence is None else f"{found.prevalence:.3f}"
                counts = (str(found.items), str(found.positives), prevalence)
                own = format_estimate(found.average_precision)
                if found.positives < FEWEST:
                    own = "too few"
                yield (each.title, model.name, among, *counts, own, format_estimate(found.of_first))


def source_rows(evaluation: Evaluation) -> Iterator[tuple[str, ...]]:
    """A row a source, output and model, of outputs that are measured on the whole."""
    for source in evaluation.models[0].sources:
        for key, whole in evaluation.models[0].tasks.items():
            for model in evaluation.models if not whole.gap else ():
                task, metrics = model.sources[source].tasks[key], model.sources[source].metrics[key]
                found: tuple[str, ...] = ("not measured", "–", "–")
                if metrics and metrics.scores:
                    accuracy = metrics.scores.calls[0].estimates["accuracy"]
                    estimates = (metrics.auc.bootstrap, metrics.scores.average_precision, accuracy)
                    found = tuple(map(format_estimate, estimates))
                yield (source, task.title, model.name, str(len(task.outcome)), str(int(task.outcome.sum())), *found)


def call_rows(evaluation: Evaluation) -> Iterator[tuple[str, ...]]:
    """A row a result and threshold: name, threshold and how it was chosen, and each of `CALLS`."""
    for _, metrics, *head in results(evaluation):
        for calls in metrics.scores.calls if metrics and metrics.scores else ():
            threshold = calls.chosen if "given" in calls.chosen else f"{calls.threshold:.3f}, {calls.chosen}"
            yield (*head, threshold, *(format_estimate(calls.estimates[name]) for name in CALLS))


def other_difference_rows(evaluation: Evaluation) -> Iterator[tuple[str, ...]]:
    """A row a task: differences of average precision, and of each of `CALLS` at the first threshold."""
    for key, found in evaluation.other_differences.items():
        title = evaluation.models[0].tasks[key].title
        yield (title, *(format_estimate(found[name]) for name in ("average_precision", *CALLS)))


def area_rows(evaluation: Evaluation) -> Iterator[tuple[str, ...]]:
    """A row a result: name, cases, cases with the outcome, area with DeLong's interval and with the bootstrap's."""
    for task, metrics, *head in results(evaluation):
        counts = (str(len(task.outcome)), str(int(task.outcome.sum())))
        areas = (
            (format_estimate(metrics.auc.delong), format_estimate(metrics.auc.bootstrap))
            if metrics
            else ("not measured", "–")
        )
        yield (*head, *counts, *areas)


def difference_rows(evaluation: Evaluation) -> Iterator[tuple[str, ...]]:
    """A row a task that both models have: difference of areas with interval and p-value, by both methods."""
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
    """A row a result: name, Brier score, that of the prevalence alone, slope and intercept of the calibration."""
    for _, metrics, *head in results(evaluation):
        if metrics:
            fit = metrics.calibration
            scores = (f"{metrics.brier:.4f}", f"{metrics.brier_of_prevalence:.4f}")
            yield (*head, *scores, format_estimate(fit.slope), format_estimate(fit.intercept))


def point_rows(evaluation: Evaluation) -> Iterator[tuple[str, ...]]:
    """A row a result and threshold: name, threshold, how it was chosen, sensitivity and specificity."""
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
