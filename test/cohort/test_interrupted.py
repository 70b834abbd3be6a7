"""Cohorts that are killed and interrupted."""

import os
import signal
import subprocess
import sys
from contextlib import suppress

import pytest

from balaitous.cohort.table import read_table
from helpers.rows import COLUMNS, but_seconds
from helpers.waiting import PATIENCE_SECONDS, WAITING, pipe_of, wait_until

pytestmark = pytest.mark.slow


@pytest.fixture
def command():
    """Starts `balaitous predict` as the leader of a process group, which is gone after the test."""
    started = []

    def start(*arguments):
        started.append(
            subprocess.Popen(
                [sys.executable, "-m", "balaitous", "predict", *map(str, arguments)],
                env=os.environ | {"BALAITOUS_WEIGHTS": "mini", "OMP_WAIT_POLICY": "passive", "PYTHONPATH": WAITING},
                # a shell that started the tests in the background has told their children, too, to ignore Ctrl-C
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
                start_new_session=True,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
        return started[-1]

    yield start
    for process in started:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def group_is_gone(process):
    try:
        os.killpg(process.pid, 0)
    except ProcessLookupError:
        return True
    return False


def data_rows(path):
    return max(path.read_bytes().count(b"\n") - 1, 0) if path.exists() else 0


@pytest.fixture
def stuck(folder, rows):
    """The pipe at which the scan waits that is none: it never comes to an end."""
    pipe = pipe_of(folder / "2.mha")
    yield pipe
    pipe.unlink(missing_ok=True)


def test_a_killed_cohort_resumes_to_the_table_of_an_uninterrupted_one(command, stuck, folder, rows, tmp_path):
    table = tmp_path / "table.csv"
    process = command(folder, "--out", table, "--workers", 2)
    wait_until(lambda: data_rows(table) == 2, process)
    process.kill()
    process.communicate()
    assert [row["PatientID"] for row in read_table(table, COLUMNS)] == ["0", "1"]
    wait_until(lambda: group_is_gone(process))

    stuck.unlink()
    resumed = command(folder, "--out", table, "--resume", "--workers", 1)
    _, err = resumed.communicate()
    assert resumed.returncode == 5
    assert "4 scans: 1 done, 2 done before, 1 failed;" in err
    assert but_seconds(read_table(table, COLUMNS)) == but_seconds(rows)


def test_ctrl_c_ends_at_once_with_the_table_written_and_nothing_left_behind(command, stuck, folder, tmp_path):
    table, growing = tmp_path / "table.parquet", tmp_path / ".table.parquet.rows.csv"
    process = command(folder, "--out", table, "--workers", 2)
    wait_until(lambda: data_rows(growing) == 2, process)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to all of them
    _, err = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 130
    assert err.strip().splitlines()[-1] == (
        f"ERROR: interrupted after 2 of 4 scans; their rows are in {table}, --resume goes on from there."
    )
    assert "Traceback" not in err
    wait_until(lambda: group_is_gone(process))
    assert [row["PatientID"] for row in read_table(table, COLUMNS)] == ["0", "1"]
    assert not growing.exists()
