"""Who is predicted, who is known, and what is asked of whom."""

import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from balaitous.evaluation.matching import (
    DuplicatePredictionsError,
    ExtraPredictionsError,
    InvalidPredictionsError,
    MissingPredictionsError,
    match,
)
from balaitous.evaluation.tasks import PATH, Predictions, Reference
from helpers.outputs import FINDER


def asked(patients, covid, severe):
    """A reference of severity's two questions."""
    return Reference(patients, {"covid": np.array(covid, float), "severe": np.array(severe, float)})


def answers(covid, severe):
    return {"covid": np.array(covid), "severe": np.array(severe)}


REFERENCE = asked(["1", "2", "3"], [1, 1, 0], [1, 0, 0])


def predicted(*patients, failed=()):
    """Predictions of these patients: 0.1, 0.2, … and 0.05 more."""
    covid = np.arange(1, len(patients) + 1) / 10
    return Predictions("table.csv", patients, answers(covid, covid + 0.05), {name: "no lung found." for name in failed})


def test_covid_is_asked_of_all_and_severity_of_those_with_covid():
    tasks = match(predicted("3", "2", "1"), REFERENCE)
    assert tasks["covid"].outcome.tolist() == [True, True, False]
    assert tasks["covid"].probability == pytest.approx([0.3, 0.2, 0.1])
    assert tasks["severe"].outcome.tolist() == [True, False]
    assert tasks["severe"].probability == pytest.approx([0.35, 0.25])


@given(st.permutations(range(9)))
def test_the_order_of_predictions_does_not_matter(order):
    patients = [str(each) for each in range(9)]
    covid = np.arange(9) % 2 == 0
    reference = asked(patients, covid, covid)
    values = np.linspace(0, 1, 9)[list(order)]
    tasks = match(Predictions("t", [patients[each] for each in order], answers(values, 1 - values)), reference)
    assert tasks["covid"].probability == pytest.approx(np.linspace(0, 1, 9))


@pytest.mark.parametrize(
    ("predictions", "error", "message"),
    [
        (predicted("1", "2"), MissingPredictionsError, r"one prediction for each of 3 patients, found none for 3\. "),
        (predicted("1", failed=["2", "3"]), MissingPredictionsError, r"for 2, 3 \(2 failed; 2: no lung found\)\. "),
        (predicted("1", "2", "3", "4"), ExtraPredictionsError, r"table\.csv: expected .* found some of others: 4\. "),
        (predicted("1", "2", "3", failed=["x"]), ExtraPredictionsError, "others: x"),
        (predicted("1", "2", "3", "1"), DuplicatePredictionsError, r"found several for 1\. Keep one"),
        (predicted("1", "2", "3", failed=["3"]), DuplicatePredictionsError, "several for 3"),
    ],
)
def test_who_is_missing_extra_or_duplicate_is_named(predictions, error, message):
    with pytest.raises(error, match=message):
        match(predictions, REFERENCE)


@pytest.mark.parametrize("value", [math.nan, math.inf, -0.1, 1.1])
def test_what_is_no_probability_is_refused_also_where_it_would_not_count(value):
    predictions = Predictions("t", ["1", "2", "3"], answers([0.1, 0.2, 0.3], [0.1, 0.2, value]))
    with pytest.raises(InvalidPredictionsError, match=r"found others for 3, such as 0\.3 \(COVID-19\) and .*severe"):
        match(predictions, REFERENCE)


def test_of_many_names_the_first_few_are_shown():
    reference = asked([str(each) for each in range(20)], np.ones(20), np.ones(20))
    with pytest.raises(MissingPredictionsError, match="found none for 1, 2, 3, 4, 5 and 14 more"):
        match(predicted("0"), reference)


@pytest.mark.parametrize(
    ("covid", "severe", "gaps"),
    [
        ([1, 1, 1], [1, 0, 0], ("COVID-19: needs .* 3 with it among 3", None)),
        ([0, 0, 0], [0, 0, 0], ("COVID-19: .* 0 with it among 3", "Severe outcome: .* 0 with it among 0")),
        ([1, 1, 0], [0, 0, 0], (None, "Severe outcome: .* found 0 with it among 2")),
    ],
)
def test_an_absent_class_is_said(covid, severe, gaps):
    reference = asked(["1", "2", "3"], covid, severe)
    for task, gap in zip(match(predicted("1", "2", "3"), reference).values(), gaps, strict=True):
        assert (task.gap is None) == (gap is None)
        if gap:
            assert re.match(gap, task.gap)


# --- other models


def finder(names, **more):
    """Predictions of the finder, 0.1 and 0.2 and 0.3 of each item."""
    columns = np.tile([0.1, 0.2, 0.3], (len(names), 1)).T
    return Predictions("t.csv", names, dict(zip(FINDER.outputs, columns, strict=True)), **more)


def known(names, key="PatientID", **outcomes):
    groups = np.arange(len(names))
    return Reference(names, {name: np.array(each, float) for name, each in outcomes.items()}, groups, key=key)


def test_every_output_is_asked_of_those_whose_truth_is_known_and_the_rest_is_counted():
    reference = known(["1", "2", "3"], sick=[1, 0, math.nan], round=[math.nan, math.nan, 1])
    tasks = match(finder(["3", "1", "2"]), reference, FINDER)
    assert list(tasks) == ["sick", "round"]
    assert tasks["sick"].outcome.tolist() == [True, False]
    assert (tasks["sick"].not_known, tasks["round"].not_known) == (1, 2)
    assert tasks["round"].probability.tolist() == [0.2]
    assert tasks["round"].groups.tolist() == [2]


def test_a_probability_that_is_none_is_refused_of_every_output_also_of_one_that_is_not_asked():
    predictions = finder(["1", "2"])
    predictions.probabilities["pale"][1] = math.nan
    message = (
        r"expected 3 finite numbers in \[0, 1\] for every item, found others for 2, such as 0\.1 \(sick\) and 0\.2"
    )
    with pytest.raises(InvalidPredictionsError, match=message):
        match(predictions, known(["1", "2"], sick=[0, 1]), FINDER)


def test_few_with_the_outcome_are_too_few():
    reference = known([str(each) for each in range(30)], sick=np.arange(30) < 9, round=np.arange(30) < 10)
    tasks = match(finder(reference.patients), reference, FINDER)
    assert tasks["sick"].gap == "sick: too few: 9 with it among 30 items, at least 10 are needed"
    assert tasks["round"].gap is None


def test_a_path_of_the_reference_is_the_end_of_a_predicted_one():
    reference = known(["sick/1.png", "1.png", "./well/1.png"], PATH, sick=[1, 0, 0])
    predictions = finder(["/data/well/1.png", "/data/other/1.png", "/data/sick/1.png"])
    predictions.probabilities["sick"][:] = [0.7, 0.8, 0.9]
    assert match(predictions, reference, FINDER)["sick"].probability.tolist() == [0.9, 0.8, 0.7]


@pytest.mark.parametrize(
    ("paths", "error", "message"),
    [
        (["/a/1.png", "/b/1.png"], DuplicatePredictionsError, r"found several for 1\.png"),
        (["/a/11.png"], ExtraPredictionsError, r"others: /a/11\.png"),
        ([], MissingPredictionsError, r"each of 1 items, found none for 1\.png \(1 failed; 1\.png: no picture\)"),
    ],
)
def test_paths_that_do_not_fit_are_named(paths, error, message):
    predictions = finder(paths, failed={} if paths else {"/a/1.png": "no picture"})
    with pytest.raises(error, match=message):
        match(predictions, known(["1.png"], PATH, sick=[1]), FINDER)
