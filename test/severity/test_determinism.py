"""The same digits, what is told of where they come from, and what is never told of a patient."""

import json
import logging
import re

import numpy as np
import pytest
import torch
from pydicom.uid import generate_uid

import process
from balaitous import Balaitous
from balaitous.cohort.items import Item
from balaitous.cohort.local import predict_items
from balaitous.ct.volume import read_ct
from balaitous.networks.runtime import Chunker
from balaitous.provenance import PACKAGES, recorded_warnings
from balaitous.reading.fingerprint import content_sha256
from balaitous.severity.heads import Heads
from helpers.commands import run_command, run_job, run_python
from helpers.dicom import write_series

# Between sums of float32 in another order; a probability is given with three decimals.
ANOTHER_ORDER = 1e-5
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"))]


@pytest.fixture(scope="module")
def alone(model, short_scans):
    """What each scan gets by itself."""
    return {name: model.predict(short_scans / name).probabilities for name in ("a.mha", "b.mha")}


# --- digits ----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("device", DEVICES)
def test_a_scan_gets_the_same_digits_from_every_model_of_the_same_bundle_on_a_device(short_scans, device):
    first, second = (Balaitous("mini", device=device) for _ in range(2))
    expected = first.predict(short_scans / "a.mha")
    first.predict(short_scans / "b.mha")
    for model in (first, second):
        prediction = model.predict(short_scans / "a.mha")
        assert prediction.probabilities == expected.probabilities
        for view, features in expected.features.items():
            assert np.array_equal(prediction.features[view], features)


@pytest.mark.slow
@pytest.mark.parametrize(("order", "workers"), [("bxa", 1), ("aabxb", 2)])
def test_order_neighbours_and_workers_of_a_cohort_change_no_digit(model, short_scans, alone, order, workers):
    scans = [Item(short_scans / f"{name}.mha") for name in order]  # x is not there
    rows = list(predict_items(model, scans, workers=workers))
    assert "".join(row["PatientID"] for row in rows) == order
    for row in rows:
        if row["PatientID"] == "x":
            assert row["status"] == "failed"
        else:
            told = {name: row[f"probability_{name}"] for name in alone["a.mha"]}
            assert told == alone[f"{row['PatientID']}.mha"]


@pytest.mark.slow
def test_a_job_gets_the_digits_of_the_package_whatever_kernels_the_blas_picks(short_scans, alone, tmp_path):
    ended = run_job(
        *("exec", short_scans, tmp_path),
        OMP_NUM_THREADS=str(torch.get_num_threads()),
        OPENBLAS_CORETYPE="Prescott",
    )
    assert ended.returncode == 0, ended.stderr
    for file, outcome in (("probability-covid.json", "covid"), ("probability-severe-covid.json", "severe")):
        told = json.loads((tmp_path / file).read_text())
        assert told == {name: probabilities[outcome] for name, probabilities in alone.items()}


@pytest.mark.parametrize("size", [1, 3, 16])
def test_another_chunk_size_changes_only_the_last_digits(model, short_scans, alone, monkeypatch, size):
    monkeypatch.setattr(model, "chunkers", dict.fromkeys(model.chunkers, Chunker(size)))
    for name, expected in alone.items():
        assert model.predict(short_scans / name).probabilities == pytest.approx(expected, abs=ANOTHER_ORDER)


@pytest.mark.slow
def test_another_number_of_threads_changes_only_the_last_digits(model, short_scans, alone):
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3 - min(threads, 2))  # 2 of 1, else 1
        assert model.predict(short_scans / "a.mha").probabilities == pytest.approx(alone["a.mha"], abs=ANOTHER_ORDER)
    finally:
        torch.set_num_threads(threads)
    assert model.predict(short_scans / "a.mha").probabilities == alone["a.mha"]


def test_heads_sum_exactly_in_whatever_order():
    rng = np.random.default_rng(0)
    features, weights = rng.normal(size=(2, 500))
    order = rng.permutation(500)
    answers = []
    for chosen in (np.arange(500), order):
        names = {f"{view}_{outcome}": weights[chosen] for view in ("full", "lung") for outcome in ("covid", "severe")}
        arrays = {f"coef_{name}": coef for name, coef in names.items()}
        arrays |= {f"coef_{view}_severe": np.append(weights[chosen], [1, 1]) for view in ("full", "lung")}
        arrays |= {f"{what}_{name}": np.array(0.5) for what in ("intercept", "alpha") for name in names}
        views = dict.fromkeys(("full", "lung"), features[chosen])
        answers.append(Heads(arrays).probabilities(views, age_years=65, sex=1.0))
    assert answers[0] == answers[1]


# --- provenance ------------------------------------------------------------------------------------------------------


@pytest.fixture
def mini(model, monkeypatch, logging_as_it_was):
    """`process.py` and the command, in this process, with the model that is loaded already."""
    monkeypatch.setenv("BALAITOUS_WEIGHTS", "mini")
    monkeypatch.setattr("balaitous.Balaitous", lambda: model)
    monkeypatch.setattr("balaitous.severity.pipeline.Balaitous", lambda **_: model)


def test_results_tell_what_made_a_number(model, short_scans, tmp_path, mini):
    assert process.main(["exec", str(short_scans), str(tmp_path)]) == 0
    case, _ = json.loads((tmp_path / "results.json").read_text())["cases"]
    assert case["input_sha256"] == content_sha256(short_scans / "a.mha")
    assert case["warnings"] == []
    assert min(case["seconds"].values()) >= 0
    made_by = case["provenance"]
    assert made_by["versions"].keys() == {"balaitous", "python", *PACKAGES}
    assert made_by["bundle_sha256"] == model.bundle.sha256
    assert (made_by["device"], made_by["precision"], made_by["seed"]) == ("cpu", "fp32", None)
    assert (made_by["threads"], made_by["device_name"][:3]) == (torch.get_num_threads(), "CPU")


