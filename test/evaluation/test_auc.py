"""The area under the ROC curve: against scikit-learn, a published example, and what intervals and tests promise."""

import numpy as np
import pytest
from grand_challenge_metrics.roc import get_bootstrapped_roc_ci_curves
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from balaitous.evaluation.auc import (
    GRID,
    area,
    compare,
    delong_standard_error,
    placements,
)
from balaitous.evaluation.resampling import percentiles, resampled

# Hanley and McNeil 1982, doi:10.1148/radiology.143.1.7063747, table I: 109 CTs rated from 1, definitely normal, to 5.
RATINGS = np.arange(1, 6)
NORMAL, ABNORMAL = (33, 6, 6, 11, 2), (3, 2, 2, 11, 33)


@st.composite
def cohorts(draw, models=1):
    """(outcome, scores of each model): both classes, two patients each at least, many ties."""
    count = draw(st.integers(4, 40))
    outcome = np.array([True, True, False, False, *draw(st.lists(st.booleans(), min_size=count, max_size=count))])
    score = st.integers(0, 6).map(float) | st.floats(-1e3, 1e3)
    return outcome, *(
        np.array(draw(st.lists(score, min_size=len(outcome), max_size=len(outcome)))) for _ in range(models)
    )


def simulated(seed, patients=300, separation=1.0):
    """A cohort of two normal distributions, half the patients each."""
    generator = np.random.default_rng(seed)
    outcome = np.arange(patients) % 2 == 0
    return outcome, generator.normal(size=patients) + separation * outcome


@given(cohorts())
def test_the_area_is_that_of_scikit_learn_also_with_ties(cohort):
    outcome, scores = cohort
    positive, negative = placements(outcome, scores)
    expected = roc_auc_score(outcome, scores)
    assert positive.mean() == pytest.approx(expected, abs=1e-12)
    assert negative.mean() == pytest.approx(expected, abs=1e-12)


@given(cohorts(models=2))
def test_the_variance_is_that_of_delong_s_definition_for_one_model_and_for_a_difference(cohort):
    outcome, first, second = cohort

    def by_pairs(scores):
        """Every positive against every negative: 1 where ranked right, 1/2 where tied; the paper's equations 4 to 6."""
        pairs = scores[outcome][:, None] - scores[~outcome]
        right = (pairs > 0) + 0.5 * (pairs == 0)
        return right.mean(axis=1), right.mean(axis=0)

    (v10, v01), (w10, w01) = by_pairs(first), by_pairs(second)
    covariance = np.cov(v10, w10) / len(v10) + np.cov(v01, w01) / len(v01)
    assert delong_standard_error(*placements(outcome, first)) ** 2 == pytest.approx(covariance[0, 0], abs=1e-12)
    difference = compare(outcome, first, second, bootstraps=1)
    half_width = (difference.delong.ci_high - difference.delong.ci_low) / 2
    if abs(difference.delong.ci_high) < 1 and abs(difference.delong.ci_low) < 1:
        expected = covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]
        assert (half_width / norm.ppf(0.975)) ** 2 == pytest.approx(expected, abs=1e-12)


def test_the_published_example_is_reproduced():
    outcome = np.repeat([False, True], [sum(NORMAL), sum(ABNORMAL)])
    scores = np.concatenate([np.repeat(RATINGS, NORMAL), np.repeat(RATINGS, ABNORMAL)])
    found = area(outcome, scores)
    # as the manual of Stata's roctab prints them for these data
    assert round(found.delong.value, 4) == 0.8932
    assert round(found.standard_error, 4) == 0.0307
    assert (round(found.delong.ci_low, 5), round(found.delong.ci_high, 5)) == (0.83295, 0.95339)


@given(cohorts())
def test_bootstrapped_areas_are_those_of_the_drawn_patients(cohort):
    outcome, scores = cohort
    ((counts,),) = list(resampled([scores], outcome, 5, seed=3))
    distinct = -np.unique(-scores)
    for sample, found in enumerate(counts.areas()):
        drawn = np.concatenate(
            [np.repeat(distinct, counts.positives[sample]), np.repeat(distinct, counts.negatives[sample])]
        )
        truth = np.arange(len(drawn)) < outcome.sum()
        assert len(drawn) == len(outcome)
        assert found == pytest.approx(roc_auc_score(truth, drawn), abs=1e-12)


def test_every_patient_is_drawn_and_each_class_keeps_its_size():
    outcome, scores = simulated(0, patients=40)
    ((counts,),) = list(resampled([scores], outcome, 400, seed=0))
    assert (counts.positives.sum(axis=1) == outcome.sum()).all()
    assert (counts.negatives.sum(axis=1) == (~outcome).sum()).all()
    assert ((counts.positives + counts.negatives).sum(axis=0) > 0).all()


def test_the_same_seed_gives_the_same_interval_whatever_else_was_drawn():
    outcome, scores = simulated(1)
    np.random.default_rng().random()
    first, second, other = (area(outcome, scores, 200, seed) for seed in (5, 5, 6))
    assert first.bootstrap == second.bootstrap != other.bootstrap
    assert (first.band == second.band).all()


@pytest.mark.parametrize("separation", [0.0, 0.7, 1.5])
def test_bootstrap_and_delong_intervals_agree(separation):
    outcome, scores = simulated(2, patients=600, separation=separation)
    found = area(outcome, scores)
    width = found.delong.ci_high - found.delong.ci_low
    assert found.bootstrap.ci_low == pytest.approx(found.delong.ci_low, abs=0.1 * width)
    assert found.bootstrap.ci_high == pytest.approx(found.delong.ci_high, abs=0.1 * width)


