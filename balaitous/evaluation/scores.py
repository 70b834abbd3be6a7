"""What is measured of ranking and of calls, with intervals that draw groups of items whole: average precision, F1 …

Values are scikit-learn's, which tests compare; here they come from the same sums as those of the bootstrap's draws.

References
----------
Saito, Rehmsmeier 2015, doi:10.1371/journal.pone.0118432: average precision beside the
prevalence, where few are positive.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import confusion_matrix

from balaitous.evaluation.resampling import Estimate, counts_of, draws_of, interval
from balaitous.evaluation.tasks import Reference, Task

CALLS = ("accuracy", "precision", "recall", "specificity", "f1")

Values = dict[str, NDArray[np.float64]]  # (samples,) of each measure


@dataclass(frozen=True)
class Calls:
    """What comes of calling a probability of at least `threshold` positive.

    Attributes
    ----------
    chosen : how the threshold was found
    confusion : [[true negatives, false positives], [false negatives, true positives]], as scikit-learn has it
    estimates : of each of `CALLS`
    """

    chosen: str
    threshold: float
    confusion: list[list[int]]
    estimates: Mapping[str, Estimate]


@dataclass(frozen=True)
class Scores:
    """Of one task.

    Attributes
    ----------
    prevalence : the average precision of a model that knows nothing
    calls : at each threshold
    """

    prevalence: float
    average_precision: Estimate
    calls: tuple[Calls, ...]


@dataclass(frozen=True)
class Ranked:
    """How well the items that bear a finding are ranked before others.

    Attributes
    ----------
    prevalence : None of no items
    average_precision, of_first : by the finding's own output, and by the model's first output in its place
    """

    items: int
    positives: int
    prevalence: float | None
    average_precision: Estimate
    of_first: Estimate


@dataclass(frozen=True)
class Finding:
    """An output after the first, among all items, and among those that bear any of these findings."""

    title: str
    everywhere: Ranked
    among_bearing: Ranked


@dataclass(frozen=True)
class Classes:
    """Outputs that exclude each other: the largest probability is what is answered.

    Attributes
    ----------
    titles : of the outputs
    confusion : (true, answered) numbers of items
    accuracy, balanced_accuracy, macro_f1 : the latter two are means over the classes that the reference has
    not_known : items whose class is not known
    """

    titles: tuple[str, ...]
    confusion: NDArray[np.int64]
    accuracy: Estimate
    balanced_accuracy: Estimate
    macro_f1: Estimate
    not_known: int


def score_task(task: Task, thresholds: Sequence[tuple[str, float]], bootstraps: int, seed: int) -> Scores:
    """Score a task that has groups and both classes.

    Parameters
    ----------
    thresholds : how each was found, and the threshold
    """
    outcome, probability = task.outcome, task.probability
    calls = []
    for chosen, threshold in thresholds:
        called = probability >= threshold
        counts = confusion_matrix(outcome, called, labels=[False, True]).tolist()
        estimates = estimated(partial(calls_of, outcome, called), task.groups, bootstraps, seed)
        calls.append(Calls(chosen, threshold, counts, estimates))
    return Scores(float(outcome.mean()), average_precision(task, probability, bootstraps, seed), tuple(calls))


def average_precision(task: Task, scores: NDArray, bootstraps: int, seed: int) -> Estimate:
    """Average precision of some scores of a task's items."""
    name = "average_precision"
    return estimated(
        lambda weights: {name: precisions_of(task.outcome, scores, weights)}, task.groups, bootstraps, seed
    )[name]


def precisions_of(outcome: NDArray, scores: NDArray, weights: NDArray) -> NDArray[np.float64]:
    """(samples,) average precision."""
    return counts_of(outcome, scores, weights).average_precisions()


def calls_of(outcome: NDArray, called: NDArray, weights: NDArray) -> Values:
    """Each of `CALLS` in each sample; NaN where it divides by nothing.

    Parameters
    ----------
    outcome, called : (items,) bool
    weights : (samples, items) how often each item is in each sample
    """
    true_positives, false_positives = weights @ (outcome & called), weights @ (~outcome & called)
    false_negatives, true_negatives = weights @ (outcome & ~called), weights @ (~outcome & ~called)
    with np.errstate(invalid="ignore"):
        return {
            "accuracy": (true_positives + true_negatives) / weights.sum(axis=1),
            "precision": true_positives / (true_positives + false_positives),
            "recall": true_positives / (true_positives + false_negatives),
            "specificity": true_negatives / (true_negatives + false_positives),
            "f1": 2 * true_positives / (2 * true_positives + false_positives + false_negatives),
        }


