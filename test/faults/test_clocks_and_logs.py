"""Clocks that are wrong, logs that are full, and errors that nobody expected."""

import os
import shutil
import subprocess

import pytest

from balaitous import Balaitous
from balaitous.weights.search import find_bundle
from helpers.commands import run_command
from helpers.jobs import FILES, RUN, run, visible


def test_files_of_the_future_and_of_the_distant_past_are_read_as_any(model, short_scans, tmp_path, monkeypatch):
    expected = model.predict(short_scans / "a.mha")
    bundle = shutil.copytree(find_bundle("mini"), tmp_path / "bundle")
    scan = shutil.copy(short_scans / "a.mha", tmp_path)
    for seconds in (2**32, 0):
        for path in (scan, *bundle.iterdir()):
            os.utime(path, (seconds, seconds))
        assert Balaitous(bundle, device="cpu").predict(scan).probabilities == expected.probabilities


def test_a_clock_that_runs_backwards_changes_no_number_and_no_duration(model, short_scans, monkeypatch):
    expected = model.predict(short_scans / "a.mha")
    ticks = iter(range(2**31, 0, -1000))
    monkeypatch.setattr("time.time", lambda: next(ticks))
    prediction = model.predict(short_scans / "a.mha")
    assert prediction.probabilities == expected.probabilities
    assert min(prediction.seconds.values()) >= 0


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_log_that_is_full_is_no_failure_of_the_job(job, tmp_path, monkeypatch, unbuffered):
    monkeypatch.setenv("PYTHONUNBUFFERED", unbuffered)
    with open("/dev/full", "w") as full:
        ended = run(RUN, job, tmp_path / "out", capture_output=False, stdout=full, stderr=subprocess.PIPE)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert visible(tmp_path / "out") == FILES


@pytest.mark.usefixtures("logging_as_it_was")
def test_what_nobody_expected_ends_the_command_in_one_line_below_its_traceback(capsys, monkeypatch):
    def fail(*_):
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr("balaitous.cohort.items.list_items", fail)
    assert run_command("predict", "a.mha") == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("Traceback")
    assert lines[-1] == "ERROR: unexpected ZeroDivisionError: division by zero"
