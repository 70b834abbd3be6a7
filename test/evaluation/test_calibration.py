"""Calibration: better probabilities, the same ranking, kept beside the weights."""

import json

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.special import expit
from sklearn.metrics import brier_score_loss, roc_auc_score

from balaitous.errors import InputError, WeightsError
from balaitous.evaluation.calibration import (
    KEPT,
    METHODS,
    calibrate,
    check_origin,
    cross_fitted,
    fit,
    store,
)
from balaitous.evaluation.tasks import Predictions, Reference, Task
from balaitous.severity.parts import open_parts
from balaitous.weights.bundle import FORMAT_VERSION, open_bundle
from balaitous.weights.calibration import Isotonic, Platt, from_dict, stored_in, to_dict
from balaitous.weights.inventory import verify
from balaitous.weights.search import find_bundle

OUTPUTS = ("covid", "severe")
MAPS = (Platt(0.5, -0.3), Isotonic((0.0, 0.4, 1.0), (0.1, 0.2, 0.9)))


@pytest.fixture(scope="module")
def mini():
    return open_bundle(find_bundle("mini"))


def miscalibrated(seed, patients=1500):
    """Predictions whose logits are twice too large and one too high."""
    generator = np.random.default_rng(seed)
    logit = generator.normal(size=patients)
    return Task("COVID-19", generator.random(patients) < expit(logit), expit(2 * logit + 1))


@st.composite
def tasks(draw):
    """Tasks as models leave them: probabilities of any size that float32 can tell apart, with ties."""
    outcome = np.array([True, False] * 5 + draw(st.lists(st.booleans(), max_size=40)))
    value = st.floats(0, 1, width=32).map(lambda each: round(each, 6))
    return Task("COVID-19", outcome, np.array(draw(st.lists(value, min_size=len(outcome), max_size=len(outcome)))))


def fitted(task, method):
    """The map, where there is one to be had."""
    try:
        return fit(task, method)
    except InputError:
        assume(False)


@pytest.mark.parametrize("method", METHODS)
def test_calibration_improves_the_brier_score_of_new_patients_and_leaves_their_ranking(method):
    old, new = miscalibrated(0), miscalibrated(1)
    calibrated = fit(old, method)(new.probability)
    assert brier_score_loss(new.outcome, calibrated) < brier_score_loss(new.outcome, new.probability) - 0.02
    assert roc_auc_score(new.outcome, calibrated) == roc_auc_score(new.outcome, new.probability)


@pytest.mark.parametrize("method", METHODS)
@given(task=tasks())
def test_calibration_never_changes_the_area_nor_leaves_the_probabilities(method, task):
    calibrated = fitted(task, method)(task.probability)
    assert ((calibrated >= 0) & (calibrated <= 1)).all()
    assert roc_auc_score(task.outcome, calibrated) == roc_auc_score(task.outcome, task.probability)
    order = np.argsort(task.probability)
    rises = np.diff(task.probability[order]) > 0
    # an almost flat map near 0 or 1 may reach the end of what float64 can tell apart
    assert (np.diff(calibrated[order])[rises] >= 0).all()
    assert (np.diff(calibrated[order])[~rises] == 0).all()


@given(task=tasks())
def test_the_isotonic_map_stays_near_the_step_function_and_has_no_steps(task):
    isotonic = fitted(task, "isotonic")
    assert (np.diff(isotonic.raw) > 0).all()
    assert (np.diff(isotonic.calibrated) > 0).all()
    assert (isotonic.raw[0], isotonic.raw[-1]) == (0, 1)
    # what is left when the share of the probability itself is taken away does not fall, and lies in [0, 1]
    steps = (np.array(isotonic.calibrated) - KEPT * np.array(isotonic.raw)) / (1 - KEPT)
    assert (np.diff(steps) >= -1e-9).all()
    assert -1e-9 <= steps[0] <= steps[-1] <= 1 + 1e-9


