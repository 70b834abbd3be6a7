"""Memory that runs out, on the host and on a GPU."""

import errno
import re
import resource

import pytest
import torch

from balaitous import InputError, WeightsError
from balaitous.cohort.items import Item
from balaitous.cohort.local import predict_items
from balaitous.cohort.processes import ReadingProcess
from balaitous.errors import explain
from balaitous.memory import is_out_of_memory, memory_errors
from balaitous.networks.runtime import TorchNetwork
from helpers.jobs import FILES, only_error, run, visible


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


@pytest.mark.slow
@pytest.mark.parametrize("start", ["import process; sys.exit(process.main(['{scans}', '{out}']))", "CLI"])
def test_a_limit_below_what_the_libraries_take_is_refused_in_one_line(short_scans, tmp_path, start):
    if start == "CLI":
        start = "from balaitous.cli import main; main(['predict', '{scans}'])"
    limit = f"import resource, sys; resource.setrlimit(resource.RLIMIT_DATA, (512 << 20, {resource.RLIM_INFINITY}));"
    ended = run(limit + start.format(scans=short_scans, out=tmp_path))
    assert ended.returncode == 1
    assert "the memory is not enough (expected at least 1152 MiB (RLIMIT_DATA), found 512): " in only_error(ended)


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOMEM, "Cannot allocate memory"), MemoryError("can't start new thread")]
)
def test_a_reading_process_that_cannot_be_started_is_the_failure_of_its_scan(model, short_scans, monkeypatch, error):
    def refuse(_):
        raise error

    monkeypatch.setattr(ReadingProcess, "_start", refuse)
    rows = list(predict_items(model, [Item(short_scans / "a.mha"), Item(short_scans / "b.mha")], workers=2))
    assert [row["status"] for row in rows] == ["failed", "failed"]
    assert {row["error_kind"] for row in rows} == {type(error).__name__}


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


@pytest.mark.slow
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
