"""Faults around a job, as docs/reliability.md lists them: disks, users, kills, memory, weights, clocks, logs."""

import errno
import json
import logging
import os
import re
import resource
import shutil
import subprocess
import sys
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

import process
from balaitous import Balaitous, InputError, WeightsError
from balaitous.cli import main
from balaitous.cohort.processes import ReadingProcess, reading_processes
from balaitous.cohort.scans import Scan
from balaitous.cohort.table import ScanTable, read_table, row_of
from balaitous.container.grand_challenge import PROBABILITY_FILES
from balaitous.errors import explain
from balaitous.files import new_folder, replacing, write_together
from balaitous.memory import is_out_of_memory, memory_errors
from balaitous.networks.runtime import TorchNetwork
from balaitous.weights.bundle import check_hash, find_bundle
from helpers import ROOT

FILES = {*PROBABILITY_FILES, "results.json"}
MIB = 1 << 20

# process.py with a model that needs no weights, no PyTorch and no time: its answers are told by the scan's name.
SCRIPTED = """
import sys
from types import SimpleNamespace
import balaitous, process
from balaitous.ct.patient import Patient, resolve

class Model:
    device, precision = "cpu", "fp32"

    def predict(self, path, age=None, sex=None, executor=None):
        covid, severe = ord(path.stem[0]) / 256, ord(path.stem[0]) / 512
        answer = {"probability_covid": covid, "probability_severe": severe}
        told = {"patient": resolve(Patient()), "seconds": {}, "checks": (), "to_dict": lambda: answer}
        return SimpleNamespace(**answer, **told)

balaitous.Balaitous = Model
"""
RUN = SCRIPTED + "sys.exit(process.main(sys.argv[1:]))"


def run(script, *arguments, prefix=(), **options):
    """A script as a process of its own."""
    options = {"capture_output": True, "text": True, "cwd": ROOT, "timeout": 300, **options}
    return subprocess.run([*prefix, sys.executable, "-c", script, *map(str, arguments)], check=False, **options)


def only_error(process_):
    """The line on stderr, where there is but one."""
    (line,) = process_.stderr.splitlines()
    assert line.startswith("ERROR: ")
    return line


def read(path):
    return json.loads(path.read_text())


def visible(folder):
    return {path.name for path in folder.iterdir() if path.name[0] != "."}


@pytest.fixture
def job(tmp_path):
    """An /input with three scans, as far as the scripted model is concerned."""
    folder = tmp_path / "input"
    (folder / "images/ct").mkdir(parents=True)
    for name in "abc":
        (folder / f"images/ct/{name}.mha").touch()
    return folder


@pytest.fixture
def exec_mode(capsys, monkeypatch, logging_as_it_was):
    """`process.py` in this process: exit code and lines of stderr."""
    monkeypatch.setattr(logging, "raiseExceptions", True)  # put back afterwards

    def run_(*arguments):
        code = process.main(["exec", *map(str, arguments)])
        return code, capsys.readouterr().err.splitlines()

    return run_


@pytest.fixture
def command(capsys, logging_as_it_was):
    """The command in this process: exit code and lines of stderr."""

    def run_(*arguments):
        with pytest.raises(SystemExit) as exit_:
            main(list(map(str, arguments)))
        return exit_.value.code, capsys.readouterr().err.splitlines()

    return run_


def check_consistent(output):
    """What holds of an output folder at any moment: whole files, right numbers, and nothing told that is not there."""
    contents = {path.name: read(path) for path in output.iterdir() if path.name[0] != "."}
    cases = contents.pop("results.json", {"cases": []})["cases"]
    for name, key in PROBABILITY_FILES.items():
        divisor = 256 if key == "probability_covid" else 512
        numbers = contents.get(name, {})
        if not isinstance(numbers, dict):
            numbers = {"old.mha": numbers}  # of the earlier job, which had one scan
        assert numbers == {file: ord(file[0]) / divisor for file in numbers}
        assert {case["file"] for case in cases} <= numbers.keys()


# --- disks -----------------------------------------------------------------------------------------------------------


@contextmanager
def largest_file(size_bytes):
    """No file may grow beyond this, as if the disk were full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture
def small_disk(tmp_path):
    """Mounts a disk of so many KiB at a folder."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(kib, *options):
        options = ",".join((f"size={kib}k", *options))
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True)
        if mounted.returncode:
            pytest.skip(f"needs to mount a disk: {mounted.stderr.decode().strip()}")
        return folder

    yield mount
    while os.path.ismount(folder):
        subprocess.run(["umount", folder], check=True)


