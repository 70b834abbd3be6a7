"""Heads are fitted on features and cross-validated: nothing of a patient set aside is known to what predicts it."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss, roc_auc_score

from balaitous.errors import InputError
from balaitous.evaluation.auc import area
from balaitous.severity.heads import Heads
from balaitous.severity.heads_file import check_heads
from balaitous.training.heads.fit import (
    KEYS,
    FeatureTable,
    best_weight,
    cross_validate,
    fit_and_predict,
    fit_head,
    fit_heads,
    predict,
)
from balaitous.training.heads.report import fold_areas, table, task_of

WIDTH = 12


def patients(count=240, seed=0, signal=1.5):
    """Patients whose first features tell the outcomes, a little more in the lung's view."""
    rng = np.random.default_rng(seed)
    covid = rng.random(count) < 0.6
    age, sex = rng.uniform(30, 90, count), rng.integers(0, 2, count).astype(float)
    severe = covid & (rng.random(count) < expit((age - 65) / 15))
    features = {view: rng.normal(size=(count, WIDTH)) * 5 + 3 for view in ("full", "lung")}
    features["full"][:, 0] += signal * covid
    features["lung"][:, 0] += 3 * signal * covid
    features["lung"][:, 1] += 3 * signal * severe
    return FeatureTable([f"{i:04d}" for i in range(count)], features, age, sex, {"covid": covid, "severe": severe})


@pytest.fixture(scope="module")
def data():
    return patients()


@pytest.fixture(scope="module")
def found(data):
    return cross_validate(data, repeats=2, folds=4, jobs=1)


def test_the_fitted_heads_are_those_of_a_bundle_and_tell_the_classes_apart(data):
    arrays = fit_heads(data)
    check_heads({name: np.asarray(array, float) for name, array in arrays.items()}, {}, source="test")
    new = patients(seed=1)
    predicted = predict(Heads(arrays), new)
    assert roc_auc_score(new.outcomes["covid"], predicted["covid"]) > 0.75
    assert (
        roc_auc_score(new.outcomes["severe"][new.outcomes["covid"]], predicted["severe"][new.outcomes["covid"]]) > 0.7
    )


def test_severity_is_learned_from_patients_with_covid_only(data):
    covid, severe = data.outcomes["covid"], data.outcomes["severe"]
    relabelled = replace(data, outcomes={"covid": covid, "severe": severe ^ ~covid})
    again = fit_heads(relabelled)
    for name, array in fit_heads(data).items():
        assert np.array_equal(array, again[name]), name


def test_the_scaling_is_folded_into_the_coefficients(data):
    x, y = data.features["lung"], data.outcomes["covid"]
    head = fit_head(x, y)
    standardised = (x - x.mean(0)) / x.std(0)
    reference = LogisticRegression(C=head.strength, max_iter=2000, tol=1e-8).fit(standardised, y)
    assert expit(x @ head.coef + head.intercept) == pytest.approx(reference.predict_proba(standardised)[:, 1], abs=2e-3)


@given(st.floats(1e-3, 1e3), st.floats(-100, 100))
@settings(max_examples=10)
def test_the_unit_of_the_features_does_not_matter(scale, shift):
    data = patients(80)
    x = data.features["lung"]
    head, scaled = fit_head(x, data.outcomes["covid"]), fit_head(x * scale + shift, data.outcomes["covid"])
    before = expit(x @ head.coef + head.intercept)
    after = expit((x * scale + shift) @ scaled.coef + scaled.intercept)
    assert after == pytest.approx(before, abs=1e-3)


def test_held_out_predictions_are_made_without_the_patient(data):
    """A feature that names each patient helps to learn the training set by heart, and nobody else."""
    covid = data.outcomes["covid"]
    head = fit_head(np.eye(len(covid)), covid)
    assert log_loss(covid, head.out_of_fold) >= log_loss(covid, np.full(len(covid), covid.mean())) - 1e-6


def test_all_components_are_all_features(data):
    x, y = data.features["lung"], data.outcomes["covid"]
    every, few = fit_head(x, y, components=WIDTH), fit_head(x, y, components=2)
    assert every.coef == pytest.approx(fit_head(x, y).coef)
    standardised = (x - x.mean(0)) / x.std(0)
    principal = np.linalg.svd(standardised, full_matrices=False)[2][:2]  # the axes with the largest variance
    standardised_coef = few.coef * x.std(0)
    assert standardised_coef == pytest.approx(standardised_coef @ principal.T @ principal, abs=1e-5)
    assert np.abs(principal @ standardised_coef).min() > 1e-3  # both are used


