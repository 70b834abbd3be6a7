"""Who is predicted, who is known, and what is asked of whom."""

import json
import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from balaitous.errors import InputError
from balaitous.evaluation.matching import (
    DuplicatePredictionsError,
    ExtraPredictionsError,
    InvalidPredictionsError,
    MissingPredictionsError,
    match,
)
from balaitous.evaluation.tasks import Predictions, Reference, read_reference


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


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


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


# --- the reference


def test_a_reference_is_read_as_the_challenge_publishes_it(tmp_path):
    reference = read_reference(write(tmp_path / "r.csv", "\ufeffPatientID,probCOVID,probSevere\n007,1,1.0\nNA, 0,\n"))
    assert list(reference.patients) == ["007", "NA"]
    assert reference.outcomes["covid"].tolist() == [1, 0]
    assert reference.outcomes["severe"].tolist() == [1, 0]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("PatientID,probCOVID\n1,1\n", r"expected the columns PatientID, probCOVID, probSevere; probSevere not found"),
        ("PatientID,probCOVID,probSevere\n1,1,2\n2,0.5,0\n3,1,0\n", r"something else for 1, 2\. Correct these lines"),
        ("PatientID,probCOVID,probSevere\n1,1,\n", "something else for 1"),
        ("PatientID,probCOVID,probSevere\n1,1,1\n1,0,0\n", "found twice or more: 1"),
        ("PatientID,probCOVID,probSevere\n", "expected a line for every patient, found none"),
        ("", "expected a CSV with PatientID, probCOVID, probSevere; found: No columns"),
    ],
)
def test_what_is_wrong_with_a_reference_is_said(tmp_path, content, message):
    with pytest.raises(InputError, match=message):
        read_reference(write(tmp_path / "r.csv", content))


def test_a_reference_that_is_not_there_is_said(tmp_path):
    with pytest.raises(InputError, match=r"gone\.csv: expected a CSV .* found: No such file"):
        read_reference(tmp_path / "gone.csv")
