"""Temperatures."""

import numpy as np
import pytest
from scipy.special import expit, logit, softmax
from sklearn.metrics import log_loss, roc_auc_score

from balaitous.errors import InputError
from balaitous.evaluation.calibration import cross_fitted
from balaitous.evaluation.tasks import Reference, Task
from balaitous.evaluation.temperature import RANGE, fit_temperature, folds_of, share_temperature
from helpers.outputs import SORTER


def heated(temperature, items=6000, seed=0):
    """Predictions whose logits are so many times too large."""
    generator = np.random.default_rng(seed)
    x = generator.normal(size=items)
    return Task("sick", generator.random(items) < expit(x), expit(temperature * x), np.arange(items) // 3)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_the_temperature_is_found_by_which_the_logits_were_multiplied(temperature):
    task = heated(temperature)
    found = fit_temperature(task)
    assert found.temperature == pytest.approx(temperature, rel=0.06)
    calibrated = found(task.probability)
    assert logit(calibrated) == pytest.approx(logit(task.probability) / found.temperature)
    assert roc_auc_score(task.outcome, calibrated) == roc_auc_score(task.outcome, task.probability)
    around = [log_loss(task.outcome, expit(logit(task.probability) / (found.temperature * by))) for by in (0.9, 1, 1.1)]
    assert around[1] == min(around)


def test_predictions_that_say_nothing_or_the_contrary_are_refused():
    task = heated(1)
    for probability in (1 - task.probability, np.full(6000, 0.5)):
        with pytest.raises(InputError, match="sick: expected predictions that rise with the outcome"):
            fit_temperature(Task("sick", task.outcome, probability))


def test_classes_that_do_not_overlap_have_a_temperature_all_the_same():
    probability = np.linspace(0.01, 0.99, 40)
    assert RANGE[0] <= fit_temperature(Task("sick", probability > 0.5, probability)).temperature < 0.1


def test_cross_fitted_probabilities_are_likelier_and_no_patient_helps_to_fit_its_own():
    task = heated(3, items=600)
    after = cross_fitted(task, "temperature")
    assert log_loss(after.outcome, after.probability) < log_loss(task.outcome, task.probability)
    assert after.groups is task.groups
    for fitted, held_out in folds_of(task.outcome, task.groups):
        assert not set(task.groups[fitted]) & set(task.groups[held_out])


def classes(items=3000, by=2.5):
    """Logits of the sorter so many times too large, and what is true; the first is not known."""
    generator = np.random.default_rng(0)
    x = generator.normal(size=(items, 3)) * 1.5
    label = np.array([generator.choice(3, p=softmax(each)) for each in x])
    truth = np.eye(3)[label]
    truth[0] = np.nan
    reference = Reference(
        ["x"] * items, dict(zip(SORTER.outputs, truth.T, strict=True)), np.arange(items), exclusive=True
    )
    return dict(zip(SORTER.outputs, softmax(by * x, axis=1).T, strict=True)), reference, label


def test_classes_share_the_temperature_by_which_their_logits_were_multiplied():
    probabilities, reference, label = classes()
    shared, calibrated = share_temperature(probabilities, reference)
    assert shared.temperature == pytest.approx(2.5, rel=0.06)
    before, after = (np.stack(list(each.values()), axis=1) for each in (probabilities, calibrated))
    assert after.sum(axis=1) == pytest.approx(1)
    assert (after.argmax(axis=1) == before.argmax(axis=1)).all()
    assert log_loss(label[1:], after[1:]) < log_loss(label[1:], before[1:]) - 0.1


def test_too_few_items_of_classes_and_swapped_classes_are_refused():
    probabilities, reference, _ = classes()
    with pytest.raises(InputError, match="two classes with at least 10 items each, found"):
        share_temperature({name: each[:12] for name, each in probabilities.items()}, reference.of(np.arange(3000) < 12))
    cat, dog, cow = probabilities.values()
    turned = dict(zip(probabilities, (1 - cat, 1 - dog, 1 - cow), strict=True))
    with pytest.raises(InputError, match="rise with their classes"):
        share_temperature(turned, reference)
