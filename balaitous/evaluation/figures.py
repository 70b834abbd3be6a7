"""ROC and calibration figures, drawn without pyplot's global state."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.metrics import roc_curve

from balaitous.evaluation.auc import GRID, Estimate
from balaitous.evaluation.metrics import Evaluated, TaskMetrics
from balaitous.evaluation.tasks import Task
from balaitous.files import write_together
from balaitous.report.style import COLOURS

CHANCE = {"color": "0.6", "linewidth": 0.8, "linestyle": "--", "zorder": 0}
PANEL_INCHES = 4.2
HISTOGRAM_EDGES = np.linspace(0, 1, 41)
DPI = 150
LEGEND_LETTERS = 36
ENDINGS = (".png", ".svg")


def roc_figure(models: Sequence[Evaluated]) -> Figure:
    """Sensitivity against 1 - specificity of one or two models, a panel a task, with the bootstrapped band."""
    keys = list(models[0].tasks)
    figure = Figure(figsize=(PANEL_INCHES * len(keys), PANEL_INCHES + 0.3), layout="constrained")
    for axes, key in zip(figure.subplots(1, len(keys), squeeze=False)[0], keys, strict=True):
        axes.set(title=models[0].tasks[key].title, xlabel="1 − specificity", ylabel="sensitivity")
        axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
        axes.plot([0, 1], [0, 1], **CHANCE)
        for colour, task, metrics in curves(axes, models, key):
            false, true, _ = roc_curve(task.outcome, task.probability)
            axes.fill_between(GRID, *metrics.auc.band, color=colour, alpha=0.15, linewidth=0)
            axes.plot(false, true, color=colour, linewidth=1.6, label=f"AUC {format_estimate(metrics.auc.delong)}")
        label(axes, models, "lower right")
    return figure


def calibration_figure(models: Sequence[Evaluated]) -> Figure:
    """Observed share against predicted probability, a panel a task; below, how often each probability was said."""
    keys = list(models[0].tasks)
    figure = Figure(figsize=(PANEL_INCHES * len(keys), PANEL_INCHES + 1.2), layout="constrained")
    grid = figure.subplots(2, len(keys), squeeze=False, sharex=True, height_ratios=(4, 1))
    for (axes, below), key in zip(grid.T, keys, strict=True):
        axes.set(title=models[0].tasks[key].title, ylabel="observed share", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
        below.set(xlabel="predicted probability", ylabel="patients")
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
        axes.text(0.5, 0.5, gap, ha="center", va="center", fontsize="small", wrap=True)


def label(axes: Axes, models: Sequence[Evaluated], place: Literal["lower right", "upper left"]) -> None:
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
