"""The files of a Grand Challenge job. The model is a script here; test_process.py runs the real one."""

import json
import logging
import math
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from balaitous.cohort.items import Item
from balaitous.container.answers import PROBABILITY_FILES
from balaitous.container.grand_challenge import (
    Case,
    find_cases,
    open_output,
    predict_cases,
    run_job,
    write_json,
)
from balaitous.container.streams import report
from balaitous.errors import BalaitousError, InputError, NoLungError, WeightsError
from balaitous.files import write_together
from balaitous.provenance import Provenance
from balaitous.severity.pipeline import Prediction
from helpers.scripted import ScriptedModel

INPUTS = [
    {"socket": {"slug": "ct-image", "relative_path": "images/ct"}, "image": {"name": "P001.mha"}},
    {"socket": {"slug": "patient-age"}, "value": 45},
]


class Model(ScriptedModel):
    """Gives whole predictions with the answers it was told: {file name: both probabilities, or an error to raise}."""

    def __init__(self, answers):
        super().__init__(answers.__getitem__)

    def prediction(self, path, covid, severe, patient):
        return Prediction(
            name=path.stem,
            path=str(path),
            input_sha256=None,
            series_uid=None,
            probability_covid=covid,
            probability_severe=severe,
            probabilities={"covid": covid, "severe": severe},
            patient=patient,
            spacing_mm=(1.5, 1.5, 5.0),
            slices=2,
            lung_volume_litres=4.2,
            image=np.zeros((1, 224, 224)),
            mask=np.ones((1, 224, 224), bool),
            features={},
            provenance=Provenance("2.0.0", {}, "mini", "00", "research", True, "cpu", "CPU", 1, "fp32", None, None),
            seconds={"read": 0.1},
        )


def predict_scans(answers, output):
    """Exit code of a job on scans with these answers."""
    open_output(output)
    return predict_cases(Model(answers), [Case(Item(Path("/input") / name), name) for name in answers], output)


def read(path):
    return json.loads(path.read_text())


@pytest.fixture
def job(tmp_path):
    """An input folder with one scan."""
    (tmp_path / "images/ct").mkdir(parents=True)
    (tmp_path / "images/ct/a.mha").touch()
    return tmp_path


def test_every_mha_of_a_job_is_found_sorted_by_name_and_nothing_else(job):
    for name in ("c.mha", "B.MHA", "b.mha", ".hidden.mha", "notes.txt", "d.nii.gz"):
        (job / "images/ct" / name).touch()
    assert [case.file for case in find_cases(job)] == ["B.MHA", "a.mha", "b.mha", "c.mha"]


def test_a_plain_folder_is_searched_for_every_kind_of_scan(tmp_path):
    for name in ("b.nrrd", "a.nii.gz", "notes.txt", "ward/c.mha"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert [case.file for case in find_cases(tmp_path)] == ["a.nii.gz", "b.nrrd", "ward/c.mha"]


def test_a_job_without_a_scan_is_refused(tmp_path):
    (tmp_path / "images/ct").mkdir(parents=True)
    (tmp_path / "images/ct/scan.txt").touch()
    with pytest.raises(InputError, match=r"expected \.mha files in .*images/ct, found none"):
        find_cases(tmp_path)


def test_without_mha_files_other_scans_of_a_job_are_taken_and_beside_them_named(job, caplog):
    (job / "images/ct/b.zip").touch()
    (job / "images/ct/._b.zip").touch()
    with caplog.at_level(logging.WARNING):
        assert [case.file for case in find_cases(job)] == ["a.mha"]
    assert "left out beside the .mha files: b.zip" in caplog.text
    (job / "images/ct/a.mha").unlink()
    assert [case.file for case in find_cases(job)] == ["b.zip"]


def test_a_job_whose_files_are_no_scans_names_them(job):
    (job / "images/ct/a.mha").rename(job / "images/ct/a.tar")
    with pytest.raises(InputError, match=r"expected \.mha files in .*images/ct, found none but a\.tar: check"):
        find_cases(job)


def test_a_missing_input_folder_is_refused(tmp_path):
    with pytest.raises(InputError, match="nowhere"):
        find_cases(tmp_path / "nowhere")


def test_without_inputs_json_nothing_is_told_of_the_patient(job):
    assert find_cases(job) == [Case(Item(job / "images/ct/a.mha"), "a.mha")]


def test_what_inputs_json_tells_goes_with_the_only_scan(job):
    (job / "inputs.json").write_text(json.dumps(INPUTS))
    assert find_cases(job) == [Case(Item(job / "images/ct/a.mha", {"age": 45.0}), "a.mha", "P001.mha")]


def test_of_several_scans_inputs_json_tells_nothing_and_the_log_says_so(job, caplog):
    (job / "images/ct/b.mha").touch()
    (job / "inputs.json").write_text(json.dumps(INPUTS))
    assert all(case.item.given == {} for case in find_cases(job))
    assert "inputs.json is left out: it describes one scan, and there are 2" in caplog.text


def test_the_users_file_name_and_age_are_in_the_results(job, tmp_path):
    (job / "inputs.json").write_text(json.dumps(INPUTS))
    assert run_job(lambda: Model({"a.mha": (0.25, 0.125)}), job, tmp_path / "out") == 0
    (case,) = read(tmp_path / "out/results.json")["cases"]
    assert (case["image_name"], case["age_years"], case["age_source"]) == ("P001.mha", 45.0, "argument")


def test_one_scan_leaves_bare_numbers_under_both_pairs_of_names(tmp_path):
    assert predict_scans({"a.mha": (0.25, 0.125)}, tmp_path) == 0
    assert {name: read(tmp_path / name) for name in PROBABILITY_FILES} == {
        "probability-covid.json": 0.25,
        "probability-covid-19.json": 0.25,
        "probability-severe-covid.json": 0.125,
        "probability-severe-covid-19.json": 0.125,
    }
    (case,) = read(tmp_path / "results.json")["cases"]
    assert case["status"] == "ok"
    assert case["age_source"] == "default"
    assert case["provenance"]["bundle"] == "mini"


@settings(max_examples=20)
@given(st.lists(st.none() | st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=2, max_size=5))
def test_of_several_scans_those_that_succeed_are_written_by_name(answers):
    by_name = {f"{number}.mha": answer or NoLungError("no lung") for number, answer in enumerate(answers)}
    succeeded = {name: answer for name, answer in by_name.items() if isinstance(answer, tuple)}
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder)
        assert predict_scans(by_name, output) == (0 if len(succeeded) == len(answers) else 5)
        for name, key in PROBABILITY_FILES.items():
            column = 0 if key == "probability_covid" else 1
            expected = {scan: answer[column] for scan, answer in succeeded.items()}
            assert (read(output / name) if succeeded else {}) == expected
        statuses = {case["file"]: case["status"] for case in read(output / "results.json")["cases"]}
        assert statuses == {name: "ok" if name in succeeded else "failed" for name in by_name}