def test_a_disk_that_fills_up_leaves_every_answer_or_none(job, small_disk, tmp_path):
    codes = []
    for kib in (4, 8, 12, 16, 20, 64):
        output = small_disk(kib)
        ended = run(RUN, job, output)
        codes.append(ended.returncode)
        check_consistent(output)
        if ended.returncode:
            assert re.search(rf"No space left on device: '{output}/[\w-]+\.json'.*free space", only_error(ended))
            assert read(output / "results.json")["cases"] == []
            assert [path.name for path in output.iterdir()] == ["results.json"]
        else:
            assert visible(output) == FILES
        subprocess.run(["umount", output], check=True)
    assert codes[0] == 3
    assert codes[-1] == 0


def test_a_disk_that_is_full_from_the_start_is_found_out_before_anything_is_computed(job, small_disk):
    output = small_disk(4)
    (output / "other").write_bytes(bytes(4096))
    ended = run(RUN, job, output)
    assert ended.returncode == 3
    assert "No space left on device" in only_error(ended)
    assert ended.stdout == ""


def test_files_that_were_there_stay_as_they_were_when_the_disk_fills_up(tmp_path):
    small, large = tmp_path / "small.json", tmp_path / "large.json"
    write_together({small: b"1", large: b"2"})
    with largest_file(512), pytest.raises(OSError, match=f"File too large: '{large}'"):
        write_together({small: b"3", large: bytes(4096)})
    assert (small.read_bytes(), large.read_bytes()) == (b"1", b"2")
    assert visible(tmp_path) == {path.name for path in tmp_path.iterdir()} == {"small.json", "large.json"}


def test_a_library_that_fails_to_write_leaves_the_old_file_and_the_error_names_it(tmp_path):
    path = tmp_path / "checkpoint.pt"
    with replacing(path) as file:
        torch.save({"step": torch.tensor(1)}, file)
    with largest_file(4096), pytest.raises(OSError, match=f"File too large: '{path}'"), replacing(path) as file:
        torch.save({"step": torch.zeros(10_000)}, file)
    with pytest.raises(UnicodeEncodeError), replacing(path) as file:
        file.writelines(part.encode("ascii") for part in ("half", "é"))
    assert torch.load(path, weights_only=True) == {"step": torch.tensor(1)}
    assert [*tmp_path.iterdir()] == [path]
    umask = os.umask(0)
    os.umask(umask)
    assert path.stat().st_mode & 0o777 == 0o666 & ~umask


def test_a_folder_is_there_whole_or_not_at_all(tmp_path):
    folder = tmp_path / "bundle"
    with pytest.raises(UnicodeEncodeError), new_folder(folder) as unfinished:
        (unfinished / "a").write_text("é", encoding="ascii")  # makes the file, and fails
    assert [*tmp_path.iterdir()] == []
    folder.mkdir()
    with new_folder(folder) as unfinished:
        (unfinished / "a").write_text("whole")
        assert [*folder.iterdir()] == []
    with pytest.raises(OSError, match="not empty"), new_folder(folder) as unfinished:
        (unfinished / "a").write_text("another")
    assert (folder / "a").read_text() == "whole"
    assert [*tmp_path.iterdir()] == [folder]


def test_a_table_on_a_full_disk_ends_with_a_whole_row_and_goes_on_from_there(tmp_path):
    rows = [row_of(Scan(Path(f"{number}.mha")), InputError("x" * 300)) for number in range(3)]
    table = ScanTable(tmp_path / "table.csv")
    table.begin()
    table.append(rows[0])
    whole = table.path.read_bytes()
    with largest_file(len(whole) + 100), pytest.raises(OSError, match=r"table\.csv"):
        table.append(rows[1])
    assert table.path.read_bytes() == whole
    table.append(rows[2])
    assert read_table(table.path) == [rows[0], rows[2]]


def test_an_output_that_cannot_be_written_to_is_named(job, small_disk):
    output = small_disk(64, "ro")
    ended = run(RUN, job, output)
    assert ended.returncode == 3
    assert re.search(rf"Read-only file system: '{output}.*permissions", only_error(ended))


@pytest.mark.parametrize("option", ["--report", "--out"])
def test_a_report_or_table_that_cannot_be_written_is_found_out_before_anything_is_computed(small_disk, command, option):
    path = small_disk(64, "ro") / "run.json"
    code, lines = command("predict", "a.mha", option, path)
    assert code == 3
    assert lines == [f"ERROR: {explain(PermissionError(13, 'Permission denied', str(path)))}"]


