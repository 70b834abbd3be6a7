"""Kills, of a job and of the process that reads for it."""

import os
from concurrent.futures.process import BrokenProcessPool

import pytest

from balaitous.cohort.processes import ReadingProcess
from helpers.jobs import FILES, RUN, SCRIPTED, check_consistent, read, run, visible
from helpers.rows import SEVERITY

pytestmark = pytest.mark.slow

# Runs a job in forked processes, which are killed: before each operation on a file, then after random times.
KILLED = (
    SCRIPTED
    + """
import contextlib, os, random, shutil, signal, time

# What a hundred jobs would spend most of their time on, and has no part in what they leave: processes that read scans,
# which the scripted model does without, and waiting for the disk, which outlives a kill also without.
process.ReadingProcess = contextlib.nullcontext
os.fsync = lambda _: None

def job(output, kill_before=None):
    def count(event, arguments):
        nonlocal kill_before
        if event in ("open", "os.rename", "os.remove") and str(arguments[0]).startswith(output):
            if kill_before == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            kill_before -= 1
    child = os.fork()
    if child:
        return child
    if kill_before is not None:
        sys.addaudithook(count)
    os._exit(process.main([sys.argv[1], output]))

def seconds_of(child):
    start = time.monotonic()
    os.waitpid(child, 0)
    return time.monotonic() - start

earlier, outputs, random_kills = sys.argv[2], sys.argv[3], int(sys.argv[4])
ended, number = None, 0
while ended != 0:
    output = shutil.copytree(earlier, f"{outputs}/operation{number}")
    _, ended = os.waitpid(job(output, number), 0)
    number += 1
usual = seconds_of(job(f"{outputs}/whole"))
rng = random.Random(1)
for number in range(random_kills):
    child = job(shutil.copytree(earlier, f"{outputs}/moment{number}"))
    time.sleep(rng.uniform(0, usual))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
"""
)


def test_a_job_that_is_killed_at_any_moment_leaves_nothing_that_contradicts_itself(job, tmp_path):
    earlier, outputs = tmp_path / "earlier", tmp_path / "outputs"
    outputs.mkdir()
    (tmp_path / "one/images/ct").mkdir(parents=True)
    (tmp_path / "one/images/ct/old.mha").touch()
    assert run(RUN, tmp_path / "one", earlier).returncode == 0
    ended = run(KILLED, job, earlier, outputs, 25)
    assert ended.returncode == 0, ended.stderr
    states = sorted(outputs.iterdir())
    assert len(states) > 80  # 12 operations for each of the 4 writes, and more
    assert {len(read(state / "results.json")["cases"]) for state in states if (state / "results.json").exists()} == {
        *range(4)
    }
    for state in states:
        check_consistent(state)
    assert visible(outputs / "whole") == FILES
    cut_short = next(state for state in states if len(list(state.iterdir())) > len(visible(state)))
    assert run(RUN, job, cut_short).returncode == 0
    assert {path.name for path in cut_short.iterdir()} == FILES  # what the kill left behind is gone


def test_a_scan_that_ends_the_process_that_reads_it_fails_alone(job, tmp_path):
    reads_b = """
import signal

class Reader(ScriptedModel):
    def predict(self, path, age=None, sex=None, executor=None):
        if path.stem == "b":
            executor.submit(signal.raise_signal, signal.SIGKILL).result()
        return super().predict(path)

balaitous.Balaitous = lambda: Reader(by_first_letter)
sys.exit(process.main(sys.argv[1:]))
"""
    ended = run(SCRIPTED + reads_b, job, tmp_path / "out")
    assert ended.returncode == 5
    first, last = ended.stderr.splitlines()
    assert "b.mha: expected to read it, the process that did was ended: by the system for want of memory, or" in first
    assert "1 of 3 scans failed" in last
    assert read(tmp_path / "out/probability-covid.json").keys() == {"a.mha", "c.mha"}


def test_a_reading_process_answers_tells_errors_with_where_they_come_from_and_is_replaced():
    with ReadingProcess(SEVERITY.preparing) as reader:
        process_id = reader.submit(os.getpid).result()
        assert process_id not in {os.getpid(), reader.submit(os.getppid).result()}
        with pytest.raises(FileNotFoundError) as raised:
            reader.submit(os.stat, "/nowhere").result()
        assert "in _take_call" in raised.value.__notes__[0]
        assert reader.submit(os.getpid).result() == process_id
        with pytest.raises(BrokenProcessPool):
            reader.submit(os._exit, 0)
        assert reader.submit(os.getpid).result() != process_id


@pytest.mark.parametrize("end", ["reader.shutdown()", "os._exit(0)", "sys.exit()"])
def test_a_job_that_ends_while_the_reading_process_loads_is_told_nothing_of_it(end):
    reader = "reader = ReadingProcess('balaitous.severity.preparation')"
    script = f"import os, sys, time; {reader}; time.sleep(float(sys.argv[1])); {end}"
    for seconds in (0, 0.1, 0.2, 0.3):  # importing takes about as long
        ended = run("from balaitous.cohort.processes import ReadingProcess; " + script, seconds)
        assert (ended.returncode, ended.stderr) == (0, "")
