"""Calibration: probabilities that mean what they say, fitted on held-out predictions and kept beside the weights.

All maps are strictly increasing, so that they change no ranking: the ROC curve and its area stay as they were. Platt's
and the isotonic one are severity's; the other models divide the logits of their network by a temperature.

platt
    σ(a·logit(p) + b), a > 0: two numbers, for samples of any size.
isotonic
    The non-decreasing step function nearest to the outcomes; it needs hundreds of patients. Its steps would tie
    patients whom the model tells apart, which changes the area. So `KEPT` of the probability itself is mixed in:
    (1 - KEPT)·step(p) + KEPT·p rises wherever p does, and is nowhere further than `KEPT` from the step function.

temperature
    As `temperature.py` has it.

References
----------
Platt 1999, Probabilistic outputs for support vector machines: the targets that keep the fit finite.
Zadrozny, Elkan 2002, doi:10.1145/775047.775151: isotonic regression for calibration.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.isotonic import IsotonicRegression

from balaitous.errors import InputError, WeightsError
from balaitous.evaluation.figures import calibration_figure, format_estimate, save
from balaitous.evaluation.matching import in_order, tasks_of
from balaitous.evaluation.metrics import Evaluated, TaskMetrics, logistic_regression, logits, measure
from balaitous.evaluation.tasks import Predictions, Reference, Task, questions_of
from balaitous.evaluation.temperature import FOLDS, fit_temperature, folds_of, not_rising, share_temperature
from balaitous.files import new_folder
from balaitous.models import DEFAULT, MODELS, Model
from balaitous.weights.bundle import BUNDLE_FILE, CARD_FILE, Bundle
from balaitous.weights.calibration import Calibration, Isotonic, Platt, to_dict
from balaitous.weights.card import card_of, in_json
from balaitous.weights.format_1 import as_format_2
from balaitous.weights.pack import free_folder, write_facts

log = logging.getLogger(__name__)

METHODS = ("platt", "isotonic")
TEMPERATURE = "temperature"
KEPT = 0.01  # share of the probability itself in the isotonic map
DECIMALS = 12  # knots further apart than this stay apart when `KEPT` of their distance is what separates them
FIGURE = "calibration"  # .png and .svg, beside the weights


def fit(task: Task, method: str) -> Calibration:
    """Fit a map on predictions of patients that the model was not trained on.

    Raises
    ------
    ValueError : unknown method
    InputError : fewer than `FOLDS` patients of a class, or predictions that do not rise with the outcome
    """
    if method not in MAKERS:
        raise ValueError(f"method must be one of {', '.join(MAKERS)}. Got {method!r} instead.")
    positives, negatives = int(task.outcome.sum()), int((~task.outcome).sum())
    if min(positives, negatives) < FOLDS:
        raise InputError(
            f"{task.title}: calibration needs at least {FOLDS} {task.unit} with and without the outcome, found "
            f"{positives} and {negatives}. Predict more {task.unit}."
        )
    return MAKERS[method](task)


def fit_platt(task: Task) -> Platt:
    """Logistic regression on the logit, with Platt's targets: almost 1 and almost 0, which keeps the slope finite."""
    x, y = logits(task.probability), task.outcome
    target = np.where(y, (y.sum() + 1) / (y.sum() + 2), 1 / ((~y).sum() + 2))
    if x.min() == x.max():
        raise not_rising(task)
    both, weights = np.concatenate([x, x]), np.concatenate([target, 1 - target])
    slope, intercept = logistic_regression(both, np.repeat([1, 0], len(x)), weights)
    if slope <= 0:
        raise not_rising(task)
    return Platt(slope, intercept)


def fit_isotonic(task: Task) -> Isotonic:
    """Isotonic regression, made strictly increasing as the module says."""
    rounded = task.probability.round(DECIMALS)
    model = IsotonicRegression(y_min=0, y_max=1).fit(rounded, task.outcome)
    raw, steps = model.X_thresholds_, model.y_thresholds_
    if steps[0] == steps[-1]:
        raise not_rising(task)
    inner = (raw > 0) & (raw < 1)  # the ends of the map, 0 and 1, are added
    knots = np.concatenate([[0.0], raw[inner], [1.0]])
    heights = (1 - KEPT) * np.interp(knots, raw, steps) + KEPT * knots
    return Isotonic(tuple(knots.tolist()), tuple(heights.tolist()))


def cross_fitted(task: Task, method: str, seed: int = 0) -> Task:
    """The task with calibrated probabilities, each patient's by a map fitted on the other folds.

    What the map does for new patients can be measured on these; on the patients it was fitted on it flatters. As each
    fold has a map of its own, ranks between folds may change; those of `fit`'s one map never do.
    """
    calibrated = np.empty_like(task.probability)
    for fitted, held_out in folds_of(task.outcome, task.groups, seed):
        calibrated[held_out] = MAKERS[method](task.of(fitted))(task.probability[held_out])
    return replace(task, probability=calibrated)


MAKERS: Mapping[str, Callable[[Task], Calibration]] = {
    "platt": fit_platt,
    "isotonic": fit_isotonic,
    TEMPERATURE: fit_temperature,
}


def methods_of(model: Model) -> tuple[str, ...]:
    """How a model can be calibrated, the usual way first."""
    return METHODS if model.name == DEFAULT else (TEMPERATURE,)