def test_platt_finds_what_was_done_to_the_logits():
    platt = fit(miscalibrated(2, patients=20_000), "platt")
    assert platt.slope == pytest.approx(0.5, abs=0.03)
    assert platt.intercept == pytest.approx(-0.5, abs=0.05)


def test_platt_stays_finite_where_the_classes_do_not_overlap():
    probability = np.linspace(0.01, 0.99, 20)
    platt = fit(Task("COVID-19", probability > 0.5, probability), "platt")
    assert 0 < platt.slope < 10


def test_certain_predictions_stay_certain_under_platt():
    assert Platt(0.5, -0.3)(np.array([0.0, 0.5, 1.0])).tolist() == [0, expit(-0.3), 1]


@pytest.mark.parametrize("method", METHODS)
def test_cross_fitted_probabilities_are_calibrated_ones_of_the_same_patients(method):
    task = miscalibrated(3)
    found = cross_fitted(task, method)
    assert found.outcome is task.outcome
    assert brier_score_loss(found.outcome, found.probability) < brier_score_loss(task.outcome, task.probability)
    assert roc_auc_score(found.outcome, found.probability) == pytest.approx(
        roc_auc_score(task.outcome, task.probability), abs=0.01
    )


@pytest.mark.parametrize("method", METHODS)
def test_predictions_that_fall_with_the_outcome_are_refused(method):
    task = miscalibrated(4)
    with pytest.raises(InputError, match="rise with the outcome, found that they do not"):
        fit(Task(task.title, task.outcome, 1 - task.probability), method)


@pytest.mark.parametrize("method", METHODS)
def test_predictions_that_are_all_the_same_are_refused(method):
    with pytest.raises(InputError, match="rise with the outcome, found that they do not"):
        fit(Task("COVID-19", np.arange(20) % 2 == 0, np.full(20, 0.5)), method)


def test_too_few_patients_of_a_class_are_refused():
    with pytest.raises(InputError, match="at least 5 patients with and without the outcome, found 4 and 16"):
        fit(Task("COVID-19", np.arange(20) < 4, np.linspace(0, 1, 20)), "platt")


def test_unknown_methods_are_refused():
    with pytest.raises(ValueError, match=r"method must be one of platt, isotonic, temperature\. Got 'beta'"):
        fit(miscalibrated(5), "beta")


# --- in a bundle


@pytest.mark.parametrize("calibration", MAPS)
def test_maps_survive_json(calibration):
    assert from_dict(json.loads(json.dumps(to_dict(calibration)))) == calibration


@given(tasks())
def test_every_map_that_was_fitted_can_be_stored(task):
    for method in METHODS:
        calibration = fitted(task, method)
        assert from_dict(json.loads(json.dumps(to_dict(calibration)))) == calibration


def test_a_bundle_is_never_calibrated_unless_asked_for(mini):
    assert stored_in(mini, OUTPUTS) == {}


def test_a_calibrated_bundle_has_the_same_weights_and_another_hash(tmp_path, mini):
    out = store(mini, tmp_path / "new", dict(zip(("covid", "severe"), MAPS, strict=True)), {"patients": 3})
    bundle = open_bundle(out)
    assert stored_in(bundle, OUTPUTS) == {"covid": MAPS[0], "severe": MAPS[1]}
    assert bundle.files == mini.files
    assert bundle.sha256 != mini.sha256
    assert all(check.ok for check in verify(out))
    assert [path.name for path in tmp_path.iterdir()] == ["new"]
    with pytest.raises(ValueError, match="new or empty folder"):
        store(mini, out, {})


def test_a_calibrated_bundle_is_of_format_2_says_the_same_of_its_networks_and_has_a_card(tmp_path, mini):
    assert json.loads((mini.folder / "bundle.json").read_text())["format_version"] == 1
    out = store(mini, tmp_path / "new", {"covid": MAPS[0]}, {"patients": 31})
    facts = json.loads((out / "bundle.json").read_text())
    assert (facts["format_version"], facts["model"]) == (FORMAT_VERSION, "severity")
    assert "heads" not in facts
    bundle = open_parts(out)
    assert (bundle.networks, bundle.arrays) == (mini.networks, mini.arrays)
    card = (out / "CARD.md").read_text()
    assert card.startswith((mini.folder / "CARD.md").read_text())
    assert "covid platt" in card
    assert '"patients": 31' in card


