"""The cluster engine: on real Ray nodes it gives the rows of the local engine, whatever dies on the way."""

import json
import os
import re
import shutil
import sys
import threading
from pathlib import Path

import pytest
import torch

from balaitous.cohort.items import Item
from balaitous.cohort.ray import ATTEMPTS, predict_items, worker_share
from balaitous.errors import BalaitousError, WeightsError
from balaitous.models import Settings
from helpers import ROOT
from helpers.phantoms import write_small_chest
from helpers.rows import SEVERITY, but_seconds
from helpers.waiting import WAITING, kill_readers, pipe_of

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
def scans(tmp_path_factory) -> list[Item]:
    """Six small chests, one of them at an address, and a file that is none."""
    folder = tmp_path_factory.mktemp("scans")
    for seed in range(6):
        write_small_chest(folder / f"chest{seed}.mha", seed)
    (folder / "broken.mha").write_bytes(b"no image")
    chests = [Item(folder / f"chest{seed}.mha", {"age": 30 + seed if seed % 2 else None}) for seed in range(5)]
    return [chests[0], Item(folder / "broken.mha"), *chests[1:], Item(f"file://{folder}/chest5.mha", {"sex": "F"})]


@pytest.fixture(scope="module")
def local_rows(model, scans):
    """What the local engine says of the scans, on one thread as the nodes."""
    from balaitous.cohort.local import predict_items

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield list(predict_items(model, scans))
    torch.set_num_threads(threads)


def without_times(rows):
    """Rows by PatientID; each must be there once."""
    timeless = {row["PatientID"]: row for row in but_seconds(rows)}
    assert len(timeless) == len(rows)
    return timeless


@pytest.mark.slow
def test_a_node_killed_mid_run_costs_no_row_and_doubles_none(cluster, scans, local_rows):
    node = cluster.add_node(**NODE)
    rows = predict_items(SEVERITY, Settings("mini", "cpu"), scans, address=cluster.address)
    received = [next(rows) for _ in range(2)]
    cluster.remove_node(node, allow_graceful=False)
    received += rows
    assert without_times(received) == without_times(local_rows)
    assert sum(row["status"] == "failed" for row in received) == 1
    for row, expected in zip(sorted(received, key=str), sorted(local_rows, key=str), strict=True):
        assert {key: type(value) for key, value in row.items()} == {k: type(value) for k, value in expected.items()}


@pytest.mark.slow
def test_a_scan_that_kills_its_workers_is_given_up_and_the_others_are_done(cluster, scans, local_rows, tmp_path):
    trap = tmp_path / "trap.mha"
    shutil.copy(scans[0].path, trap)
    # whoever reads it waits at the pipe until this test kills it
    deaths = threading.Thread(target=kill_readers, args=(pipe_of(trap), ATTEMPTS), daemon=True)
    deaths.start()
    received = list(
        predict_items(SEVERITY, Settings("mini", "cpu"), [scans[0], Item(trap), scans[2]], address=cluster.address)
    )
    deaths.join()
    rows = without_times(received)
    assert rows["trap"]["status"] == "failed"
    assert re.search(rf"trap\.mha: {ATTEMPTS} workers died of it", rows["trap"]["error"])
    for name in ("chest0", "chest1"):
        assert rows[name] == without_times(local_rows)[name]


def bundle_of_this_machine(monkeypatch, folder: Path) -> Path:
    """Mini under the name "ours", in a cache that the nodes do not know."""
    monkeypatch.setenv("BALAITOUS_CACHE", str(folder))
    shutil.copytree(ROOT / "resources/mini", folder / "ours")
    return folder / "ours"


@pytest.mark.slow
def test_a_node_without_the_weights_ends_the_run_in_one_line(cluster, scans, tmp_path, monkeypatch):
    bundle_of_this_machine(monkeypatch, tmp_path)
    with pytest.raises(WeightsError, match=r"^node .*: weights 'ours': expected a weight bundle") as failure:
        list(predict_items(SEVERITY, Settings("ours", "cpu"), scans[:2], address=cluster.address))
    assert "\n" not in str(failure.value)


@pytest.mark.slow
def test_a_node_with_other_weights_ends_the_run_in_one_line(cluster, scans, tmp_path, monkeypatch):
    facts = json.loads((ROOT / "resources/mini/bundle.json").read_text())
    theirs = Path(os.environ["BALAITOUS_CACHE"]) / "ours"
    shutil.copytree(ROOT / "resources/mini", theirs)
    (theirs / "bundle.json").write_text(json.dumps(facts | {"name": "theirs"}))
    bundle_of_this_machine(monkeypatch, tmp_path)
    with pytest.raises(
        WeightsError, match=r"^node .*: expected the weights of this run .* Copy the same bundle"
    ) as failure:
        list(predict_items(SEVERITY, Settings("ours", "cpu"), scans[:2], address=cluster.address))
    assert "\n" not in str(failure.value)


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU that is none can only be told where there is none")
def test_a_worker_that_cannot_start_ends_the_run_in_one_line(cluster, scans):
    node = cluster.add_node(**NODE, num_gpus=1)
    with pytest.raises(BalaitousError, match=r"^node .*: .*PyTorch sees no GPU") as failure:
        list(predict_items(SEVERITY, Settings("mini"), scans[:2], address=cluster.address))
    assert "\n" not in str(failure.value)
    cluster.remove_node(node)


@pytest.mark.slow
def test_without_an_address_ray_starts_here_and_ends_with_the_last_row_wanted(environment, scans):
    import ray

    rows = predict_items(SEVERITY, Settings("mini", "cpu"), scans, workers=1)
    assert next(rows)["bundle"] in ("mini", None)
    rows.close()
    assert not ray.is_initialized()


@pytest.mark.slow
def test_where_no_cluster_answers_the_error_says_so(environment, scans):
    with pytest.raises(ValueError, match=r"no Ray cluster at '127\.0\.0\.1:1'"):
        predict_items(SEVERITY, Settings("mini"), scans, address="127.0.0.1:1")
    with pytest.raises(ValueError, match="HOST:PORT"):
        predict_items(SEVERITY, Settings("mini"), scans, address="ray://127.0.0.1:10001")


def test_without_ray_the_error_says_how_to_get_it(scans, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ValueError, match=r"pip install 'balaitous\[ray\]'"):
        predict_items(SEVERITY, Settings("mini"), scans)


def test_no_scans_need_no_cluster():
    assert list(predict_items(SEVERITY, Settings("mini"), [])) == []


def test_missing_weights_are_found_out_before_ray_starts(scans):
    with pytest.raises(WeightsError, match="nowhere"):
        predict_items(SEVERITY, Settings("nowhere"), scans)


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