def test_a_report_tells_what_made_a_run(model, short_scans, tmp_path, mini):
    table, report = tmp_path / "table.csv", tmp_path / "run.json"
    assert run_command("predict", short_scans / "a.mha", "--out", table, "--report", report) == 0
    told = json.loads(report.read_text())
    assert told["versions"].keys() == {"balaitous", "python", *PACKAGES}
    assert told["bundle"]["sha256"] == model.bundle.sha256
    assert (told["device"], told["precision"], told["seed"]) == ("cpu", "fp32", None)
    assert told["threads"] == torch.get_num_threads()
    assert told["seconds"] > 0
    (row,) = told["scans"]
    assert row["input_sha256"] == content_sha256(short_scans / "a.mha")
    assert row["warnings"] is None
    assert row["seconds"] > 0


def test_warnings_of_a_scan_are_recorded_and_those_of_other_threads_are_not(caplog):
    from threading import Thread

    log = logging.getLogger("balaitous.somewhere")
    with recorded_warnings() as warnings:
        other = Thread(target=log.warning, args=["of another scan"])
        other.start()
        other.join()
        log.warning("out of memory: going on with %d slices", 2)
        log.info("no warning")
    log.warning("later")
    assert warnings == ["out of memory: going on with 2 slices"]
    assert "out of memory" in caplog.text


# --- patients --------------------------------------------------------------------------------------------------------

# In a form in which no part of them can come from elsewhere.
TELLING = {
    "PatientName": "Qwertzuiop^Asdfghjkl",
    "PatientID": "MRN-7391846250",
    "PatientBirthDate": "19371123",
    "PatientAddress": "Yxcvbnm Lane 4711",
    "OtherPatientIDs": "SSN-8642097531",
    "AccessionNumber": "ACC5550192837",
    "ReferringPhysicianName": "Polkmijn^Uhbzgv",
    "InstitutionName": "Hospital Wsxedcrfv",
    "StudyDescription": "Thorax of Qwertzuiop",
    "SeriesDescription": "Thorax of Qwertzuiop",
    "StudyDate": "20210317",
}
SECRETS = re.compile(
    "|".join({word for value in TELLING.values() for word in re.findall(r"[A-Za-z]{6,}|\d{6,}", value)}), re.I
)


def damaged(folder, what):
    """The series of a folder with one of its files spoilt."""
    file = sorted(folder.iterdir())[1]
    content = file.read_bytes()
    if what == "pixels cut short":
        file.write_bytes(content[: len(content) // 2])
    elif what == "a slice missing":
        file.unlink()
    elif what == "a header full of names":
        file.write_bytes(content.replace(b"Qwertzuiop^Asdfghjkl", b"Qwertzuiop^\xff\x00\\Asdfgh"))
    elif what == "a position that is a name":
        start = content.index(b"\x20\x00\x32\x00DS") + 8  # ImagePositionPatient
        file.write_bytes(content[:start] + b"NONE" + content[start + 4 :])


@pytest.fixture
def series(short_scans, tmp_path):
    """Writes a DICOM folder that tells everything of its patient."""
    ct = read_ct(short_scans / "b.mha")

    def write(name, **tags):
        geometry = {"spacing_mm": ct.grid.spacing_mm[1::-1], "step_mm": ct.grid.spacing_mm[2], "shuffle": False}
        told = {"StudyInstanceUID": generate_uid(), "PatientAge": "083Y", "PatientSex": "F", **TELLING, **tags}
        write_series(tmp_path / "in" / name, ct.hu, **geometry, **told)
        return tmp_path / "in" / name

    return write


# Both in one process of its own, as they log and warn there; the model is loaded once.
JOB_AND_COMMAND = """
import sys
import balaitous, process
import balaitous.severity.pipeline as pipeline
from balaitous.cli import main

model = pipeline.Balaitous("mini", device="cpu")
balaitous.Balaitous = pipeline.Balaitous = lambda **_: model
folder, answers, table, report = sys.argv[1:]
assert process.main(["exec", folder, answers]) == 5
main(["predict", folder, "--verbose", "--workers", "1", "--out", table, "--report", report])
"""


@pytest.mark.slow
def test_nothing_that_names_a_patient_is_told_anywhere(series, tmp_path):
    series("good")
    for what in ("pixels cut short", "a slice missing", "a header full of names", "a position that is a name"):
        damaged(series(what), what)
    series("odd age", PatientAge="999Y")
    series("two sizes", Rows=7)
    answers, table, report = tmp_path / "out", tmp_path / "table.json", tmp_path / "run.json"
    ended = run_python("-W", "always", "-c", JOB_AND_COMMAND, tmp_path / "in", answers, table, report)
    told = [ended.stdout, ended.stderr, *(file.read_text() for file in (table, report, *answers.iterdir()))]
    assert len(told) == 2 + 2 + 5
    assert ended.returncode == 5, ended.stderr
    assert "good: COVID-19" in ended.stdout
    assert "age 83 (dicom)" in ended.stdout  # what the method uses is told
    failed = [row["PatientID"] for row in json.loads(table.read_text()) if row["status"] == "failed"]
    assert len(failed) >= 4
    for text in told:
        assert SECRETS.findall(text) == []
