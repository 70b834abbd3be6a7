"""The figures of an evaluation, drawn without pyplot's global state."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Literal

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray
from scipy.stats import gaussian_kde
from sklearn.metrics import precision_recall_curve, roc_curve

from balaitous.evaluation.auc import GRID
from balaitous.evaluation.metrics import Evaluated, TaskMetrics, logits
from balaitous.evaluation.resampling import Estimate
from balaitous.evaluation.tasks import Task
from balaitous.files import write_together
from balaitous.report.style import COLOURS

if TYPE_CHECKING:
    from balaitous.evaluation.evaluate import Evaluation

TITLES = {  # by their files
    "roc": "ROC curves",
    "precision_recall": "Precision and recall",
    "calibration": "Calibration",
    "confusion": "Confusion",
    "pairs": "Logits of the outputs, two by two",
    "pairs_of_second": "The same of the second model",
}
CHANCE = {"color": "0.6", "linewidth": 0.8, "linestyle": "--", "zorder": 0}
PANEL_INCHES = 4.2
PANELS_IN_A_ROW = 3
PAIR_INCHES = 1.9
CONFUSION_INCHES = 3.4
CELL_INCHES, LABEL_INCHES = 0.8, 1.7  # of a confusion of many classes
HISTOGRAM_EDGES = np.linspace(0, 1, 41)
DPI = 150
LEGEND_LETTERS = 36
GAP_LETTERS = 38
ENDINGS = (".png", ".svg")


def figures_of(evaluation: Evaluation) -> dict[str, Figure]:
    """The figures of an evaluation, by the keys of `TITLES`; severity's are two."""
    models = evaluation.models
    figures = {"roc": roc_figure(models)}
    if evaluation.first is None:
        return figures | {"calibration": calibration_figure(models)}
    figures |= {"precision_recall": precision_recall_figure(models), "calibration": calibration_figure(models)}
    if panels := confusions(models):
        figures["confusion"] = confusion_figure(panels)
    for stem, model in zip(("pairs", "pairs_of_second"), models, strict=False):
        if len(model.probabilities) > 1:
            figures[stem] = pair_figure(model, evaluation.first)
    return figures


