"""The cluster engine: on real Ray nodes it gives the rows of the local engine, whatever dies on the way."""

import json
import os
import re
import shutil
import signal
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest
import torch

from balaitous.cohort.items import Scan
from balaitous.cohort.ray import ATTEMPTS, predict_scans, worker_share
from balaitous.ct.volume import write_mha
from balaitous.errors import BalaitousError, WeightsError
from helpers import ROOT
from helpers.phantoms import small_chest
from helpers.waiting import WAITING, pipe_of

GIB = 2**30
NODE = {
    "num_cpus": 1,
    "memory": 3 * GIB,
    "object_store_memory": 100 * 2**20,
    "include_dashboard": False,
}


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """For the processes of Ray: this package, and weights in a cache of their own."""
    pytest.importorskip("ray", reason="needs Ray, which is an optional extra (balaitous[ray])")
    with pytest.MonkeyPatch.context() as variables:
        variables.setenv("RAY_USAGE_STATS_ENABLED", "0")
        variables.setenv("RAY_BACKEND_LOG_LEVEL", "fatal")
        variables.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), WAITING]))
        variables.setenv("BALAITOUS_CACHE", str(tmp_path_factory.mktemp("cache_of_the_nodes")))
        yield


@pytest.fixture(scope="module")
def cluster(environment):
    """A Ray cluster of one node with one CPU."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args=NODE)
    yield cluster
    cluster.shutdown()


@pytest.fixture(scope="module")
def scans(tmp_path_factory) -> list[Scan]:
    """Eight small chests, one of them at an address, and a file that is none."""
    folder = tmp_path_factory.mktemp("scans")
    for seed in range(8):
        write_mha(folder / f"chest{seed}.mha", small_chest(seed, (4.5, 4.5, 14), (90, 70, 15), slice(6, 14), 200))
    (folder / "broken.mha").write_bytes(b"no image")
    chests = [Scan(folder / f"chest{seed}.mha", age=30 + seed if seed % 2 else None) for seed in range(7)]
    return [chests[0], Scan(folder / "broken.mha"), *chests[1:], Scan(f"file://{folder}/chest7.mha", sex="F")]


@pytest.fixture(scope="module")
def local_rows(model, scans):
    """What the local engine says of the scans, on one thread as the nodes."""
    from balaitous.cohort.local import predict_scans

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield list(predict_scans(model, scans))
    torch.set_num_threads(threads)


def without_times(rows):
    """Rows by PatientID; each must be there once."""
    timeless = {row["PatientID"]: {key: row[key] for key in row if not key.startswith("seconds")} for row in rows}
    assert len(timeless) == len(rows)
    return timeless


def test_a_node_killed_mid_run_costs_no_row_and_doubles_none(cluster, scans, local_rows):
    node = cluster.add_node(**NODE)
    rows = predict_scans(scans, weights="mini", device="cpu", address=cluster.address)
    received = [next(rows) for _ in range(3)]
    cluster.remove_node(node, allow_graceful=False)
    received += rows
    assert without_times(received) == without_times(local_rows)
    assert sum(row["status"] == "failed" for row in received) == 1
    for row, expected in zip(sorted(received, key=str), sorted(local_rows, key=str), strict=True):
        assert {key: type(value) for key, value in row.items()} == {k: type(value) for k, value in expected.items()}


def test_a_scan_that_kills_its_workers_is_given_up_and_the_others_are_done(cluster, scans, local_rows, tmp_path):
    trap = tmp_path / "trap.mha"
    shutil.copy(scans[0].path, trap)
    # whoever reads it waits at the pipe until this test kills it
    deaths = threading.Thread(target=kill_readers, args=(pipe_of(trap), ATTEMPTS), daemon=True)
    deaths.start()
    received = list(
        predict_scans([scans[0], Scan(trap), scans[2]], weights="mini", device="cpu", address=cluster.address)
    )
    deaths.join()
    rows = without_times(received)
    assert rows["trap"]["status"] == "failed"
    assert re.search(rf"trap\.mha: {ATTEMPTS} workers died of it", rows["trap"]["error"])
    for name in ("chest0", "chest1"):
        assert rows[name] == without_times(local_rows)[name]


def kill_readers(pipe: Path, times: int) -> None:
    """Kill whoever reads the pipe, so many times."""
    for _ in range(times):
        while (writer := open_if_read(pipe)) is None:
            time.sleep(0.1)
        while not (readers := readers_of(pipe)):
            time.sleep(0.1)
        os.kill(readers[0], signal.SIGKILL)
        while readers_of(pipe):  # it takes a moment to die
            time.sleep(0.1)
        os.close(writer)


def open_if_read(pipe: Path) -> int | None:
    """The pipe, open for writing, if someone reads it."""
    with suppress(OSError):
        return os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
    return None


def readers_of(pipe: Path) -> list[int]:
    """The other processes that have it open."""
    return [
        pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if pid != os.getpid() and holds(pid, pipe)
    ]


def holds(pid: int, file: Path) -> bool:
    """Whether a process has opened a file."""
    with suppress(OSError):  # it ended meanwhile
        return any(os.path.realpath(each.path) == str(file) for each in os.scandir(f"/proc/{pid}/fd"))
    return False


def bundle_of_this_machine(monkeypatch, folder: Path) -> Path:
    """Mini under the name "ours", in a cache that the nodes do not know."""
    monkeypatch.setenv("BALAITOUS_CACHE", str(folder))
    shutil.copytree(ROOT / "resources/mini", folder / "ours")
    return folder / "ours"


def test_a_node_without_the_weights_ends_the_run_in_one_line(cluster, scans, tmp_path, monkeypatch):
    bundle_of_this_machine(monkeypatch, tmp_path)
    with pytest.raises(WeightsError, match=r"^node .*: weights 'ours': expected a weight bundle") as failure:
        list(predict_scans(scans, weights="ours", device="cpu", address=cluster.address))
    assert "\n" not in str(failure.value)


def test_a_node_with_other_weights_ends_the_run_in_one_line(cluster, scans, tmp_path, monkeypatch):
    facts = json.loads((ROOT / "resources/mini/bundle.json").read_text())
    theirs = Path(os.environ["BALAITOUS_CACHE"]) / "ours"
    shutil.copytree(ROOT / "resources/mini", theirs)
    (theirs / "bundle.json").write_text(json.dumps(facts | {"name": "theirs"}))
    bundle_of_this_machine(monkeypatch, tmp_path)
    with pytest.raises(
        WeightsError, match=r"^node .*: expected the weights of this run .* Copy the same bundle"
    ) as failure:
        list(predict_scans(scans, weights="ours", device="cpu", address=cluster.address))
    assert "\n" not in str(failure.value)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU that is none can only be told where there is none")
def test_a_worker_that_cannot_start_ends_the_run_in_one_line(cluster, scans):
    node = cluster.add_node(**NODE, num_gpus=1)
    with pytest.raises(BalaitousError, match=r"^node .*: .*PyTorch sees no GPU") as failure:
        list(predict_scans(scans, weights="mini", address=cluster.address))
    assert "\n" not in str(failure.value)
    cluster.remove_node(node)


def test_without_an_address_ray_starts_here_and_ends_with_the_last_row_wanted(environment, scans):
    import ray

    rows = predict_scans(scans, weights="mini", device="cpu", workers=1)
    assert next(rows)["bundle"] in ("mini", None)
    rows.close()
    assert not ray.is_initialized()


def test_where_no_cluster_answers_the_error_says_so(environment, scans):
    with pytest.raises(ValueError, match=r"no Ray cluster at '127\.0\.0\.1:1'"):
        predict_scans(scans, weights="mini", address="127.0.0.1:1")
    with pytest.raises(ValueError, match="HOST:PORT"):
        predict_scans(scans, weights="mini", address="ray://127.0.0.1:10001")


def test_without_ray_the_error_says_how_to_get_it(scans, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ValueError, match=r"pip install 'balaitous\[ray\]'"):
        predict_scans(scans, weights="mini")


def test_no_scans_need_no_cluster():
    assert list(predict_scans([], weights="mini")) == []


def test_missing_weights_are_found_out_before_ray_starts(scans):
    with pytest.raises(WeightsError, match="nowhere"):
        predict_scans(scans, weights="nowhere")


CPU_NODE = {"CPU": 8.0, "memory": 64.0 * GIB}
GPU_NODE = {"CPU": 32.0, "GPU": 4.0, "memory": 256.0 * GIB}


@pytest.mark.parametrize(
    ("nodes", "device", "workers", "cpus", "gpus", "memory"),
    [
        ([CPU_NODE, CPU_NODE], "auto", None, 1, 0, 4 * GIB),  # one per CPU
        ([CPU_NODE, CPU_NODE], None, 4, 4, 0, 4 * GIB),  # fewer: as many threads each as there are CPUs for
        ([CPU_NODE, CPU_NODE], "cpu", 1, 8, 0, 4 * GIB),  # but no more than a node has
        ([CPU_NODE, CPU_NODE], "cpu", 100, 1, 0, 4 * GIB),
        ([CPU_NODE | {"memory": 9.0 * GIB}], "cpu", None, 4, 0, 4 * GIB),  # memory for two only
        ([CPU_NODE | {"memory": 1.0 * GIB}], "cpu", None, 8, 0, 1 * GIB),
        ([CPU_NODE, GPU_NODE], "auto", None, 8, 1, 4 * GIB),  # GPUs where there are any
        ([CPU_NODE, GPU_NODE], "cpu", None, 1, 0, 4 * GIB),
    ],
)
def test_workers_ask_for_shares_that_fit_side_by_side(nodes, device, workers, cpus, gpus, memory):
    assert worker_share(nodes, 4 * GIB, device, workers) == {"num_cpus": cpus, "num_gpus": gpus, "memory": memory}


@pytest.mark.parametrize(("nodes", "device", "kind"), [([CPU_NODE], "cuda", "GPU"), ([{"memory": GIB}], "auto", "CPU")])
def test_a_cluster_without_what_the_device_needs_is_refused(nodes, device, kind):
    with pytest.raises(ValueError, match=f"no node of the Ray cluster has a {kind}"):
        worker_share(nodes, GIB, device, None)
