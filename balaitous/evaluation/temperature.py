"""Temperatures: what the logits of a network are divided by, so that its probabilities are likeliest on held-out items.

σ(logit / T), T > 0, one number an output. Outputs that exclude each other share one: softmax(logits / T). The logits
are those of the predicted probabilities, so that a table is enough.

References
----------
Guo et al. 2017, arXiv:1706.04599: temperature scaling.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import expit, softmax
from sklearn.metrics import log_loss
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from balaitous.errors import InputError
from balaitous.evaluation.metrics import CLIP, logits
from balaitous.evaluation.tasks import FEWEST, Reference, Task
from balaitous.weights.calibration import Temperature

RANGE = (0.05, 20.0)  # where it is looked for: classes that do not overlap would have 0, what says nothing infinity
FOLDS = 5


def fit_temperature(task: Task) -> Temperature:
    """The temperature of one output.

    Raises
    ------
    InputError : predictions that do not rise with the outcome
    """
    x, y = logits(task.probability), task.outcome
    found = likeliest(lambda temperature: log_loss(y, expit(x / temperature), labels=[False, True]))
    if found is None:
        raise not_rising(task)
    return Temperature(found)


def likeliest(loss: Callable[[float], float]) -> float | None:
    """The temperature with the least loss; None where only ever higher ones lessen it: predictions that say nothing."""
    low, high = np.log(RANGE)
    found = minimize_scalar(lambda each: loss(float(np.exp(each))), bounds=(low, high), method="bounded")
    return None if found.x > high - 0.01 else float(np.exp(found.x))


def share_temperature(
    probabilities: Mapping[str, NDArray[np.float64]], reference: Reference
) -> tuple[Temperature, dict[str, NDArray[np.float64]]]:
    """The temperature of outputs that exclude each other.

    Parameters
    ----------
    probabilities : of each output, as `in_order` gives them

    Returns
    -------
    the temperature, and the probabilities with those of the folds that each item was left out of

    Raises
    ------
    InputError : fewer than two classes have enough items, or predictions do not rise with the outcome
    """
    truth = np.stack([reference.outcomes[output] for output in probabilities], axis=1)
    known = np.isfinite(truth).all(axis=1)
    classes = truth[known].argmax(axis=1)
    counts = truth[known].sum(axis=0)
    if (counts >= FEWEST).sum() < 2:
        shown = ", ".join(f"{count:g} {output}" for output, count in zip(probabilities, counts, strict=True))
        raise InputError(f"expected two classes with at least {FEWEST} items each, found {shown}. Predict more items.")
    stacked = np.stack(list(probabilities.values()), axis=1)
    x = np.log(np.clip(stacked[known], CLIP, 1))

    def fitted(on: NDArray | slice) -> float:
        labels = range(x.shape[1])
        found = likeliest(lambda each: log_loss(classes[on], softmax(x[on] / each, axis=1), labels=labels))
        if found is None:
            raise InputError(
                "expected probabilities that rise with their classes, found that they do not. No calibration can help: "
                "are classes or columns swapped?"
            )
        return found

    calibrated, positions = stacked.copy(), np.flatnonzero(known)
    for part, held_out in folds_of(classes, None if reference.groups is None else reference.groups[known]):
        calibrated[positions[held_out]] = softmax(x[held_out] / fitted(part), axis=1)
    return Temperature(fitted(slice(None))), dict(zip(probabilities, calibrated.T, strict=True))


def folds_of(classes: NDArray, groups: NDArray | None, seed: int = 0) -> Iterator[tuple[NDArray, NDArray]]:
    """Positions that are fitted on, and those that are held out, of each fold; groups stay together."""
    if groups is None:
        return StratifiedKFold(FOLDS, shuffle=True, random_state=seed).split(classes, classes)
    return StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed).split(classes, classes, groups)


def not_rising(task: Task) -> InputError:
    """Why no calibration can help a task."""
    return InputError(
        f"{task.title}: expected predictions that rise with the outcome, found that they do not. No calibration can "
        "help: are outcomes or columns swapped?"
    )