def rows_of(count: int) -> tuple[int, int]:
    """How many panels stand side by side, and in how many rows."""
    across = 2 if count == 4 else min(count, PANELS_IN_A_ROW)
    return across, -(-count // across)


def grid_of(count: int, inches: tuple[float, float]) -> tuple[Figure, NDArray]:
    """A figure, and its first panels in rows, each of a size in inches; panels that are too many are left white."""
    across, down = rows_of(count)
    figure = Figure(figsize=(inches[0] * across, inches[1] * down), layout="constrained")
    panels = figure.subplots(down, across, squeeze=False).ravel()
    for axes in panels[count:]:
        axes.axis("off")
    return figure, panels[:count]


def shown_tasks(models: Sequence[Evaluated]) -> list[str]:
    """The tasks that have a panel: of many outputs those that are measured, if any is; the page tells of the others."""
    tasks = models[0].tasks
    measured = [key for key, task in tasks.items() if not task.gap]
    return measured if measured and len(tasks) > PANELS_IN_A_ROW else list(tasks)


def roc_figure(models: Sequence[Evaluated]) -> Figure:
    """Sensitivity against 1 - specificity of one or two models, a panel a task, with the bootstrapped band."""
    keys = shown_tasks(models)
    figure, panels = grid_of(len(keys), (PANEL_INCHES, PANEL_INCHES + 0.3))
    for axes, key in zip(panels, keys, strict=True):
        axes.set(title=models[0].tasks[key].title, xlabel="1 − specificity", ylabel="sensitivity")
        axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
        axes.plot([0, 1], [0, 1], **CHANCE)
        for colour, task, metrics in curves(axes, models, key):
            false, true, _ = roc_curve(task.outcome, task.probability)
            axes.fill_between(GRID, *metrics.auc.band, color=colour, alpha=0.15, linewidth=0)
            axes.plot(false, true, color=colour, linewidth=1.6, label=f"AUC {format_estimate(metrics.auc.delong)}")
        label(axes, models, "lower right")
    return figure


def precision_recall_figure(models: Sequence[Evaluated]) -> Figure:
    """Precision against recall, a panel a task; the line is the prevalence: a model that knows nothing."""
    keys = shown_tasks(models)
    figure, panels = grid_of(len(keys), (PANEL_INCHES, PANEL_INCHES + 0.3))
    for axes, key in zip(panels, keys, strict=True):
        axes.set(title=models[0].tasks[key].title, xlabel="recall", ylabel="precision")
        axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
        for colour, task, metrics in curves(axes, models, key):
            assert metrics.scores
            axes.axhline(metrics.scores.prevalence, **CHANCE)
            precision, recall, _ = precision_recall_curve(task.outcome, task.probability)
            text = f"average precision {format_estimate(metrics.scores.average_precision)}"
            axes.plot(recall, precision, color=colour, linewidth=1.6, drawstyle="steps-pre", label=text)
        label(axes, models, "lower left")
    return figure


def confusions(models: Sequence[Evaluated]) -> list[tuple[str, NDArray[np.int64], tuple[str, ...]]]:
    """Title, (true, answered) counts, names of what is told apart: classes, or each output at its first threshold."""
    found = []
    for model in models:
        name = f"\n{shortened(model.name)}" if len(models) > 1 else ""
        if model.classes:
            found.append((f"most probable class{name}", model.classes.confusion, model.classes.titles))
            continue
        for key, task in model.tasks.items():
            metrics = model.metrics[key]
            if metrics and metrics.scores:
                calls = metrics.scores.calls[0]
                found.append(
                    (f"{task.title}, from {calls.threshold:g}{name}", np.array(calls.confusion), ("no", "yes"))
                )
    return found


def confusion_figure(panels: Sequence[tuple[str, NDArray[np.int64], tuple[str, ...]]]) -> Figure:
    """Counts of what is true (rows) and what was answered, shaded by the share of the row."""
    size = max(CONFUSION_INCHES, CELL_INCHES * max(len(names) for _, _, names in panels) + LABEL_INCHES)
    figure, places = grid_of(len(panels), (size, size))
    for axes, (title, counts, names) in zip(places, panels, strict=True):
        shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        for (row, column), count in np.ndenumerate(counts):
            ink = "white" if shares[row, column] > 0.6 else "black"
            text = f"{count}\n{shares[row, column]:.0%}"
            axes.text(column, row, text, ha="center", va="center", color=ink, fontsize="small")
        axes.set_title(title, fontsize="medium")
        axes.set(xlabel="answered", ylabel="true")
        slope = {"rotation": 30, "ha": "right", "rotation_mode": "anchor"} if len(names) > 2 else {}
        axes.set_xticks(range(len(names)), names, **slope)
        axes.set_yticks(range(len(names)), names)
    return figure


def pair_figure(model: Evaluated, first: NDArray[np.float64]) -> Figure:
    """Logits of the outputs, each against each, coloured by what is true of the first; on the diagonal their densities.

    Outputs that do not exclude each other are those after the first, as Liu et al. 2020 show them.

    Parameters
    ----------
    first : (items,) 1, 0 or NaN
    """
    outputs = list(model.probabilities)
    shown = outputs if model.classes or len(outputs) == 2 else outputs[1:]
    values = [logits(model.probabilities[output]) for output in shown]
    titles = [model.titles[output] for output in shown]
    members = {"with it": first == 1, "without it": first == 0, "not known": np.isnan(first)}
    styles = dict(zip(members, zip((COLOURS[1], COLOURS[0], "0.6"), "o^s", strict=True), strict=True))
    size = PAIR_INCHES * len(shown)
    figure = Figure(figsize=(size, size + 0.5), layout="constrained")
    panels = figure.subplots(len(shown), len(shown), squeeze=False, sharex="col")
    for (row, column), axes in np.ndenumerate(panels):
        for name, who in members.items():
            colour, marker = styles[name]
            x, y = values[column][who], values[row][who]
            if row != column:
                axes.scatter(x, y, 7, color=colour, marker=marker, alpha=0.5, linewidths=0, rasterized=True)
            elif len(np.unique(x)) > 2:
                grid = np.linspace(values[column].min() - 1, values[column].max() + 1, 200)
                axes.fill_between(grid, gaussian_kde(x)(grid), color=colour, alpha=0.3, linewidth=0)
                axes.plot(grid, gaussian_kde(x)(grid), color=colour, linewidth=1)
        axes.tick_params(labelsize="x-small")
        if row == column:
            axes.set_yticks([])
        if column == 0:
            axes.set_ylabel(titles[row], fontsize="small", wrap=True)
        if row == len(shown) - 1:
            axes.set_xlabel(titles[column], fontsize="small", wrap=True)
    drawn = [name for name, who in members.items() if who.any()]
    handles = [
        Line2D(
            [], [], color=styles[name][0], marker=styles[name][1], linestyle="", label=f"{name} ({members[name].sum()})"
        )
        for name in drawn
    ]
    heading = f"Logits of {shortened(model.name)}, by what is true of {model.titles[outputs[0]]}"
    figure.legend(handles=handles, loc="outside upper center", ncols=3, title=heading, frameon=False)
    return figure


def calibration_figure(models: Sequence[Evaluated]) -> Figure:
    """Observed share against predicted probability, a panel a task; below, how often each probability was said."""
    keys = shown_tasks(models)
    across, down = rows_of(len(keys))
    figure = Figure(figsize=(PANEL_INCHES * across, (PANEL_INCHES + 1.2) * down), layout="constrained")
    grid = figure.subplots(2 * down, across, squeeze=False, sharex=True, height_ratios=(4, 1) * down)
    pairs = [pair for row in range(down) for pair in zip(*grid[2 * row : 2 * row + 2], strict=True)]
    for axes in [each for pair in pairs[len(keys) :] for each in pair]:
        axes.axis("off")
    for (axes, below), key in zip(pairs[: len(keys)], keys, strict=True):
        axes.set(title=models[0].tasks[key].title, ylabel="observed share", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
        below.set(xlabel="predicted probability", ylabel=models[0].tasks[key].unit)
        below.tick_params(labelbottom=True)
        axes.plot([0, 1], [0, 1], **CHANCE)
        for colour, task, metrics in curves(axes, models, key):
            fit = metrics.calibration
            predicted = [each.predicted for each in fit.curve]
            observed = [(each.observed.ci_low, each.observed.value, each.observed.ci_high) for each in fit.curve]
            low, share, high = np.array(observed, dtype=float).T
            spread, text = (share - low, high - share), f"slope {format_estimate(fit.slope)}"
            axes.errorbar(predicted, share, spread, color=colour, marker="o", ms=4, linewidth=1.2, label=text)
            below.hist(task.probability, HISTOGRAM_EDGES, color=colour, histtype="step")
        label(axes, models, "upper left")
    return figure


def curves(axes: Axes, models: Sequence[Evaluated], key: str) -> Iterator[tuple[str, Task, TaskMetrics]]:
    """(colour, task, metrics) of each model; where a class is absent, the panel says so instead."""
    for colour, model in zip(COLOURS, models, strict=False):
        task, metrics = model.tasks[key], model.metrics[key]
        if metrics:
            yield colour, task, metrics
    if gap := models[0].tasks[key].gap:
        axes.text(0.5, 0.5, fill(gap, GAP_LETTERS), ha="center", va="center", fontsize="small")


def label(axes: Axes, models: Sequence[Evaluated], place: Literal["lower right", "lower left", "upper left"]) -> None:
    """A legend, with the models' names where there are two."""
    handles, labels = axes.get_legend_handles_labels()
    if len(models) > 1:
        labels = [f"{shortened(model.name)}\n{text}" for model, text in zip(models, labels, strict=False)]
    if handles:
        axes.legend(handles, labels, loc=place, fontsize="small", frameon=False)


def shortened(name: str) -> str:
    """A name that fits into a panel: of a long path the end, which tells most."""
    return name if len(name) <= LEGEND_LETTERS else f"…{name[1 - LEGEND_LETTERS :]}"


def format_estimate(estimate: Estimate) -> str:
    """0.893 (0.833–0.953), or −0.1 (−0.2 to 0.1) with three decimals; a dash where there is no number."""
    value, low, high = estimate.value, estimate.ci_low, estimate.ci_high
    if value is None or low is None or high is None:
        return "–" if value is None else signed(value)
    return f"{signed(value)} ({signed(low)}{'–' if low >= 0 else ' to '}{signed(high)})"


def signed(value: float) -> str:
    """Three decimals, with a minus that is not a hyphen."""
    return f"{value:.3f}".replace("-", "−")


def files_of(figure: Figure, stem: Path) -> dict[Path, bytes]:
    """A figure as PNG and SVG, by their paths; the same figure gives the same bytes.

    Parameters
    ----------
    stem : path without ending
    """
    contents = {}
    with matplotlib.rc_context({"svg.hashsalt": "balaitous"}):
        for ending in ENDINGS:
            content = io.BytesIO()
            metadata = {"Date": None} if ending == ".svg" else None
            figure.savefig(content, format=ending[1:], dpi=DPI, metadata=metadata)
            contents[stem.with_name(stem.name + ending)] = content.getvalue()
    return contents


def save(figure: Figure, stem: Path) -> list[Path]:
    """Write a figure as PNG and SVG; returns the files."""
    contents = files_of(figure, stem)
    write_together(contents)
    return list(contents)
