"""Intervals of groups that are drawn whole."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from balaitous.evaluation.auc import GRID, area, compare, delong_standard_error, placements
from balaitous.evaluation.resampling import counts_of, draws_of, interval


@st.composite
def items(draw):
    """(outcome, scores, how often each is drawn): both classes, many ties, none drawn of some."""
    count = draw(st.integers(0, 30))
    outcome = np.array([True, False, *draw(st.lists(st.booleans(), min_size=count, max_size=count))])
    score = st.sampled_from([0.0, 0.25, 0.5]) | st.floats(0, 1)
    scores = np.array(draw(st.lists(score, min_size=count + 2, max_size=count + 2)))
    weights = np.array([1, 1, *draw(st.lists(st.integers(0, 3), min_size=count, max_size=count))])
    return outcome, scores, weights


@settings(max_examples=30)
@given(items())
def test_area_and_average_precision_of_a_draw_are_scikit_learn_s(cohort):
    outcome, scores, weights = cohort
    counts = counts_of(outcome, scores, weights[None])
    drawn = np.repeat(outcome, weights), np.repeat(scores, weights)
    assert counts.areas()[0] == pytest.approx(roc_auc_score(*drawn), abs=1e-12)
    assert counts.average_precisions()[0] == pytest.approx(average_precision_score(*drawn), abs=1e-12)


def test_the_curve_of_a_draw_is_scikit_learn_s():
    generator = np.random.default_rng(0)
    outcome, scores = generator.random(200) < 0.4, generator.normal(size=200)
    false, true, _ = roc_curve(outcome, scores, drop_intermediate=False)
    found = counts_of(outcome, scores, np.ones((1, 200), int)).sensitivities(GRID)[0]
    assert found == pytest.approx(np.interp(GRID, false, true))


def test_a_draw_without_a_class_has_no_value():
    counts = counts_of(np.array([True, False]), np.array([0.2, 0.1]), np.array([[1, 1], [2, 0], [0, 2]]))
    assert np.isnan(counts.areas()).tolist() == [False, True, True]
    assert np.isnan(counts.average_precisions()).tolist() == [False, False, True]


def test_groups_are_drawn_whole_as_many_as_there_are_and_the_same_of_the_same_seed():
    groups = np.array([5, 5, 5, 7, 9, 9])
    (drawn,) = draws_of(groups, 300, seed=1)
    assert drawn.shape == (300, 6)
    assert (drawn[:, [0, 0, 4]] == drawn[:, [1, 2, 5]]).all()
    assert (drawn[:, [0, 3, 4]].sum(axis=1) == 3).all()
    assert set(drawn[:, 3].tolist()) == {0, 1, 2, 3}
    assert (drawn == next(iter(draws_of(groups, 300, seed=1)))).all()
    assert (drawn != next(iter(draws_of(groups, 300, seed=2)))).any()


def alike(patients, pictures, seed):
    """Patients of several pictures each, which all have the same score: (outcome, scores, groups)."""
    generator = np.random.default_rng(seed)
    outcome = np.arange(patients) % 2 == 0
    scores = generator.normal(size=patients) + outcome
    return (np.repeat(each, pictures) for each in (outcome, scores, np.arange(patients)))


def test_copies_of_pictures_do_not_narrow_the_interval_of_groups():
    outcome, scores, groups = alike(60, 5, seed=0)
    whole = area(outcome, scores, 1000, 0, groups)
    once = area(outcome[::5], scores[::5], 1000, 0, groups[::5])
    for name in ("delong", "bootstrap"):
        widths = [getattr(each, name).ci_high - getattr(each, name).ci_low for each in (whole, once)]
        assert widths[0] == pytest.approx(widths[1], rel=0.02)
    assert whole.standard_error == pytest.approx(once.standard_error, rel=0.001)
    assert np.abs(whole.band - once.band).max() < 0.02
    assert whole.standard_error > 2 * area(outcome, scores, 1).standard_error  # √5 times, for whom copies are patients


@settings(max_examples=30)
@given(items())
def test_of_groups_of_one_delong_s_variance_is_as_without_groups(cohort):
    outcome, scores, _ = cohort
    outcome, scores = np.append(outcome, [True, False]), np.append(scores, [0.3, 0.4])
    placed, number = placements(outcome, scores), np.arange(len(outcome))
    grouped = delong_standard_error(*placed, number[outcome], number[~outcome])
    assert grouped == pytest.approx(delong_standard_error(*placed), abs=1e-12)


def test_intervals_of_groups_cover_the_true_area_about_as_often_as_they_say():
    true, covered = 0.5, {"delong": 0, "bootstrap": 0}
    for seed in range(100):
        generator = np.random.default_rng(seed)
        groups = np.repeat(np.arange(80), 3)
        outcome = generator.random(240) < 0.5  # patients have pictures of both classes, whose scores are alike
        scores = generator.normal(size=80)[groups] + 0.5 * generator.normal(size=240)
        found = area(outcome, scores, 200, seed, groups)
        for name in covered:
            covered[name] += getattr(found, name).ci_low <= true <= getattr(found, name).ci_high
    assert all(88 <= count <= 100 for count in covered.values()), covered


def test_two_models_on_groups_are_compared_in_pairs():
    outcome, scores, groups = alike(200, 2, seed=1)
    worse = scores + np.random.default_rng(2).normal(size=400) * 2
    found = compare(outcome, scores, worse, 500, 0, groups)
    assert found.delong.ci_low > 0
    assert found.p_value_delong < 0.01
    assert found.bootstrap.ci_low == pytest.approx(found.delong.ci_low, abs=0.03)
    same = compare(outcome, scores, scores, 500, 0, groups)
    assert (same.bootstrap.ci_low, same.bootstrap.ci_high, same.p_value_bootstrap) == (0, 0, 1)


def test_where_a_class_lies_in_one_group_there_is_no_interval():
    outcome = np.array([True, True, False, False, False])
    found = area(outcome, np.arange(5)[::-1].astype(float), 200, 0, np.array([0, 0, 1, 2, 3]))
    assert found.delong.value == 1
    assert found.delong.ci_low is None


def test_an_interval_is_not_given_where_most_draws_have_no_value():
    assert interval(0.5, np.array([0.4, np.nan, np.nan])).reason.startswith("no interval")
    assert interval(0.5, np.array([0.4, 0.6, np.nan])).ci_low == pytest.approx(0.405)
    assert interval(np.nan, np.array([0.4])).value is None
