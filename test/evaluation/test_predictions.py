"""Predictions from tables, folders of outputs and lists of jobs, matched with their reference one to one."""

import json
import math
import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from balaitous.cohort.scans import Scan
from balaitous.cohort.table import row_of, write_table
from balaitous.container.grand_challenge import write_answers
from balaitous.errors import InputError
from balaitous.evaluation.predictions import (
    DuplicatePredictionsError,
    ExtraPredictionsError,
    InvalidPredictionsError,
    MissingPredictionsError,
    Predictions,
    Reference,
    match,
    read_reference,
)
from balaitous.evaluation.sources import read_predictions

REFERENCE = Reference(["1", "2", "3"], np.array([True, True, False]), np.array([True, False, False]))


def predicted(*patients, failed=()):
    """Predictions of these patients: 0.1, 0.2, … and 0.05 more."""
    covid = np.arange(1, len(patients) + 1) / 10
    return Predictions("table.csv", patients, covid, covid + 0.05, {name: "no lung found." for name in failed})


def job(image, covid=0.75, severe=0.25, pk="a1", key="socket", status="Succeeded"):
    """A job as the platform lists it; outputs of None are not declared."""
    numbers = {"probability-covid-19": covid, "probability-severe-covid-19": severe}
    return {
        "pk": pk,
        "status": status,
        "inputs": [
            {key: {"slug": "age-in-months"}, "value": 420, "image": None},
            {key: {"slug": "ct-image"}, "value": None, "image": {"name": image}},
        ],
        "outputs": [
            {key: {"slug": slug, "relative_path": f"{slug}.json"}, "value": number}
            for slug, number in numbers.items()
            if number is not None
        ],
    }


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def pairs(predictions):
    """{patient: (probability of COVID-19, of a severe outcome)}."""
    return {
        name: (float(covid), float(severe))
        for name, covid, severe in zip(predictions.patients, predictions.covid, predictions.severe, strict=True)
    }


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
    reference = Reference(patients, covid, covid)
    values = np.linspace(0, 1, 9)[list(order)]
    tasks = match(Predictions("t", [patients[each] for each in order], values, 1 - values), reference)
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
    predictions = Predictions("t", ["1", "2", "3"], np.array([0.1, 0.2, 0.3]), np.array([0.1, 0.2, value]))
    with pytest.raises(InvalidPredictionsError, match=r"found others for 3, such as 0\.3 \(COVID-19\) and .*severe"):
        match(predictions, REFERENCE)


def test_of_many_names_the_first_few_are_shown():
    reference = Reference([str(each) for each in range(20)], np.ones(20, bool), np.ones(20, bool))
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
    reference = Reference(["1", "2", "3"], np.array(covid, bool), np.array(severe, bool))
    for task, gap in zip(match(predicted("1", "2", "3"), reference).values(), gaps, strict=True):
        assert (task.gap is None) == (gap is None)
        if gap:
            assert re.match(gap, task.gap)


# --- the reference


def test_a_reference_is_read_as_the_challenge_publishes_it(tmp_path):
    reference = read_reference(write(tmp_path / "r.csv", "\ufeffPatientID,probCOVID,probSevere\n007,1,1.0\nNA, 0,\n"))
    assert list(reference.patients) == ["007", "NA"]
    assert reference.covid.tolist() == [True, False]
    assert reference.severe.tolist() == [True, False]


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


# --- tables


@pytest.mark.parametrize("ending", ["csv", "parquet", "json"])
def test_a_table_of_the_predict_command_is_read(tmp_path, prediction, ending):
    path = tmp_path / f"table.{ending}"
    rows = [row_of(Scan("a/0012.mha"), prediction), row_of(Scan("a/gone.nii.gz"), InputError("no such file"))]
    write_table(rows, path)
    found = read_predictions(path)
    assert pairs(found) == {"0012": (prediction.probability_covid, prediction.probability_severe)}
    assert found.failed == {"gone": "no such file"}
    assert found.bundles == {prediction.provenance.bundle_sha256: "mini"}


@pytest.mark.parametrize("ending", ["csv", "parquet", "json"])
def test_any_table_with_the_three_columns_will_do_and_numbers_may_be_names(tmp_path, ending):
    path = tmp_path / f"t.{ending}"
    table = pd.DataFrame({"probability_severe": [0.5, None], "PatientID": [7, 8], "probability_covid": [0.25, 1]})
    writers = {"csv": table.to_csv, "parquet": table.to_parquet, "json": table.to_json}
    writers[ending](path, **({"orient": "records"} if ending == "json" else {"index": False}))
    found = read_predictions(path)
    assert list(found.patients) == ["7", "8"]
    assert found.covid.tolist() == [0.25, 1]
    assert found.severe[0] == 0.5
    assert math.isnan(found.severe[1])


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("t.csv", "PatientID,probCOVID,probSevere\n1,1,1\n"),
        ("t.parquet", "no parquet"),
        ("t.json", "no json"),
        ("t.json", {"PatientID": 1}),
        ("t.json", [{"PatientID": 1}]),
        ("t.json", []),
        ("t.txt", "text"),
    ],
)
def test_what_is_no_table_of_predictions_is_refused_with_what_is_expected(tmp_path, name, content):
    path = write(tmp_path / name, content)
    with pytest.raises(InputError, match=rf"{name}: .*PatientID, probability_covid, probability_severe"):
        read_predictions(path)


# --- folders of outputs