def test_interval_and_band_are_the_platform_s_own():
    outcome, scores = simulated(3, patients=600)
    ours = area(outcome, scores, bootstraps=300)
    theirs = get_bootstrapped_roc_ci_curves(scores, outcome, num_bootstraps=300)  # of the patients in another order
    assert ours.bootstrap.ci_low == pytest.approx(theirs.low_az_val, abs=0.01)
    assert ours.bootstrap.ci_high == pytest.approx(theirs.high_az_val, abs=0.01)
    assert theirs.fpr_vals == pytest.approx(GRID)
    assert ours.band.shape == (2, len(GRID))
    assert np.abs(ours.band - [theirs.low_tpr_vals, theirs.high_tpr_vals]).mean() < 0.02


def test_the_interval_is_about_that_of_a_bootstrap_of_each_class_for_itself():
    outcome, scores = simulated(3, patients=600)
    ours = area(outcome, scores, bootstraps=500).bootstrap
    drawn = np.concatenate([counts.areas() for (counts,) in resampled([scores], outcome, 500, seed=0)])
    assert (ours.ci_low, ours.ci_high) == pytest.approx(percentiles(drawn), abs=0.01)


def test_the_platform_never_draws_the_last_patient_but_we_do():
    outcome, scores = np.array([True, False, False, False]), np.array([2.0, 1.0, 1.0, 3.0])
    assert get_bootstrapped_roc_ci_curves(scores, outcome, 50).low_az_val == 1, "mended: the copy of the last may go"
    for seed in range(4):  # whoever comes last
        assert area(outcome, scores, 100, seed).bootstrap.ci_low < 1


@pytest.mark.parametrize("outcome", [[True, False], [False, False, False, True], [True, True, False]])
def test_classes_of_one_patient_are_drawn_whatever_their_place(outcome):
    outcome = np.array(outcome)
    for seed in range(3):
        found = area(outcome, np.arange(len(outcome), dtype=float), 50, seed)
        assert 0 <= found.bootstrap.ci_low <= found.bootstrap.ci_high <= 1


def test_delong_s_intervals_cover_the_true_area_about_as_often_as_they_say():
    truth = norm.cdf(1 / np.sqrt(2))  # of two normal distributions one standard deviation apart
    found = [area(*simulated(seed, patients=100), bootstraps=1).delong for seed in range(200)]
    # 95 % of 200 is 190, with a standard deviation of 3; it is known to be a little narrow in small samples
    assert 180 <= sum(each.ci_low <= truth <= each.ci_high for each in found) <= 199


@given(cohorts())
def test_a_model_does_not_differ_from_itself(cohort):
    outcome, scores = cohort
    found = compare(outcome, scores, 2 * scores, bootstraps=50)
    assert found.delong.value == 0
    assert found.p_value_delong == found.p_value_bootstrap == 1


@settings(max_examples=25)
@given(cohorts(models=2))
def test_the_difference_changes_its_sign_with_the_order_of_the_models(cohort):
    outcome, first, second = cohort
    one, other = compare(outcome, first, second, 100), compare(outcome, second, first, 100)
    assert one.delong.value == pytest.approx(-other.delong.value, abs=1e-12)
    assert one.p_value_delong == pytest.approx(other.p_value_delong)
    assert one.p_value_bootstrap == other.p_value_bootstrap


def test_a_clearly_better_model_is_told_from_a_worse_one():
    outcome, scores = simulated(4)
    worse = scores + 2 * np.random.default_rng(4).normal(size=len(scores))
    found = compare(outcome, scores, worse)
    assert found.delong.value == pytest.approx(roc_auc_score(outcome, scores) - roc_auc_score(outcome, worse))
    assert found.delong.ci_low > 0
    assert found.bootstrap.ci_low > 0
    assert found.p_value_delong < 0.001
    assert found.p_value_bootstrap < 0.01


def test_equally_good_models_are_seldom_told_apart():
    p_values = []
    for seed in range(200):
        outcome, scores = simulated(seed, patients=120)
        noise = np.random.default_rng(1000 + seed).normal(size=(2, len(scores)))
        p_values.append(compare(outcome, scores + noise[0], scores + noise[1], bootstraps=1).p_value_delong)
    assert 0.01 <= np.mean(np.array(p_values) < 0.05) <= 0.1
    assert 0.4 <= np.mean(p_values) <= 0.6


def test_classes_that_do_not_overlap_get_a_warning_beside_their_interval():
    found = area(np.array([False, False, True, True]), np.array([0.1, 0.2, 0.8, 0.9]), bootstraps=50)
    assert (found.delong.value, found.delong.ci_low, found.delong.ci_high) == (1, 1, 1)
    assert (
        found.delong.reason == "the classes do not overlap: the interval has no width, whatever the number of patients"
    )


def test_a_class_of_one_patient_has_an_area_but_no_delong_interval():
    outcome, scores = np.array([True, False, False]), np.array([0.5, 0.4, 0.6])
    found = area(outcome, scores, bootstraps=50)
    assert (found.delong.value, found.delong.ci_low, found.standard_error) == (0.5, None, None)
    assert found.delong.reason == "no interval: a class has a single patient"
    assert compare(outcome, scores, -scores).p_value_delong is None
