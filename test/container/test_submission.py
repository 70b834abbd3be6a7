"""Outputs of jobs, and submissions of many."""

import json
import math
import re
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from balaitous.container.grand_challenge import write_answers
from balaitous.container.submission import read_predictions
from balaitous.errors import InputError
from helpers.predictions import pairs


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
    assert math.isnan(read_predictions(tmp_path).probabilities["severe"][0])


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
    assert np.isnan([each[0] for each in found.probabilities.values()]).all()


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


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pk": "../a1"}, "the name of a job's folder as pk, found '../a1'"),
        ({"pk": "/etc"}, "the name of a job's folder as pk, found '/etc'"),
        ({"pk": ".."}, "the name of a job's folder as pk, found '..'"),
        ({"path": "../../secret.json"}, "expected a file in it as probability-covid, found '../../secret.json'"),
        ({"path": "x/../../secret.json"}, "found '../secret.json'"),
        ({"path": "/secret.json"}, "found '/secret.json'"),
    ],
)
def test_a_submission_s_list_cannot_have_files_elsewhere_read(tmp_path, changes, message):
    one = job("P1.mha")
    one |= {"pk": changes.get("pk", "a1")}
    for output in one["outputs"]:
        output["socket"]["relative_path"] = changes.get("path", "x.json")
    write(tmp_path / "secret.json", "0.5")
    with pytest.raises(InputError, match=re.escape(message)):
        read_predictions(write(tmp_path / "predictions.json", [one]))


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner, max_size=2),
    max_leaves=5,
)
SOCKET = st.fixed_dictionaries(
    {"socket": st.fixed_dictionaries({"slug": st.just("probability-covid-19") | JSON}) | JSON}
)
JOB = st.fixed_dictionaries(
    {"outputs": st.lists(SOCKET | JSON, max_size=2) | JSON},
    optional={
        "pk": JSON,
        "status": JSON,
        "inputs": st.lists(st.fixed_dictionaries({"image": st.fixed_dictionaries({"name": JSON}) | JSON})) | JSON,
    },
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(st.lists(JOB | JSON, max_size=3))
def test_whatever_a_list_of_jobs_holds_it_is_read_or_refused_in_words(tmp_path, jobs):
    with suppress(InputError):
        read_predictions(write(tmp_path / "predictions.json", jobs))
