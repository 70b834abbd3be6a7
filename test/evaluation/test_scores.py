"""Calls, findings and classes."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    confusion_matrix,
    f1_score,
    precision_score,
    recall_score,
)

from balaitous.evaluation.matching import tasks_of
from balaitous.evaluation.scores import calls_of, classes_of, compare_scores, findings_of, score_task
from balaitous.evaluation.tasks import Reference, Task, questions_of
from helpers.outputs import FINDER, SORTER

BOTH = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=30)


@settings(max_examples=25)
@given(BOTH)
def test_calls_are_scikit_learn_s_and_have_no_value_where_they_divide_by_nothing(pairs):
    outcome, called = np.array(pairs).T
    found = {name: each[0] for name, each in calls_of(outcome, called, np.ones((1, len(outcome)), int)).items()}
    expected = {
        "accuracy": accuracy_score(outcome, called),
        "precision": precision_score(outcome, called, zero_division=np.nan),
        "recall": recall_score(outcome, called, zero_division=np.nan),
        "specificity": recall_score(~outcome, ~called, zero_division=np.nan),
        "f1": f1_score(outcome, called, zero_division=np.nan),
    }
    assert found == pytest.approx(expected, nan_ok=True)


def noisy(seed=0, noise=0.3, items=100):
    generator = np.random.default_rng(seed)
    outcome = generator.random(items) < 0.4
    probability = np.clip(0.25 + 0.5 * outcome + generator.uniform(-noise, noise, items), 0, 1)
    return Task("sick", outcome, probability, np.arange(items) // 2)


def test_a_task_is_scored_at_every_threshold_with_intervals_around_its_values():
    task = noisy()
    scores = score_task(task, [("given", 0.5), ("chosen", 0.3)], 300, 0)
    assert scores.average_precision.value == pytest.approx(average_precision_score(task.outcome, task.probability))
    assert scores.prevalence == task.outcome.mean()
    assert [each.threshold for each in scores.calls] == [0.5, 0.3]
    assert scores.calls[1].confusion == confusion_matrix(task.outcome, task.probability >= 0.3).tolist()
    for estimate in [scores.average_precision, *scores.calls[0].estimates.values()]:
        assert estimate.ci_low < estimate.value < estimate.ci_high


def test_where_nobody_is_called_positive_there_is_no_precision():
    estimates = score_task(noisy(noise=0.2), [("given", 1.0)], 100, 0).calls[0].estimates
    assert estimates["precision"].value is None
    assert estimates["recall"].value == estimates["f1"].value == 0


def test_a_better_model_is_told_from_a_worse_one_in_pairs():
    better, worse = noisy(noise=0.3), noisy(noise=0.9)
    found = compare_scores(better, worse, 0.5, 300, 0)
    assert found["average_precision"].ci_low > 0
    assert found["accuracy"].ci_low > 0
    assert found["accuracy"].value == -compare_scores(worse, better, 0.5, 300, 0)["accuracy"].value


def found(truths, probabilities, bootstraps=100):
    """Findings of the finder: truths and probabilities of each output."""
    reference = Reference(
        [str(each) for each in range(len(truths[0]))],
        dict(zip(FINDER.outputs, np.array(truths, float), strict=False)),
        np.arange(len(truths[0])),
    )
    said = dict(zip(FINDER.outputs, np.array(probabilities, float), strict=True))
    return findings_of(said, reference, tasks_of(said, reference, questions_of(FINDER)), bootstraps, 0)


def test_a_finding_is_ranked_among_all_and_among_those_that_bear_one_beside_the_first_output():
    number = np.arange(80)
    sick, with_round, pale = number < 40, number < 12, (number >= 12) & (number < 32)
    perfect = 1 - number / 100  # falls with the number: ranks all that are round first, and the sick before the well
    each = found([sick, with_round, pale], [0.9 * sick, perfect, 0.5 * pale])
    assert list(each) == ["round", "pale"]
    everywhere, bearing = each["round"].everywhere, each["round"].among_bearing
    assert (everywhere.items, everywhere.positives, bearing.items, bearing.positives) == (80, 12, 32, 12)
    assert (everywhere.prevalence, bearing.prevalence) == (12 / 80, 12 / 32)
    assert everywhere.average_precision.value == bearing.average_precision.value == 1
    assert everywhere.of_first.value == pytest.approx(12 / 40)  # the first output knows the sick, and no more
    assert bearing.of_first.value == pytest.approx(12 / 32)


def test_of_a_finding_in_few_nothing_is_said_but_how_many():
    number = np.arange(40)
    each = found([number < 20, number < 12, number < 9], [number / 40] * 3)["pale"]
    assert (each.everywhere.positives, each.everywhere.items) == (9, 40)
    for estimate in (each.everywhere.average_precision, each.everywhere.of_first, each.among_bearing.average_precision):
        assert estimate.value is None
        assert "too few: 9 with it" in estimate.reason


def test_items_of_which_a_finding_is_not_known_are_left_out_of_it_alone():
    number = np.arange(40)
    with_round = np.where(number == 39, math.nan, number < 12)
    each = found([number < 20, with_round, number < 15], [number / 40] * 3)
    assert each["round"].everywhere.items == 39
    assert each["pale"].everywhere.items == 40


def sorted_items(labels, answers):
    """Classes of the sorter from true and answered numbers; −1 is not known."""
    labels = np.array(labels)
    outcomes = {name: np.where(labels < 0, math.nan, labels == number) for number, name in enumerate(SORTER.outputs)}
    reference = Reference([], outcomes, np.arange(len(labels)), exclusive=True)
    said = dict(zip(SORTER.outputs, np.eye(3)[answers].T * 0.6 + 0.2, strict=True))
    return classes_of(said, reference, SORTER.outputs, 100, 0)


@settings(max_examples=25)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=2, max_size=30))
def test_classes_are_measured_as_scikit_learn_does_over_those_that_there_are(pairs):
    true, answered = np.array(pairs).T
    classes = sorted_items(true, answered)
    assert classes.confusion.tolist() == confusion_matrix(true, answered, labels=range(3)).tolist()
    assert classes.accuracy.value == pytest.approx(accuracy_score(true, answered))
    expected = recall_score(true, answered, labels=np.unique(true), average="macro", zero_division=0)
    assert classes.balanced_accuracy.value == pytest.approx(expected)
    assert classes.macro_f1.value == pytest.approx(
        f1_score(true, answered, labels=np.unique(true), average="macro", zero_division=0)
    )


def test_items_of_no_known_class_are_counted_and_left_out():
    classes = sorted_items([0, 1, -1, 2], [0, 1, 1, 1])
    assert classes.confusion.tolist() == [[1, 0, 0], [0, 1, 0], [0, 1, 0]]
    assert classes.not_known == 1
    assert classes.titles == ("a cat", "a dog", "a cow")
    assert sorted_items([-1, -1], [0, 1]) is None