@pytest.mark.parametrize(
    "content",
    [
        {"method": "platt", "slope": -1.0, "intercept": 0.0},
        {"method": "platt", "slope": 1.0, "intercept": float("nan")},
        {"method": "platt", "slope": 1.0},
        {"method": "beta"},
        {"method": "isotonic", "raw": [0, 0.5, 1], "calibrated": [0.1, 0.1, 0.9]},
        {"method": "isotonic", "raw": [0, 0.5, 0.5, 1], "calibrated": [0.1, 0.2, 0.3, 0.9]},
        {"method": "isotonic", "raw": [0.1, 1], "calibrated": [0.1, 0.9]},
        {"method": "isotonic", "raw": [0, 1], "calibrated": [0.1, 1.9]},
        {"method": "isotonic", "raw": [0, 1], "calibrated": [0.1, 0.5, 0.9]},
        {"method": "isotonic", "raw": [], "calibrated": []},
        "platt",
    ],
)
def test_maps_that_do_not_rise_strictly_are_refused(tmp_path, mini, content):
    out = store(mini, tmp_path / "new", {})
    facts = json.loads((out / "bundle.json").read_text()) | {"calibration": {"covid": content}}
    (out / "bundle.json").write_text(json.dumps(facts))
    with pytest.raises(WeightsError, match=r"expected strictly increasing calibration maps|NaN, which is no number"):
        stored_in(open_bundle(out), OUTPUTS)


def test_predictions_of_other_weights_do_not_calibrate_a_bundle(mini):
    predictions = Predictions("table.csv", [], {}, bundles={mini.sha256: "mini", "ab" * 32: "x"})
    with pytest.raises(InputError, match=f"predictions of the bundle mini .* found those of {'ab' * 6}"):
        check_origin(predictions, mini)


@pytest.mark.parametrize("method", METHODS)
def test_a_bundle_is_calibrated_from_predictions_with_figures_of_before_and_after(tmp_path, mini, method):
    covid = miscalibrated(6, patients=1200)
    severe = miscalibrated(7, patients=1200)
    patients = [str(each) for each in range(1200)]
    predictions = Predictions(
        "p.csv", patients, {"covid": covid.probability, "severe": severe.probability}, bundles={mini.sha256: "mini"}
    )
    reference = Reference(patients, {"covid": covid.outcome * 1.0, "severe": severe.outcome * 1.0})
    before, after = calibrate(predictions, reference, mini, tmp_path / "new", method)
    for key in ("covid", "severe"):
        assert after.metrics[key].brier < before.metrics[key].brier
        slope_before, slope_after = (each.metrics[key].calibration.slope.value for each in (before, after))
        # isotonic regression makes the extremes more extreme, which costs slope on patients it has not seen
        assert abs(slope_after - 1) < abs(slope_before - 1) * (0.5 if method == "platt" else 0.9)
    assert len(before.tasks["severe"].outcome) == covid.outcome.sum()
    bundle = open_bundle(tmp_path / "new")
    maps = stored_in(bundle, OUTPUTS)
    assert maps.keys() == {"covid", "severe"}
    for key, task in before.tasks.items():
        assert roc_auc_score(task.outcome, maps[key](task.probability)) == before.metrics[key].auc.delong.value
    facts = json.loads((bundle.folder / "bundle.json").read_text())["calibration"]["facts"]
    assert facts["before"]["covid"]["brier"] == before.metrics["covid"].brier
    assert all((bundle.folder / f"calibration.{ending}").stat().st_size > 10_000 for ending in ("png", "svg"))