# --- users and file systems ------------------------------------------------------------------------------------------

# Reading everything is granted: the interpreter may lie in a home that nobody else may enter.
STRANGER = (
    "setpriv --reuid=12345 --regid=12345 --clear-groups --inh-caps=+dac_read_search --ambient-caps=+dac_read_search"
)


@pytest.fixture
def stranger():
    """What makes a command run as a user whom this machine does not know."""
    prefix = STRANGER.split()
    try:
        able = subprocess.run([*prefix, "true"], capture_output=True).returncode == 0
    except FileNotFoundError:
        able = False
    if not able:
        pytest.skip("needs setpriv and root, to become another user")
    return prefix


def test_an_output_of_another_user_is_named(job, tmp_path, stranger):
    output = tmp_path / "output"
    output.mkdir(mode=0o755)
    ended = run(RUN, job, output, prefix=stranger, env={"PYTHONPATH": str(ROOT)})
    assert ended.returncode == 3
    assert re.search(rf"Permission denied: '{output}/.*Check permissions", only_error(ended))
    assert list(output.iterdir()) == []


READ_ONLY_ROOT = """
set -e
mount --make-rprivate /
for folder in "$1" "$2"; do mount -t tmpfs -o mode=1777 tmpfs "$folder"; done
mount -o remount,bind,ro /
if touch /.balaitous 2>/dev/null; then rm /.balaitous; exit 99; fi
output=$1 input=$3
shift 3
"$@" "$input" "$output" && cat "$output/probability-covid.json"
"""


