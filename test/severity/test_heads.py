"""Features to probabilities."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from balaitous.severity.heads import Heads, age_feature
from balaitous.severity.heads_file import read_heads
from balaitous.severity.published import STOIC_HEADS

WIDTH = 4


@pytest.fixture
def heads() -> Heads:
    arrays = {}
    for view, alpha in (("full", 0.35), ("lung", 0.65)):
        arrays[f"coef_{view}_covid"], arrays[f"coef_{view}_severe"] = np.arange(4.0), np.array([0, 0, 0, 0, 2.0, -1.0])
        for outcome in ("covid", "severe"):
            arrays[f"intercept_{view}_{outcome}"] = np.array(-1.0)
            arrays[f"alpha_{view}_{outcome}"] = np.array(alpha)
    return Heads(arrays)


def sigmoid(logit: float) -> float:
    return 1 / (1 + np.exp(-logit))


def test_probabilities_are_logistic_and_their_means_weighted(heads):
    out = heads.probabilities({"full": np.ones(WIDTH), "lung": np.zeros(WIDTH)}, age_years=60, sex=1)
    assert out["full_covid"] == pytest.approx(sigmoid(6 - 1))
    assert out["lung_covid"] == pytest.approx(sigmoid(-1))
    assert out["full_severe"] == pytest.approx(sigmoid(2 * 0.6 - 1 - 1))
    assert out["covid"] == pytest.approx(0.35 * sigmoid(5) + 0.65 * sigmoid(-1))


@pytest.mark.parametrize(("age", "feature"), [(0, 0.25), (25, 0.25), (60, 0.6), (95, 0.95), (120, 0.95)])
def test_age_is_in_centuries_within_the_range_of_training(age, feature):
    assert age_feature(age) == pytest.approx(feature)


@given(st.integers(0, 2**32), st.floats(0.1, 20), st.floats(0, 120), st.sampled_from([0.0, 0.5, 1.0]))
def test_probabilities_of_the_published_heads_are_those_of_their_equations(seed, level, age, sex):
    arrays = read_heads(STOIC_HEADS)
    full, lung = np.random.default_rng(seed).normal(scale=level, size=(2, 1024))
    out = Heads(arrays).probabilities({"full": full, "lung": lung}, age, sex)
    expected = {"covid": 0.0, "severe": 0.0}
    for view, features in (("full", full), ("lung", lung)):
        clinical = [min(max(age, 25), 95) / 100, sex]
        for outcome, inputs in (("covid", features), ("severe", [*features, *clinical])):
            head = f"{view}_{outcome}"
            logit = math.fsum(np.multiply(inputs, arrays[f"coef_{head}"])) + float(arrays[f"intercept_{head}"])
            expected[head] = 0.5 + 0.5 * math.tanh(logit / 2)
            expected[outcome] += float(arrays[f"alpha_{head}"]) * expected[head]
    assert out == pytest.approx(expected, abs=1e-12)
    assert all(0 <= value <= 1 for value in out.values())
