"""How networks run: devices, precision, and chunks when memory is short."""

import pytest
import torch

from balaitous.networks.runtime import Chunker, built_for, choose_device, choose_precision


def test_a_chunk_that_does_not_fit_is_halved_and_nothing_is_lost():
    tried = []

    def work(chunk: slice) -> list[int]:
        size = chunk.stop - chunk.start
        tried.append(size)
        if size > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return list(range(chunk.start, chunk.stop))

    chunker = Chunker(12)
    assert [i for chunk in chunker.run(10, work) for i in chunk] == list(range(10))
    assert tried == [10, 6, 3, 3, 3, 1]
    assert list(chunker.run(2, work)) == [[0, 1]]
    assert chunker.size == 12  # the next scan's digits do not depend on this one


def test_other_faults_are_not_taken_for_memory():
    def work(chunk: slice) -> None:
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes"):
        list(Chunker(8).run(8, work))


def test_memory_that_does_not_even_hold_one_slice_is_an_error():
    tried = []

    def work(chunk: slice) -> None:
        tried.append(chunk.stop)
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")

    with pytest.raises(RuntimeError, match="can't allocate"):
        list(Chunker(8).run(8, work))
    assert tried == [8, 4, 2, 1]


def test_a_gpu_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto").type == "cpu"
    with pytest.raises(ValueError, match="no GPU"):
        choose_device("cuda")


@pytest.mark.parametrize(
    ("capability", "architectures", "runs"),
    [
        ((9, 0), ["sm_80", "sm_90"], True),
        ((8, 6), ["sm_80"], True),  # code for 8.0 runs on 8.6
        ((8, 0), ["sm_86"], False),
        ((7, 0), ["sm_75", "sm_80", "sm_90a"], False),
        ((12, 0), ["sm_75", "sm_120"], True),
        ((12, 0), ["sm_90", "compute_90"], True),  # compiled when it is loaded
        ((7, 5), ["compute_80"], False),
        ((7, 5), [], False),
    ],
)
def test_a_gpu_runs_what_was_built_for_it(capability, architectures, runs):
    assert built_for(capability, architectures) is runs


@pytest.mark.parametrize("device", ["gpu", "mps", "cuda:x"])
def test_an_unknown_device_is_refused(device):
    with pytest.raises(ValueError, match="device must be one of auto, cpu, cuda"):
        choose_device(device)


def test_an_unknown_precision_is_refused():
    with pytest.raises(ValueError, match="precision must be one of"):
        choose_precision("fp8", torch.device("cpu"))


def test_automatic_precision_is_single():
    assert choose_precision("auto", torch.device("cpu")) == ("fp32", torch.float32)