def test_an_unknown_user_without_a_home_on_a_read_only_root_gets_the_usual_digits(
    model, short_scans, tmp_path, stranger
):
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode:
        pytest.skip("needs a mount namespace of its own")
    output, scratch, input_dir = (tmp_path / name for name in ("output", "scratch", "input"))
    for folder in (output, scratch, input_dir):
        folder.mkdir()
    shutil.copy(short_scans / "a.mha", input_dir)
    command = ["unshare", "--mount", "bash", "-c", READ_ONLY_ROOT, "bash", output, scratch, input_dir]
    ended = subprocess.run(
        [*command, *stranger, sys.executable, ROOT / "process.py"],
        env={
            "PATH": os.environ["PATH"],
            "TMPDIR": str(scratch),
            "BALAITOUS_WEIGHTS": "mini",
            "OMP_NUM_THREADS": str(torch.get_num_threads()),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr == ""
    assert float(ended.stdout.splitlines()[-1]) == model.predict(short_scans / "a.mha").probability_covid


# --- kills -----------------------------------------------------------------------------------------------------------

# Runs a job in forked processes, which are killed: before each operation on a file, then after random times.
KILLED = (
    SCRIPTED
    + """
import os, random, shutil, signal, time

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


# --- memory ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("Unable to allocate 150. MiB for an array with shape (300, 512, 512) and data type int16"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you"),
        RuntimeError("Exception thrown in SimpleITK ResampleImageFilter_Execute: Failed to allocate memory for image."),
        RuntimeError("unable to mmap 4096 bytes from file <x.safetensors>: Cannot allocate memory (12)"),
        RuntimeError("std::bad_alloc"),
        RuntimeError("can't start new thread"),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
    ],
)
def test_every_library_s_way_to_say_that_memory_ran_out_is_known(error):
    assert is_out_of_memory(error)
    with pytest.raises(MemoryError) as raised, memory_errors():
        raise error
    assert re.fullmatch("the (GPU's )?memory is not enough: [^:]+", explain(raised.value))


def test_a_reader_or_loader_that_takes_a_full_memory_for_a_bad_file_is_not_believed():
    def read_image():
        try:
            raise RuntimeError("Failed to allocate memory for image.")
        except RuntimeError as error:
            raise InputError("expected a readable image, found none; copy it again") from error

    def load_weights():
        try:
            raise OSError(errno.ENOMEM, "Cannot allocate memory")
        except OSError:
            raise WeightsError("expected a readable file") from None

    for fail in (read_image, load_weights):
        with pytest.raises(MemoryError), memory_errors():
            fail()
    for error in (InputError("out of memory.mha: cut short"), RuntimeError("shapes do not match")):
        with pytest.raises(type(error)), memory_errors():
            raise error


@pytest.mark.parametrize("start", ["import process; sys.exit(process.main(['{scans}', '{out}']))", "CLI"])
def test_a_limit_below_what_the_libraries_take_is_refused_in_one_line(short_scans, tmp_path, start):
    if start == "CLI":
        start = "from balaitous.cli import main; main(['predict', '{scans}'])"
    limit = f"import resource, sys; resource.setrlimit(resource.RLIMIT_DATA, (512 << 20, {resource.RLIM_INFINITY}));"
    ended = run(limit + start.format(scans=short_scans, out=tmp_path))
    assert ended.returncode == 1
    assert "the memory is not enough (expected at least 1152 MiB (RLIMIT_DATA), found 512): " in only_error(ended)


def test_a_scan_that_ends_the_process_that_reads_it_fails_alone(job, tmp_path):
    reads_b = """
import signal

class Reader(Model):
    def predict(self, path, age=None, sex=None, executor=None):
        if path.stem == "b":
            executor.submit(signal.raise_signal, signal.SIGKILL).result()
        return super().predict(path)

balaitous.Balaitous = Reader
sys.exit(process.main(sys.argv[1:]))
"""
    ended = run(SCRIPTED + reads_b, job, tmp_path / "out")
    assert ended.returncode == 5
    first, last = ended.stderr.splitlines()
    assert "b.mha: expected to read it, the process that did was ended: by the system for want of memory, or" in first
    assert "1 of 3 scans failed" in last
    assert read(tmp_path / "out/probability-covid.json").keys() == {"a.mha", "c.mha"}


def test_a_reading_process_answers_tells_errors_with_where_they_come_from_and_is_replaced():
    with ReadingProcess() as reader:
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
    script = f"import os, sys, time; reader = ReadingProcess(); time.sleep(float(sys.argv[1])); {end}"
    for seconds in (0, 0.1, 0.2, 0.3):  # importing takes about as long
        ended = run("from balaitous.cohort.processes import ReadingProcess; " + script, seconds)
        assert (ended.returncode, ended.stderr) == (0, "")


def test_reading_processes_that_cannot_be_spoken_with_are_an_error_not_a_wait_for_ever(monkeypatch):
    def refuse(_):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("multiprocessing.queues.Queue._start_thread", refuse)
    monkeypatch.setattr("threading.excepthook", lambda _: None)  # the thread that dies of it says so
    with pytest.raises(MemoryError):
        reading_processes(1)


# Predicts a scan under ever looser limits, and prints what came of each: "MemoryError", or the probability.
SQUEEZED = """
import re, resource, sys
from pathlib import Path
from balaitous import Balaitous
scan = sys.argv[1]
model = Balaitous("mini", device="cpu")
print(model.predict(scan).probability_covid)  # all code is loaded now
used = int(re.search(r"VmData:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) << 10
for mib in [*map(int, sys.argv[2:]), None]:
    limit = resource.RLIM_INFINITY if mib is None else used + (mib << 20)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, resource.RLIM_INFINITY))
    try:
        print(model.predict(scan).probability_covid)
    except Exception as error:
        print(type(error).__name__)
"""


def test_memory_that_runs_out_while_a_scan_is_looked_at_is_said_so_and_the_next_one_is_answered(short_scans):
    limits = (0, 0, 0, 8, 12, 96)
    ended = run(SQUEEZED, short_scans / "b.mha", *limits)
    first, *squeezed, last = ended.stdout.split()
    assert ended.returncode == 0, ended.stderr
    assert len(squeezed) == len(limits)
    assert squeezed[:3] == ["MemoryError"] * 3
    assert squeezed[-1] == last == first  # and the failures left nothing behind in memory
    assert {*squeezed} <= {"MemoryError", first}


@pytest.mark.parametrize("error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory")])
def test_the_server_answers_the_next_job_after_one_for_which_the_memory_was_not_enough(
    model, short_scans, tmp_path, capsys, monkeypatch, error
):
    server = pytest.importorskip("balaitous.container.server", reason="needs FastAPI and uvicorn")
    jobs = server.JobServer(short_scans, tmp_path)
    jobs.model = model

    def fail(_):
        raise error

    with monkeypatch.context() as patch:
        patch.setitem(model.kept, "encoder_full", TorchNetwork(fail, model.device, torch.float32))
        assert jobs.run() == 5
    lines = capsys.readouterr().err.splitlines()
    assert "memory is not enough" in lines[0]
    assert "2 of 2 scans failed" in lines[-1]
    assert jobs.run() == 0
    assert visible(tmp_path) == FILES


class SmallGPU:
    """A network on a GPU that holds so many images at a time."""

    def __init__(self, network, images):
        self.network, self.images = network, images
        self.device = network.device

    def __call__(self, images):
        if len(images) > self.images:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has …")
        return self.network(images)


def test_a_gpu_that_holds_less_than_expected_answers_in_smaller_chunks_and_it_is_recorded(
    model, short_scans, monkeypatch
):
    scan = short_scans / "b.mha"
    whole = model.predict(scan)
    monkeypatch.setitem(model.kept, "encoder_full", SmallGPU(model.kept["encoder_full"], 4))
    chunked = model.predict(scan)
    assert chunked.warnings == ("out of memory: going on with 2 slices at a time",)
    assert chunked.probability_covid == pytest.approx(whole.probability_covid, abs=1e-5)
    monkeypatch.undo()
    again = model.predict(scan)
    assert (again.warnings, again.probabilities) == ((), whole.probabilities)


def test_a_gpu_that_does_not_hold_one_slice_says_what_to_do(model, short_scans, monkeypatch):
    monkeypatch.setitem(model.kept, "encoder_full", SmallGPU(model.kept["encoder_full"], 1))
    with pytest.raises(MemoryError) as raised:
        model.predict(short_scans / "b.mha")
    assert explain(raised.value).startswith("the GPU's memory is not enough: end what else uses it")


# --- weights ---------------------------------------------------------------------------------------------------------


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[content.index(b'"sha256": "') + 11 if path.suffix == ".json" else len(content) // 2] ^= 1
    path.write_bytes(content)


def cut_short(path):
    os.truncate(path, path.stat().st_size // 2)


def point_to_it(path):
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n")


@pytest.mark.parametrize(
    "file", ["bundle.json", "lung_unet.safetensors", "encoder_lung.safetensors", "heads.safetensors"]
)
@pytest.mark.parametrize(
    ("damage", "found"),
    [
        (flip_a_bit, "expected SHA-256 .*, found"),
        (cut_short, "expected SHA-256 .*, found|expected JSON"),
        (point_to_it, "found a Git LFS pointer"),
        (Path.unlink, "found: No such file|no bundle.json"),
    ],
)
def test_a_bundle_that_is_not_what_it_claims_ends_the_job(
    short_scans, tmp_path, exec_mode, monkeypatch, file, damage, found
):
    bundle = shutil.copytree(find_bundle("mini"), tmp_path / "bundle")
    damage(bundle / file)
    monkeypatch.setenv("BALAITOUS_WEIGHTS", str(bundle))
    code, (line,) = exec_mode(short_scans, tmp_path / "out")
    assert code == 4
    assert re.match(f"ERROR: .*({found})", line)
    assert visible(tmp_path / "out") == {"results.json"}


# --- clocks ----------------------------------------------------------------------------------------------------------


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


def test_weights_that_are_exchanged_between_two_scans_are_noticed_whatever_their_date(tmp_path):
    path = tmp_path / "weights"
    path.write_bytes(b"one")
    status = path.stat()
    right = "7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed"  # of "one"
    assert check_hash(path, right) == path
    path.write_bytes(b"two")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    with pytest.raises(WeightsError, match="expected SHA-256"):
        check_hash(path, right)


# --- logs ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_log_that_is_full_is_no_failure_of_the_job(job, tmp_path, monkeypatch, unbuffered):
    monkeypatch.setenv("PYTHONUNBUFFERED", unbuffered)
    with open("/dev/full", "w") as full:
        ended = run(RUN, job, tmp_path / "out", capture_output=False, stdout=full, stderr=subprocess.PIPE)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert visible(tmp_path / "out") == FILES


def test_names_that_are_no_text_are_escaped_in_the_log(job, tmp_path):
    (job / "images/ct/b.mha").rename(job / "images/ct/b\udcff.mha")
    ended = run(RUN, job, tmp_path / "out")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "b\\udcff.mha: COVID-19" in ended.stdout
    assert "b\udcff.mha" in read(tmp_path / "out/probability-covid.json")


def test_what_nobody_expected_ends_the_command_in_one_line_below_its_traceback(command, monkeypatch):
    def fail(*_):
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr("balaitous.cohort.scans.list_scans", fail)
    code, lines = command("predict", "a.mha")
    assert code == 1
    assert lines[0].startswith("Traceback")
    assert lines[-1] == "ERROR: unexpected ZeroDivisionError: division by zero"