def calibrate(
    predictions: Predictions,
    reference: Reference,
    bundle: Bundle,
    out: Path,
    method: str = "platt",
    model: Model = MODELS[DEFAULT],
) -> tuple[Evaluated, Evaluated]:
    """Make a calibrated bundle: the same weights, a map for each task, and the figure of before and after.

    Parameters
    ----------
    predictions, reference : of patients that the bundle was not trained on
    out : the new bundle's folder
    method : one of `methods_of` the model

    Returns
    -------
    what was measured before, and after; the latter on `cross_fitted` probabilities

    Raises
    ------
    ValueError : unknown method, or `out` exists and is not empty
    InputError : as `in_order`, `fit` and `check_origin` say; of temperatures, if no output has one
    WeightsError : the bundle cannot be written
    """
    if method not in methods_of(model):
        raise ValueError(
            f"method must be one of {', '.join(methods_of(model))} for {model.name}. Got {method!r} instead."
        )
    check_origin(predictions, bundle)
    out = free_folder(out)
    probabilities, questions = in_order(predictions, reference, model), questions_of(model)
    tasks = tasks_of(probabilities, reference, questions)
    left_out: dict[str, str] = {}
    if reference.exclusive:
        shared, calibrated = share_temperature(probabilities, reference)
        maps: dict[str, Calibration] = dict.fromkeys(tasks, shared)
        tasks = {key: task for key, task in tasks.items() if not task.gap}
        again = tasks_of(calibrated, reference, questions)
        after_tasks = {key: again[key] for key in tasks}
    else:
        if method == TEMPERATURE:
            tasks, left_out = with_temperature(tasks)
        maps = {key: fit(task, method) for key, task in tasks.items()}
        after_tasks = {key: cross_fitted(task, method) for key, task in tasks.items()}
    before, after = measured("before", tasks), measured("after, cross-fitted", after_tasks)
    facts = {
        each.name: {key: summary(found) for key, found in each.metrics.items() if found} for each in (before, after)
    }
    counts = {reference.unit: {key: len(task.outcome) for key, task in tasks.items()}}
    store(bundle, out, maps, {**counts, **facts, **({"left_out": left_out} if left_out else {})})
    save(calibration_figure([before, after]), out / FIGURE)
    return before, after


def with_temperature(tasks: Mapping[str, Task]) -> tuple[dict[str, Task], dict[str, str]]:
    """The tasks that have a temperature, and why the others have none.

    Raises
    ------
    InputError : none has
    """
    good, left_out = {}, {}
    for key, task in tasks.items():
        try:
            if task.gap:
                raise InputError(task.gap)
            fit(task, TEMPERATURE)
            good[key] = task
        except InputError as error:
            left_out[key] = str(error)
            log.warning("not calibrated: %s", error)
    if not good:
        raise InputError(f"no output can be calibrated, such as {next(iter(left_out.values()))}")
    return good, left_out


def measured(name: str, tasks: Mapping[str, Task]) -> Evaluated:
    """Tasks that have both classes, with what is measured of them. No interval of an area is shown: none is drawn."""
    return Evaluated(name, tasks, {key: measure(task, bootstraps=1) for key, task in tasks.items()})


def summary(metrics: TaskMetrics) -> dict[str, float | None]:
    """Scores that calibration is to improve."""
    fit = metrics.calibration
    return {"brier": metrics.brier, "slope": fit.slope.value, "intercept": fit.intercept.value}


def summary_lines(before: Evaluated, after: Evaluated) -> list[str]:
    """What calibration changes, for a terminal."""
    lines = []
    for key, task in before.tasks.items():
        for model in (before, after):
            if metrics := model.metrics[key]:
                fit = metrics.calibration
                lines.append(
                    f"{task.title}, {model.name}: Brier {metrics.brier:.4f}, slope {format_estimate(fit.slope)}, "
                    f"intercept {format_estimate(fit.intercept)}"
                )
    return lines


def check_origin(predictions: Predictions, bundle: Bundle) -> None:
    """Raise InputError where a table tells that other weights than the bundle's, or a calibration, made it."""
    if predictions.calibrated:
        raise InputError(
            f"{predictions.name}: expected probabilities as the network says them, found calibrated ones. Predict "
            "without --calibrated first."
        )
    if others := predictions.bundles.keys() - {bundle.sha256}:
        raise InputError(
            f"{predictions.name}: expected predictions of the bundle {bundle.name} ({bundle.sha256[:12]}), found those "
            f"of {', '.join(sorted(each[:12] for each in others))}. Predict with this bundle first."
        )


def store(
    bundle: Bundle, out: Path, calibrations: Mapping[str, Calibration], facts: Mapping[str, Any] | None = None
) -> Path:
    """Make a bundle with the same weights, and these maps of its outputs.

    Parameters
    ----------
    out : the new bundle's folder
    facts : on what they were fitted; anything JSON can hold

    Raises
    ------
    ValueError : `out` exists and is not empty
    WeightsError : it cannot be written
    """
    out = free_folder(out)
    try:
        with new_folder(out) as partial:
            shutil.copytree(bundle.folder, partial, dirs_exist_ok=True)
            content = json.loads((partial / BUNDLE_FILE).read_bytes())
            if content["format_version"] == 1:
                content = as_format_2(content)
            maps = {task: to_dict(each) for task, each in calibrations.items()}
            write_facts(partial, content | {"calibration": {**maps, "facts": dict(facts or {})}})
            card = partial / CARD_FILE
            text = card.read_text(encoding="utf-8") if card.exists() else card_of(content)
            methods = ", ".join(f"{task} {each.method}" for task, each in calibrations.items())
            text += f"\n## Calibration\n\nThe same weights; maps were fitted: {methods}.\n\n{in_json(facts or {})}\n"
            card.write_text(text, encoding="utf-8")
    except OSError as error:
        raise WeightsError(f"{out}: the bundle could not be written ({error}). Is there room, and may you?") from None
    return out