def answers(folder, cases, several):
    """What our container leaves in /output; of each case (file, the user's name, probabilities or None: it failed)."""
    folder.mkdir(parents=True)
    results = [
        {"file": file, "image_name": name, "status": "ok", "probability_covid": pair[0], "probability_severe": pair[1]}
        if pair
        else {"file": file, "image_name": name, "status": "failed", "error": "no lung found"}
        for file, name, pair in cases
    ]
    write_answers(results, folder, several)


def test_the_outputs_of_a_job_with_several_scans_are_read(tmp_path):
    cases = [("1.mha", None, (0.1, 0.2)), ("2.nii.gz", None, (0.3, 0.4)), ("3.mha", None, None)]
    answers(tmp_path / "out", cases, several=True)
    found = read_predictions(tmp_path / "out")
    assert pairs(found) == {"1": (0.1, 0.2), "2": (0.3, 0.4)}
    assert found.failed == {"3": "no lung found"}


def test_the_outputs_of_a_job_with_one_scan_are_those_of_the_user_s_file(tmp_path):
    answers(tmp_path / "out", [("3f2a-uuid.mha", "199.mha", (0.1, 0.2))], several=False)
    assert pairs(read_predictions(tmp_path / "out")) == {"199": (0.1, 0.2)}


def test_a_folder_of_jobs_is_read_by_the_names_of_scans_else_of_folders(tmp_path):
    answers(tmp_path / "job1", [("uuid.mha", "1.mha", (0.1, 0.2))], several=False)
    answers(tmp_path / "job2/output", [("2.mha", None, (0.3, 0.4))], several=False)
    answers(tmp_path / "job3", [("uuid.mha", "3.mha", None)], several=False)
    # another container writes one pair of files, and no results.json
    write(tmp_path / "4/probability-covid-19.json", 0.5)
    write(tmp_path / "4/probability-severe-covid-19.json", 0.6)
    (tmp_path / "notes").mkdir()
    found = read_predictions(tmp_path)
    assert pairs(found) == {"1": (0.1, 0.2), "2": (0.3, 0.4), "4": (0.5, 0.6)}
    assert found.failed == {"3": "no lung found"}


def test_a_number_that_a_job_did_not_write_is_no_prediction(tmp_path):
    write(tmp_path / "4/probability-covid-19.json", 0.5)
    assert math.isnan(read_predictions(tmp_path).severe[0])


def test_scans_that_have_one_probability_alone_are_named(tmp_path):
    write(tmp_path / "probability-covid.json", {"1.mha": 0.1, "2.mha": 0.2})
    write(tmp_path / "probability-severe-covid.json", {"1.mha": 0.1})
    with pytest.raises(InputError, match=r"found one alone of 2\.mha"):
        read_predictions(tmp_path)


def test_a_folder_without_outputs_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"no probability-covid\.json, .* in it or its sub-folders"):
        read_predictions(tmp_path)


# --- predictions.json


@pytest.mark.parametrize("key", ["socket", "interface"])
@pytest.mark.parametrize("as_folder", [True, False])
def test_a_submission_is_read_from_the_files_of_its_jobs(tmp_path, key, as_folder):
    path = write(tmp_path / "predictions.json", [job("199.mha", 0.1, 0.2, key=key)])
    write(tmp_path / "a1/output/probability-covid-19.json", 0.75)
    write(tmp_path / "a1/output/probability-severe-covid-19.json", 0.25)
    assert pairs(read_predictions(tmp_path if as_folder else path)) == {"199": (0.75, 0.25)}


def test_a_submission_without_files_is_read_from_its_list(tmp_path):
    path = write(tmp_path / "predictions.json", [job("1.mha"), job("2", 0.5, 1, pk="a2")])
    assert pairs(read_predictions(path)) == {"1": (0.75, 0.25), "2": (0.5, 1)}


def test_the_users_of_2021_had_other_names_for_the_outputs(tmp_path):
    old = job("1.mha", key="interface")
    for output in old["outputs"]:
        output["interface"]["slug"] = output["interface"]["slug"].removesuffix("-19")
    assert pairs(read_predictions(write(tmp_path / "predictions.json", [old]))) == {"1": (0.75, 0.25)}


def test_jobs_that_failed_or_say_nothing_are_failures(tmp_path):
    jobs = [job("1.mha"), job("2.mha", pk="a2", status="Failed"), job("3.mha", severe=None, pk="a3")]
    found = read_predictions(write(tmp_path / "predictions.json", jobs))
    assert list(found.patients) == ["1"]
    assert found.failed == {
        "2": "job a2 is Failed",
        "3": "job a3 has no probability_severe among its outputs",
    }


def test_an_output_that_is_no_number_is_no_prediction(tmp_path):
    found = read_predictions(write(tmp_path / "predictions.json", [job("1.mha", covid="0,7", severe=[0.2])]))
    assert np.isnan([found.covid[0], found.severe[0]]).all()


@pytest.mark.parametrize(
    ("jobs", "message"),
    [
        ([{"pk": "a1", "outputs": []}], "a job has no 'inputs'; expected pk, inputs, outputs and status"),
        ([job("1.mha") | {"inputs": []}], r"job a1: expected one image with its name, found \[\]"),
        ([job("1.mha") | {"outputs": [{"value": 1}]}], "a job has no 'interface'"),
        ([{"outputs": None, "inputs": []}, 3], "a job has no"),
    ],
)
def test_what_is_wrong_with_a_submission_is_said(tmp_path, jobs, message):
    with pytest.raises(InputError, match=message):
        read_predictions(write(tmp_path / "predictions.json", jobs))
