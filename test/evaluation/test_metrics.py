"""Operating points, Brier score and calibration of a task."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, logit
from sklearn.metrics import brier_score_loss

from balaitous.evaluation.metrics import (
    BINS,
    calibration_curve,
    calibration_intercept,
    calibration_slope,
    measure,
    operating_points,
    proportion,
)
from balaitous.evaluation.tasks import Task


def simulated(slope=1.0, intercept=0.0, patients=4000, seed=0):
    """A task whose true logits are slope · predicted logit + intercept."""
    generator = np.random.default_rng(seed)
    predicted = generator.normal(size=patients)
    outcome = generator.random(patients) < expit(slope * predicted + intercept)
    return Task("COVID-19", outcome, expit(predicted))


@st.composite
def tasks(draw):
    """Small tasks with both classes and many ties."""
    count = draw(st.integers(0, 30))
    outcome = np.array([True, False, *draw(st.lists(st.booleans(), min_size=count, max_size=count))])
    value = st.sampled_from([0.0, 0.25, 0.5, 1.0]) | st.floats(0, 1)
    probability = draw(st.lists(value, min_size=len(outcome), max_size=len(outcome)))
    return Task("COVID-19", outcome, np.array(probability))


@pytest.mark.parametrize(
    ("count", "total", "interval"),
    [(81, 263, (0.2553, 0.3662)), (15, 148, (0.0624, 0.1605)), (0, 20, (0.0, 0.1611)), (1, 29, (0.0061, 0.1718))],
)
def test_intervals_of_proportions_are_those_of_newcombe_s_table(count, total, interval):
    # Newcombe 1998, doi:10.1002/(SICI)1097-0258(19980430)17:8<857::AID-SIM777>3.0.CO;2-E, table I, method 3
    found = proportion(np.arange(total) < count)
    assert (round(found.ci_low, 4), round(found.ci_high, 4)) == interval
    assert found.value == count / total


def test_sensitivity_and_specificity_at_a_given_threshold_are_counted():
    task = Task("COVID-19", np.array([1, 1, 1, 0, 0], bool), np.array([0.9, 0.5, 0.1, 0.5, 0.2]))
    point = operating_points(task, [("given", 0.5)])[0]
    assert point.threshold == 0.5
    assert point.sensitivity.value == pytest.approx(2 / 3)  # 0.5 itself is called positive
    assert point.specificity.value == 1 / 2


@settings(max_examples=50)
@given(tasks())
def test_the_chosen_points_are_the_best_that_any_threshold_gives(task):
    youden, sensitive, specific = operating_points(task, [])
    every = [operating_points(task, [("", each)])[0] for each in np.unique(task.probability)]
    sums = [each.sensitivity.value + each.specificity.value for each in every]
    assert youden.sensitivity.value + youden.specificity.value == pytest.approx(max([*sums, 1]))
    assert sensitive.sensitivity.value >= 0.9
    assert sensitive.specificity.value == max(e.specificity.value for e in every if e.sensitivity.value >= 0.9)
    assert specific.specificity.value >= 0.9
    reached = [each.sensitivity.value for each in every if each.specificity.value >= 0.9]
    assert specific.sensitivity.value == max([*reached, 0])


def test_where_no_threshold_is_specific_enough_nobody_is_called_positive():
    task = Task("COVID-19", np.array([False, True]), np.array([0.7, 0.2]))
    point = operating_points(task, [])[-1]
    assert point.threshold is None  # infinite, which JSON does not know
    assert (point.sensitivity.value, point.specificity.value) == (0, 1)


@pytest.mark.parametrize(("slope", "intercept"), [(1, 0), (0.4, 0), (1.8, 0), (1, -1), (1, 0.7)])
def test_slope_and_intercept_say_how_predictions_relate_to_outcomes(slope, intercept):
    task = simulated(slope, intercept, patients=20_000)
    found = calibration_slope(task)
    assert found.ci_low < slope < found.ci_high
    if slope == 1:
        found = calibration_intercept(task)
        assert found.ci_low < intercept < found.ci_high


def test_the_intervals_of_slope_and_intercept_cover_the_truth_about_as_often_as_they_say():
    slopes, intercepts = [], []
    for seed in range(200):
        task = simulated(patients=300, seed=seed)
        slope, intercept = calibration_slope(task), calibration_intercept(task)
        slopes.append(slope.ci_low <= 1 <= slope.ci_high)
        intercepts.append(intercept.ci_low <= 0 <= intercept.ci_high)
    assert 180 <= sum(slopes) <= 199
    assert 180 <= sum(intercepts) <= 199


@given(tasks())
def test_after_the_intercept_is_added_the_mean_probability_is_the_prevalence(task):
    found = calibration_intercept(task).value
    shifted = expit(logit(np.clip(task.probability, 1e-6, 1 - 1e-6)) + found)
    assert shifted.mean() == pytest.approx(task.outcome.mean(), abs=1e-6)


@given(tasks())
def test_the_curve_counts_every_patient_once_from_low_to_high(task):
    curve = calibration_curve(task)
    sizes = np.array([each.patients for each in curve])
    assert len(curve) <= BINS
    assert sizes.sum() == len(task.outcome)
    assert (np.diff([each.predicted for each in curve]) > 0).all()
    assert sizes @ [each.predicted for each in curve] / sizes.sum() == pytest.approx(task.probability.mean())
    assert sizes @ [each.observed.value for each in curve] / sizes.sum() == pytest.approx(task.outcome.mean())


def test_the_curve_of_a_calibrated_model_lies_on_the_diagonal():
    curve = calibration_curve(simulated(patients=20_000))
    assert [each.patients for each in curve] == [2000] * BINS
    assert all(abs(each.predicted - each.observed.value) < 0.04 for each in curve)


@pytest.mark.parametrize("probability", [[0.1, 0.2, 0.8, 0.9], [0.9, 0.8, 0.2, 0.1], [0.1, 0.5, 0.5, 0.9]])
def test_classes_that_do_not_overlap_have_no_slope(probability):
    found = calibration_slope(Task("COVID-19", np.array([False, False, True, True]), np.array(probability)))
    assert found.value is None
    assert found.reason == "no slope: the classes do not overlap, it would be infinite"


def test_predictions_that_are_all_the_same_have_no_slope():
    found = calibration_slope(Task("COVID-19", np.array([False, True]), np.array([0.3, 0.3])))
    assert found.reason == "no slope: all predictions are the same"


@settings(max_examples=50)
@given(tasks())
def test_whatever_can_be_measured_is_finite_and_its_interval_holds_it(task):
    found = measure(task, bootstraps=1)
    assert found.brier == pytest.approx(brier_score_loss(task.outcome, task.probability))
    points = [each for point in found.points for each in (point.sensitivity, point.specificity)]
    fit = found.calibration
    for each in (found.auc.delong, fit.slope, fit.intercept, *points, *(bin.observed for bin in fit.curve)):
        if each.value is not None and each.ci_low is not None:
            assert np.isfinite([each.value, each.ci_low, each.ci_high]).all()
            assert each.ci_low - 1e-12 <= each.value <= each.ci_high + 1e-12