def estimated(
    values: Callable[[NDArray], Values], groups: NDArray | None, bootstraps: int, seed: int
) -> dict[str, Estimate]:
    """Every measure with its interval.

    Parameters
    ----------
    values : takes weights (samples, items), gives (samples,) of each measure
    """
    assert groups is not None
    once = values(np.ones((1, len(groups)), np.int64))
    drawn = [values(weights) for weights in draws_of(groups, bootstraps, seed)]
    return {name: interval(float(once[name][0]), np.concatenate([each[name] for each in drawn])) for name in once}


def compare_scores(first: Task, second: Task, threshold: float, bootstraps: int, seed: int) -> dict[str, Estimate]:
    """First minus second on the same items: average precision, and `CALLS` at a threshold; groups are drawn whole."""

    def differences(weights: NDArray) -> Values:
        each = [
            {"average_precision": precisions_of(task.outcome, task.probability, weights)}
            | calls_of(task.outcome, task.probability >= threshold, weights)
            for task in (first, second)
        ]
        return {name: each[0][name] - each[1][name] for name in each[0]}

    return estimated(differences, first.groups, bootstraps, seed)


def findings_of(
    probabilities: Mapping[str, NDArray[np.float64]],
    reference: Reference,
    tasks: Mapping[str, Task],
    bootstraps: int,
    seed: int,
) -> dict[str, Finding]:
    """The outputs after the first, if they do not exclude each other: what each ranks that the first alone does not.

    Parameters
    ----------
    probabilities, tasks : as `in_order` and `tasks_of` give them
    """
    first, *others = probabilities
    others = [output for output in others if output in reference.outcomes]
    if reference.exclusive or not others:
        return {}
    bearing = np.any([reference.outcomes[output] == 1 for output in others], axis=0)
    findings = {}
    for output in others:
        known = np.isfinite(reference.outcomes[output])
        everywhere, among = tasks[output], tasks[output].of(bearing[known])
        of_first = probabilities[first][known]
        findings[output] = Finding(
            everywhere.title,
            ranked(everywhere, of_first, bootstraps, seed),
            ranked(among, of_first[bearing[known]], bootstraps, seed),
        )
    return findings


def ranked(task: Task, of_first: NDArray, bootstraps: int, seed: int) -> Ranked:
    """How a task's items are ranked, and how the first output ranks them, or why that cannot be said."""
    count, positives = len(task.outcome), int(task.outcome.sum())
    by_each = [
        Estimate(None, reason=task.gap) if task.gap else average_precision(task, scores, bootstraps, seed)
        for scores in (task.probability, of_first)
    ]
    return Ranked(count, positives, positives / count if count else None, *by_each)


def classes_of(
    probabilities: Mapping[str, NDArray[np.float64]],
    reference: Reference,
    titles: Mapping[str, str],
    bootstraps: int,
    seed: int,
) -> Classes | None:
    """Which class is answered for each; None where outputs do not exclude each other, or no class is known."""
    truth = np.stack([reference.outcomes[output] for output in probabilities], axis=1) if reference.exclusive else None
    if truth is None or not np.isfinite(truth).any():
        return None
    known = np.isfinite(truth).all(axis=1)
    there, number = truth[known].any(axis=0), len(probabilities)
    answered = np.stack(list(probabilities.values()), axis=1)[known].argmax(axis=1)
    cells = np.eye(number * number, dtype=np.int64)[truth[known].argmax(axis=1) * number + answered]  # (items, cells)

    def values(weights: NDArray) -> Values:
        confusion = (weights @ cells).reshape(-1, number, number)
        right = np.diagonal(confusion, axis1=1, axis2=2)
        true, called = confusion.sum(axis=2), confusion.sum(axis=1)
        with np.errstate(invalid="ignore"):
            recall, f1 = right / true, 2 * right / (true + called)
        return {
            "accuracy": right.sum(axis=1) / true.sum(axis=1),
            "balanced_accuracy": recall[:, there].mean(axis=1),
            "macro_f1": f1[:, there].mean(axis=1),
        }

    groups = None if reference.groups is None else reference.groups[known]
    return Classes(
        tuple(titles[output] for output in probabilities),
        cells.sum(axis=0).reshape(number, number),
        **estimated(values, groups, bootstraps, seed),
        not_known=int((~known).sum()),
    )
