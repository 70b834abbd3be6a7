"""Logs that are full, closed or read by nobody: neither of them ends a job."""

import fcntl
import os
import subprocess
import sys

import pytest

from balaitous.container import streams
from helpers import ROOT
from helpers.jobs import FILES, read, visible
from helpers.waiting import PATIENCE_SECONDS

# Scans whose name begins with b fail, at length; nobody is waited for long.
JOB = """
import sys
sys.path.insert(0, "test")
import balaitous, process
from balaitous.container import streams
from balaitous.errors import NoLungError
from helpers.scripted import ScriptedModel, by_first_letter
streams.PATIENCE_SECONDS = streams.FACTS.patience = streams.REASONS.patience = 0.05
balaitous.Balaitous = lambda: ScriptedModel(lambda n: NoLungError("x" * 1000) if n[0] == "b" else by_first_letter(n))
if __name__ == "__main__":
    sys.exit(process.main(["exec", *sys.argv[1:]]))
"""


@pytest.fixture
def start(tmp_path):
    """Starts the job on scans of these names: the running process."""

    def start_(*names, shell="", **options):
        folder = tmp_path / "input/images/ct"
        folder.mkdir(parents=True)
        for name in names:
            (folder / name).touch()
        arguments = [sys.executable, "-c", JOB, str(tmp_path / "input"), str(tmp_path / "out")]
        if shell:
            arguments = ["sh", "-c", f'exec "$@" {shell}', "sh", *arguments]
        return subprocess.Popen(arguments, cwd=ROOT, **options)

    return start_


def statuses(folder):
    return [case["status"] for case in read(folder / "out/results.json")["cases"]]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
@pytest.mark.parametrize("shell", ["2>/dev/full", ">/dev/full 2>&-", ">&-", "<&- >&- 2>&-"])
def test_streams_that_take_nothing_leave_the_other_scans_their_answers(start, tmp_path, shell):
    null = subprocess.DEVNULL
    process = start("a.mha", "b1.mha", "b2.mha", "c.mha", shell=shell, stdout=null, stderr=null)
    assert process.wait(PATIENCE_SECONDS) == 5
    assert statuses(tmp_path) == ["ok", "failed", "failed", "ok"]
    assert visible(tmp_path / "out") == FILES
    assert read(tmp_path / "out/probability-covid.json").keys() == {"a.mha", "c.mha"}


@pytest.mark.skipif(not hasattr(fcntl, "F_SETPIPE_SZ"), reason="needs small pipes, as Linux has them")
def test_pipes_that_nobody_reads_hold_no_job(start, tmp_path):
    names = [f"b{number}.mha" for number in range(8)]  # 8 × 1,000 characters
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    process = start("a.mha", *names, stdout=writing, stderr=writing)
    assert process.wait(PATIENCE_SECONDS) == 5
    assert statuses(tmp_path) == ["ok"] + ["failed"] * len(names)
    for end in (reading, writing):
        os.close(end)


def test_a_pipe_whose_reader_is_gone_holds_no_job(start, tmp_path):
    reading, writing = os.pipe()
    os.close(reading)
    process = start("a.mha", "b.mha", stdout=writing, stderr=writing)
    os.close(writing)
    assert process.wait(PATIENCE_SECONDS) == 5
    assert statuses(tmp_path) == ["ok", "failed"]


def test_a_reader_that_comes_back_gets_the_next_lines(monkeypatch):
    reading, writing = os.pipe()
    monkeypatch.setattr(streams, "PATIENCE_SECONDS", 0.01)
    with os.fdopen(writing, "w") as file, os.fdopen(reading, "rb", buffering=0) as pipe:
        monkeypatch.setattr(sys, "stderr", file)
        stream = streams.Stream("stderr")
        for number in range(100):
            stream.write(f"{number:03}" + "x" * 996 + "\n")
        assert pipe.read(1 << 20).startswith(b"000x")
        stream.write("the next line\n")
        assert pipe.read(1 << 20).endswith(b"the next line\n")


def test_names_of_scans_cannot_fake_a_line_of_the_log(start, tmp_path):
    process = start("a\nERROR: \x1b[31m.mha", "c.mha", stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    out, err = process.communicate(timeout=PATIENCE_SECONDS)
    assert (process.returncode, err) == (0, "")
    assert "\x1b" not in out
    assert not [line for line in out.splitlines() if line.startswith("ERROR")]