@pytest.mark.parametrize(("error", "code"), [(NoLungError("no lung found"), 3), (WeightsError("wrong hash"), 4)])
def test_a_job_whose_only_scan_fails_leaves_no_probability_but_its_reason(tmp_path, capsys, error, code):
    assert predict_scans({"a.mha": error}, tmp_path) == code
    assert [path.name for path in tmp_path.iterdir()] == ["results.json"]
    assert read(tmp_path / "results.json")["cases"][0]["error"] == str(error)
    assert capsys.readouterr().err == f"ERROR: {error}\n"


@pytest.mark.parametrize("number", [math.nan, math.inf, -0.1, 1.1])
def test_what_is_no_probability_is_never_written(tmp_path, capsys, number):
    assert predict_scans({"a.mha": (0.5, number)}, tmp_path) == 3
    assert [path.name for path in tmp_path.iterdir()] == ["results.json"]
    assert f"expected probability_severe in [0, 1], found {number}" in capsys.readouterr().err


def test_the_answers_of_an_earlier_job_do_not_survive_a_failure(tmp_path):
    predict_scans({"a.mha": (0.5, 0.5)}, tmp_path)
    predict_scans({"a.mha": NoLungError("no lung found")}, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["results.json"]


def test_the_answers_of_an_earlier_job_do_not_survive_a_job_without_a_scan(job, tmp_path):
    output = tmp_path / "out"
    predict_scans({"a.mha": (0.5, 0.5)}, output)
    (output / ".probability-covid.json.0123abcd.partial").write_text("0.")  # of a job that was killed
    (job / "images/ct/a.mha").unlink()
    with pytest.raises(InputError, match="found none"):
        run_job(Model, job, output)
    assert [path.name for path in output.iterdir()] == ["results.json"]
    assert read(output / "results.json")["cases"] == []


def test_the_answers_so_far_are_there_when_a_job_is_killed(tmp_path):
    cases = [Case(Item(Path(name)), name) for name in ("a.mha", "b.mha")]
    with pytest.raises(KeyboardInterrupt):
        predict_cases(Model({"a.mha": (0.5, 0.25), "b.mha": KeyboardInterrupt()}), cases, tmp_path)
    assert read(tmp_path / "probability-covid.json") == {"a.mha": 0.5}


def test_the_log_tells_where_age_and_sex_came_from(tmp_path, caplog):
    caplog.set_level(logging.INFO, logger="balaitous")
    predict_scans({"a.mha": (0.25, 0.125)}, tmp_path)
    assert "1/1 a.mha: COVID-19 0.250, severe outcome 0.125; age 65 (default), sex 0.5 (default)" in caplog.text


def test_a_file_that_cannot_be_written_leaves_the_old_one_whole(tmp_path):
    write_json(tmp_path / "a.json", 1)
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", math.nan)
    assert read(tmp_path / "a.json") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_if_one_of_several_files_cannot_be_written_none_is(tmp_path):
    missing = tmp_path / "missing/b.json"  # cannot be written, as on a full disk
    with pytest.raises(OSError, match=r"b\.json"):
        write_together({tmp_path / "a.json": b"1", missing: b"2"})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("error", "line", "code"),
    [
        (BalaitousError("first\n  second"), "ERROR: first second", 3),
        (MemoryError(), "ERROR: the memory is not enough", 1),
        (PermissionError(13, "Permission denied", "/output/x"), "ERROR: files cannot be read or written", 3),
    ],
)
def test_an_expected_error_is_one_line_on_stderr(capsys, error, line, code):
    assert report(error) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(line)
    assert err.count("\n") == 1


def test_an_unexpected_error_shows_where_it_arose_and_ends_in_one_line(capsys):
    with pytest.raises(ValueError, match="domain") as raised:
        math.sqrt(-1)
    assert report(raised.value) == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("Traceback")
    assert lines[-1].startswith("ERROR: unexpected ValueError: ")
