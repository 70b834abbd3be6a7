"""Training and evaluation as commands and as containers, on a small cohort of phantoms in the layout of STOIC."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from balaitous.ct.volume import read_ct, write_mha
from balaitous.severity.pipeline import Balaitous
from balaitous.training.cohorts import make_stoic_folder
from balaitous.training.heads.features import FeatureStore
from balaitous.training.heads.stoic import labelled, read_stoic
from balaitous.training.keeping import begin_keeping
from balaitous.weights.bundle import open_bundle
from balaitous.weights.inventory import verify
from balaitous.weights.search import find_bundle
from helpers import ROOT
from helpers.commands import run_command, run_job
from helpers.phantoms import with_hu
from helpers.waiting import WAITING, held_reader, pipe_of

SCANS = 16
FIRST, KILLED_AT = 6, 3


pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("logging_as_it_was", "in_this_process")]


@pytest.fixture
def in_this_process(monkeypatch):
    """Cross-validation starts no processes, which take longer than so few patients; test_fit.py has those."""
    monkeypatch.setenv("LOKY_MAX_CPU_COUNT", "1")


def small_cohort(folder, scans):
    """The middle of coarse chests, quick to predict."""
    make_stoic_folder(folder, scans, seed=2, spacing_mm=(4.0, 4.0, 10.0), size=(84, 70, 22))
    for path in (folder / "data/mha").iterdir():
        ct = read_ct(path)
        write_mha(path, with_hu(ct, ct.hu[10:14]))
    return folder


@pytest.fixture(scope="module")
def stoic(tmp_path_factory):
    return small_cohort(tmp_path_factory.mktemp("stoic"), SCANS)


@pytest.fixture(scope="module")
def kept(stoic, tmp_path_factory):
    """Features of every scan, made once."""
    folder = tmp_path_factory.mktemp("features")
    make_features(stoic, folder)
    return folder


def make_features(stoic, folder):
    """Features of the scans that have none yet; returns how many scans were looked at."""
    model = Balaitous("mini", "cpu")
    run, rows = begin_keeping(model, FeatureStore(folder, model), read_stoic(stoic).scans, workers=1)
    for row in rows:
        run.add(row)
    run.finish()
    return run.added


def arrays(folder):
    """What is kept, by file; hidden files are not."""
    return {path.name: dict(np.load(path)) for path in folder.glob("*/*.npz") if path.name[0] != "."}


def test_a_cohort_of_phantoms_is_the_same_again_and_has_every_outcome(stoic, tmp_path):
    again = small_cohort(tmp_path, 3)
    for path in sorted((again / "data/mha").iterdir()):
        assert path.read_bytes() == (stoic / "data/mha" / path.name).read_bytes()
    reference = pd.read_csv(stoic / "metadata/reference.csv")
    assert len(reference) == len(list((stoic / "data/mha").iterdir())) == SCANS
    assert set(zip(reference.probCOVID, reference.probSevere, strict=True)) == {(0, 0), (1, 0), (1, 1)}
    assert read_ct(stoic / "data/mha/0000.mha").patient.age_source == "header"


def test_features_of_a_killed_training_and_of_its_next_start_are_those_of_one_run(stoic, kept, tmp_path):
    first = tmp_path / "stoic"
    (first / "data/mha").mkdir(parents=True)
    for scan in sorted((stoic / "data/mha").iterdir())[:FIRST]:
        shutil.copy(scan, first / "data/mha")
    shutil.copytree(stoic / "metadata", first / "metadata")
    options = ("--weights", "mini", "--device", "cpu", "--workers", "1", "--out", tmp_path / "run")
    command = [sys.executable, "-m", "balaitous", "train", "heads", "--data", first, "--features", tmp_path, *options]
    scan = first / f"data/mha/{KILLED_AT:04d}.mha"
    pipe = pipe_of(scan)  # here the training waits, and is killed
    training = subprocess.Popen(
        command,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": WAITING},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        with held_reader(pipe):
            os.killpg(training.pid, signal.SIGKILL)
            training.wait()
    finally:
        pipe.unlink()
    assert len(arrays(tmp_path)) == KILLED_AT
    assert make_features(first, tmp_path) == FIRST - KILLED_AT
    assert make_features(first, tmp_path) == 0
    whole, resumed = arrays(kept), arrays(tmp_path)
    assert whole.keys() >= resumed.keys()
    assert len(resumed) == FIRST
    for name, features in resumed.items():
        assert features.keys() == whole[name].keys()
        for view, values in features.items():
            assert np.allclose(values, whole[name][view], rtol=1e-6, atol=1e-6), (name, view)


def test_features_that_were_lost_are_made_again(stoic, kept, tmp_path):
    shutil.copytree(kept, tmp_path / "kept")
    lost = sorted((tmp_path / "kept").glob("*/*.npz"))[0]
    lost.unlink()
    assert make_features(stoic, tmp_path / "kept") == 1
    assert lost.exists()


def test_scans_that_fail_or_have_no_outcome_are_named_and_left_out(model, stoic, tmp_path, caplog):
    (tmp_path / "data/mha").mkdir(parents=True)
    for name in ("0000", "0001", "0002"):
        shutil.copy(stoic / f"data/mha/{name}.mha", tmp_path / "data/mha")
    (tmp_path / "data/mha/0001.mha").write_bytes(b"no scan")
    (tmp_path / "metadata").mkdir()
    (tmp_path / "metadata/reference.csv").write_text("PatientID,probCOVID,probSevere\n0000,1,0\n0001,0,0\n0099,1,1\n")
    cohort = read_stoic(tmp_path)
    store = FeatureStore(tmp_path / "features", model)
    run_, rows = begin_keeping(model, store, cohort.scans, workers=1)
    for row in rows:
        run_.add(row)
    data = labelled(run_.finish(), store, cohort.reference)
    assert data.patients == ["0000"]
    assert data.outcomes["covid"].tolist() == [True]
    for message in (
        "scans without an outcome are left out: 0002",
        "patients without a scan are left out: 0099",
        "0001",
    ):
        assert message in caplog.text


def test_heads_are_trained_evaluated_and_used_with_three_commands(stoic, kept, tmp_path, capsys):
    out = tmp_path / "run"
    options = ("--weights", "mini", "--device", "cpu", "--features", kept, "--name", "ours", "--licence", "MIT")
    assert run_command("train", "heads", "--data", stoic, "--out", out, *options) == 0
    printed = capsys.readouterr().out
    assert "| both |" in printed
    assert printed.count("out-of-fold predictions pooled") == 2
    names = {"bundle", "table.md", "metrics.json", "out_of_fold.csv", "roc.png", "roc.svg"}
    assert {path.name for path in out.iterdir()} == names
    assert all(check.ok for check in verify(out / "bundle"))
    card = (out / "bundle/CARD.md").read_text()
    assert f"{SCANS} patients" in card
    assert "not for diagnosis" in card

    reference = stoic / "metadata/reference.csv"
    evaluated = tmp_path / "evaluation"
    assert (
        run_command("evaluate", "--predictions", out / "out_of_fold.csv", "--reference", reference, "--out", evaluated)
        == 0
    )
    pooled = json.loads((out / "metrics.json").read_text())["pooled"]
    aggregates = json.loads((evaluated / "metrics.json").read_text())["aggregates"]
    for outcome in ("covid", "severe"):
        assert aggregates[f"auc_{outcome}"] == pooled[outcome]["delong"]

    scan = stoic / "data/mha/0000.mha"
    new, old = (Balaitous(weights, device="cpu").predict(scan) for weights in (out / "bundle", "mini"))
    assert new.provenance.bundle == "ours"
    assert new.provenance.demonstration
    assert open_bundle(out / "bundle").networks == open_bundle(find_bundle("mini")).networks, "the same bytes"
    assert np.array_equal(new.features["lung"], old.features["lung"])
    assert new.probability_covid != old.probability_covid

    assert run_command("train", "heads", "--data", stoic, "--out", out, *options) == 2  # there is a bundle


def test_a_calibrated_bundle_calibrates_only_if_asked(stoic, kept, tmp_path, capsys):
    reference = pd.read_csv(stoic / "metadata/reference.csv", dtype={"PatientID": str})
    truth = reference.probCOVID * 0.5 + reference.probSevere * 0.2
    rng = np.random.default_rng(0)
    many = pd.concat([reference.assign(PatientID=reference.PatientID + f"-{i}") for i in range(6)])
    many["probability_covid"] = many["probability_severe"] = np.tile(truth, 6) / 2 + rng.uniform(0, 0.5, len(many))
    many.to_csv(tmp_path / "predictions.csv", index=False)
    many[["PatientID", "probCOVID", "probSevere"]].to_csv(tmp_path / "reference.csv", index=False)
    new = tmp_path / "new"
    arguments = ("--predictions", tmp_path / "predictions.csv", "--reference", tmp_path / "reference.csv", "--out", new)
    assert run_command("weights", "calibrate", "--weights", "mini", *arguments) == 0
    assert "COVID-19, before: Brier" in capsys.readouterr().out

    scan = stoic / "data/mha/0000.mha"
    plain, same, calibrated = (
        Balaitous(weights, device="cpu", calibrated=asked).predict(scan)
        for weights, asked in (("mini", False), (new, False), (new, True))
    )
    assert same.probabilities == plain.probabilities
    assert same.provenance.calibration is None
    assert calibrated.provenance.calibration == "platt"
    assert calibrated.probability_covid != plain.probability_covid
    assert calibrated.probabilities["lung_covid"] == plain.probabilities["lung_covid"]
    assert run_command("predict", scan, "--weights", "mini", "--calibrated") == 4
    assert "expected a calibrated bundle" in capsys.readouterr().err


def test_the_training_container_goes_on_leaves_a_bundle_and_says_that_it_is_done(stoic, kept, tmp_path):
    shutil.copytree(kept, tmp_path / "features")
    lost = sorted((tmp_path / "features").glob("*/*.npz"))[0]
    lost.unlink()
    done = run_job("train", stoic, tmp_path)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[-1] == "Training completed."
    assert sum(line.endswith(": ok") for line in lines) == 1
    assert all(check.ok for check in verify(tmp_path / "bundle"))


def test_a_training_job_without_a_cohort_ends_in_one_line(tmp_path):
    failed = run_job("train", tmp_path, tmp_path)
    assert failed.returncode == 3
    assert re.fullmatch(r"ERROR: .*reference\.csv: expected a CSV with PatientID, probCOVID, .*\n", failed.stderr)


def test_an_evaluation_job_without_ground_truth_ends_in_one_line(tmp_path):
    (tmp_path / "predictions.json").write_text("[]")
    failed = run_job("evaluate", tmp_path, tmp_path)
    assert failed.returncode == 3
    assert re.fullmatch(r"ERROR: .*ground_truth: expected one reference\.csv .*\n", failed.stderr)
