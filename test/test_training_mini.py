"""What the bundle mini is made with: synthetic cohorts, encoder training, heads."""

import dataclasses

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from balaitous.networks.vit import ClassTokenEncoder
from balaitous.severity.heads import Heads
from balaitous.training.encoder import patch_shares, seen, train_encoder
from balaitous.training.lung_cases import phantom_case
from balaitous.training.mini import fit_heads, fit_logistic
from balaitous.training.synthetic import make_cohort


@pytest.fixture(scope="module")
def cohort():
    return make_cohort([phantom_case(1), phantom_case(2)], 6, seed=4, workers=2)


def test_a_cohort_is_the_same_for_the_same_seed_whatever_the_workers(cohort):
    again = make_cohort([phantom_case(1), phantom_case(2)], 6, seed=4, workers=1)
    for first, second in zip(cohort, again, strict=True):
        for field in dataclasses.fields(first):
            assert np.array_equal(getattr(first, field.name), getattr(second, field.name)), field.name


def test_lesions_lie_in_the_lung_of_scans_with_covid_only(cohort):
    assert {scan.covid for scan in cohort} == {True, False}
    for scan in cohort:
        assert scan.image.shape == scan.mask.shape == scan.lesions.shape
        assert scan.image.shape[1:] == (224, 224)
        assert scan.lesions.any() == scan.covid
        assert (scan.burden > 0) == scan.covid
        assert scan.covid or not scan.severe
        # the mask drops parts of a slice that hold no air, lesions there are not seen
        assert (scan.lesions & ~scan.mask).sum() <= 0.2 * scan.lesions.sum()


def test_the_lung_view_is_air_outside_the_lung(cohort):
    lung = seen(cohort[0], "lung")
    assert (lung[~cohort[0].mask] == -1024).all()
    assert np.array_equal(seen(cohort[0], "full"), cohort[0].image)


def test_patch_shares_are_counted_row_by_row():
    lesions = torch.zeros(1, 224, 224, dtype=torch.bool)
    lesions[0, :16, 16:32] = True
    lesions[0, 16:24, :16] = True
    shares = patch_shares(lesions)
    assert shares.shape == (1, 196)
    assert shares[0, 1] == 1
    assert shares[0, 14] == 0.5
    assert shares.sum() == 1.5


def test_encoder_training_resumed_ends_with_the_same_weights(cohort, tmp_path, monkeypatch):
    monkeypatch.setattr("balaitous.training.encoder.CHECKPOINT_STEPS", 2)

    def trained(checkpoint):
        torch.manual_seed(0)
        encoder = ClassTokenEncoder("vit_tiny_patch16_224", 1)
        train_encoder(encoder, cohort, view="lung", steps=4, batch=2, checkpoint=checkpoint)
        return encoder.state_dict()

    real_save = torch.save

    def save_and_stop(state, path):
        real_save(state, path)
        path.replace(tmp_path / "resumed.pt")
        raise KeyboardInterrupt

    whole = trained(tmp_path / "whole.pt")
    monkeypatch.setattr(torch, "save", save_and_stop)
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "resumed.pt")
    monkeypatch.setattr(torch, "save", real_save)
    resumed = trained(tmp_path / "resumed.pt")
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)


def test_a_logistic_regression_s_scaling_is_folded_into_its_coefficients():
    rng = np.random.default_rng(0)
    inputs = rng.normal([5, -3, 0.1], [10, 0.1, 0.001], (400, 3))
    outcome = rng.random(400) < 1 / (1 + np.exp(-(inputs[:, 0] - 5) / 5))
    coef, intercept = fit_logistic(inputs, outcome, seed=0)
    reference = LogisticRegression(C=np.inf).fit(inputs[:, :1], outcome)
    expected = reference.predict_proba(inputs[:, :1])[:, 1]
    found = 1 / (1 + np.exp(-(inputs @ coef + intercept)))
    assert np.abs(found - expected).mean() < 0.05


def test_heads_learn_covid_on_all_and_severity_on_covid_only():
    rng = np.random.default_rng(1)
    features = {view: rng.normal(size=(500, 4)) for view in ("full", "lung")}
    covid = features["full"][:, 0] + features["lung"][:, 0] > 0
    age_years, sex = rng.uniform(30, 90, 500), rng.integers(0, 2, 500).astype(float)
    severe = covid & (age_years > 60)
    heads = Heads(fit_heads(features, covid, severe, age_years, sex))
    zero = {view: np.zeros(4) for view in features}
    sick = {view: np.array([3.0, 0, 0, 0]) for view in features}
    assert heads.probabilities(sick, 50, 0)["covid"] > 0.95 > 0.7 > heads.probabilities(zero, 50, 0)["covid"]
    assert heads.probabilities(sick, 90, 0)["severe"] > 0.8 > 0.2 > heads.probabilities(sick, 30, 0)["severe"]