def test_the_better_view_weighs_more(data):
    truth = data.outcomes["covid"]
    good, useless = np.where(truth, 0.9, 0.1), np.full(len(truth), truth.mean())
    assert best_weight(good, useless, truth) == 1
    assert best_weight(useless, good, truth) == 0
    assert best_weight(good, good, truth) == 0.5


@pytest.mark.slow
def test_every_patient_is_set_aside_once_a_repeat_with_its_share_of_every_class(data, found):
    for numbers in found.folds:
        sizes = [np.bincount(data.strata[numbers == fold], minlength=3) for fold in range(4)]
        assert np.ptp(sizes, axis=0).max() <= 1
    assert not np.array_equal(*found.folds)
    for key in KEYS:
        assert ((found.out_of_fold[key] > 0) & (found.out_of_fold[key] < 1)).all()


def test_outcomes_of_patients_set_aside_are_known_to_nothing_that_predicts_them(data):
    fitted, held_out = np.arange(180), np.arange(180, 240)
    turned = replace(data, outcomes={outcome: truth.copy() for outcome, truth in data.outcomes.items()})
    for truth in turned.outcomes.values():
        truth[held_out] ^= True
    before = fit_and_predict(data, fitted, held_out, None, 0)
    after = fit_and_predict(turned, fitted, held_out, None, 0)
    assert all(np.array_equal(before[key], after[key]) for key in KEYS)


@pytest.mark.slow
@pytest.mark.parametrize("outcome", ["covid", "severe"])
def test_shuffled_outcomes_cannot_be_predicted(data, outcome):
    """With about as many features as patients any leak would show."""
    found = []
    for seed in range(4):
        rng = np.random.default_rng(seed)
        order = rng.permutation(len(data.outcomes["covid"]))
        noise = {view: rng.normal(size=(len(order), 60)) for view in data.features}
        shuffled = replace(data, features=noise, outcomes={name: truth[order] for name, truth in data.outcomes.items()})
        task = task_of(shuffled, outcome, cross_validate(shuffled, repeats=1, folds=4, jobs=1).pooled(outcome))
        found.append(area(task.outcome, task.probability, bootstraps=100).delong)
    assert np.mean([each.value for each in found]) == pytest.approx(0.5, abs=0.08)
    assert sum(each.ci_low < 0.5 < each.ci_high for each in found) >= 3


@pytest.mark.slow
def test_the_same_seed_gives_the_same_predictions_whatever_the_processes(data, found):
    again = cross_validate(data, repeats=2, folds=4, jobs=2)
    for key in KEYS:
        assert again.out_of_fold[key] == pytest.approx(found.out_of_fold[key], abs=1e-9)


@pytest.mark.slow
def test_the_table_has_mean_and_deviation_over_all_folds(data, found):
    spreads = fold_areas(data, found)
    assert spreads["lung_covid"].folds == 8
    assert spreads["lung_covid"].mean > spreads["full_covid"].mean
    covid, severe = data.outcomes["covid"], data.outcomes["severe"]
    for outcome, truth, asked in (("covid", covid, covid | True), ("severe", severe, covid)):
        areas = [
            roc_auc_score(truth[asked & (numbers == fold)], probabilities[asked & (numbers == fold)])
            for numbers, probabilities in zip(found.folds, found.out_of_fold[outcome], strict=True)
            for fold in range(4)
        ]
        assert spreads[outcome].mean == pytest.approx(np.mean(areas))
        assert spreads[outcome].deviation == pytest.approx(np.std(areas, ddof=1))
    assert f"| both | {100 * spreads['severe'].mean:.2f} ± {100 * spreads['severe'].deviation:.2f} |" in table(spreads)


def test_too_few_patients_of_a_class_are_refused(data):
    few = data.of(np.flatnonzero(data.strata < 2))
    with pytest.raises(InputError, match=r"at least 8 patients .* as 8 folds need; found \d+, \d+, 0\. Add patients"):
        cross_validate(few)
