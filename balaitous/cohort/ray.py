"""Many items on a cluster: Ray Data actors, one per GPU or per CPU slot, each with the model loaded once.

Items go out one by one and rows come back as they are done, in any order. Ray starts a worker that died again, on
another node if need be, and gives it its item once more.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import socket
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from balaitous.errors import BalaitousError, InputError, WeightsError, explain, needs_extra, reason_of
from balaitous.models import Model, Settings, load_model

if TYPE_CHECKING:  # a worker imports the rest once it has set its number of threads
    import pyarrow

    from balaitous.cohort.items import Item
    from balaitous.cohort.table import Row

ATTEMPTS = 3  # workers that may die of a scan (of its size, say) before it is given up
ITEMS_ON_GPU = 2  # at a time: the next one is read while the networks look at this one
ITEM_BYTES = 2 * 2**30  # what a worker needs beside its weights: PyTorch and a thin-slice CT
CONNECT_SECONDS = 10
OBJECT_STORE_BYTES = 128 * 2**20  # of a Ray that is started here: rows are small


def predict_items(
    model: Model,
    settings: Settings,
    items: Sequence[Item],
    *,
    address: str | None = None,
    workers: int | None = None,
) -> Iterator[Row]:
    """Yield the row of each item as soon as it is done, in any order. One that fails gives a row that says so.

    Parameters
    ----------
    model : the row itself travels, and workers import what it names
    settings : weights are a bundle's name or folder, which every node finds for itself; device "auto" (or None): GPUs
        if the cluster has any
    items : paths and addresses that every node can read; relative paths start in this process's folder
    address : HOST:PORT of a Ray cluster, or "auto" for the one on this machine; None: ``$RAY_ADDRESS``, else a Ray that
        is started here and ends with the run. A process that has called ``ray.init`` already keeps to that
    workers : at most; None: one per GPU, else one per CPU, as far as memory goes. Fewer workers have more threads each

    Raises
    ------
    ValueError : Ray is not installed, no cluster answers at the address, or it has no GPU for device "cuda"
    WeightsError : no weights here; and, while rows are awaited, a node has none, or others
    BalaitousError : while rows are awaited, a worker does not start for another reason, or the cluster is lost
    """
    from balaitous.weights.bundle import open_bundle
    from balaitous.weights.search import find_bundle

    if not items:
        nothing: list[Row] = []
        return (row for row in nothing)
    # of this shell: nodes have environments of their own
    settings = replace(settings, weights=settings.weights or os.environ.get("BALAITOUS_WEIGHTS"))
    bundle = open_bundle(find_bundle(settings.weights, model))
    weights_bytes = sum(each.stat().st_size for each in bundle.folder.glob("*.safetensors"))
    ray = _import_ray()
    with ExitStack() as connection:
        connection.enter_context(_connected(ray, address))
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        share = worker_share(nodes, weights_bytes + ITEM_BYTES, settings.device, workers)
        worker = {
            "model": json.dumps(model.to_dict()),
            "settings": json.dumps({**vars(settings), "weights": settings.weights and str(settings.weights)}),
            "bundle_sha256": bundle.sha256,
            "device": "cuda" if share["num_gpus"] else "cpu",
            "folder": os.getcwd(),
            "threads": int(share["num_cpus"]),
            "attempts": ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(Attempts).remote(),
        }
        # JSON, because Arrow would turn None into NaN and whole numbers into others. A block an item: blocks are what
        # Ray sends, gets back and repeats.
        told = [{"item": json.dumps((index, str(item.path), item.given))} for index, item in enumerate(items)]
        dataset = ray.data.from_items(told, override_num_blocks=len(told))
        dataset.context.enable_progress_bars = False
        at_a_time = ITEMS_ON_GPU if share["num_gpus"] else 1
        rows = dataset.map_batches(
            Worker,
            fn_constructor_kwargs=worker,
            compute=ray.data.ActorPoolStrategy(
                min_size=1,
                max_size=workers,
                max_concurrent_calls_per_actor=at_a_time,
                enable_true_multi_threading=at_a_time > 1,
            ),
            batch_size=1,
            batch_format="pyarrow",
            **share,
        )
        handed_on = connection.pop_all()
    return _stream(rows, handed_on)


def _stream(dataset: Any, connection: ExitStack) -> Iterator[Row]:
    """Rows as they are done; the connection ends with them, or when nobody wants more."""
    with connection:
        try:
            for block in dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
                for outcome in map(json.loads, block["outcome"].to_pylist()):
                    if "problem" in outcome:
                        raise (WeightsError if outcome["of_weights"] else BalaitousError)(outcome["problem"])
                    yield outcome["row"]
        except BalaitousError:
            raise
        except Exception as error:  # of Ray, whose message ends with what happened
            reason = (str(error).strip() or type(error).__name__).splitlines()[-1].strip()
            raise BalaitousError(
                f"Ray gave up: {reason}. Is the same balaitous installed on every node? --resume goes on from here."
            ) from error


class Worker:
    """One model in a process of its own. If it cannot start, it answers every item with the reason.

    Parameters
    ----------
    model, settings : JSON of `Model.to_dict`, and of the fields of `Settings`
    bundle_sha256 : of the weights that the run has
    device : "cpu" or "cuda", as this worker was given one
    folder : that relative paths start in
    threads : of the networks
    attempts : an `Attempts` actor
    """

    def __init__(
        self, *, model: str, settings: str, bundle_sha256: str, device: str, folder: str, threads: int, attempts: Any
    ) -> None:
        self.attempts = attempts
        self.problem: dict[str, Any] | None = None
        os.environ["ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"] = str(threads)  # read at the first image
        with suppress(OSError):  # a node without it knows absolute paths only
            os.chdir(folder)
        self.model = Model.from_dict(json.loads(model))
        asked = Settings(**json.loads(settings))
        try:
            import torch

            from balaitous.weights.bundle import open_bundle
            from balaitous.weights.search import find_bundle

            torch.set_num_threads(threads)
            bundle = open_bundle(find_bundle(asked.weights, self.model))
            if bundle.sha256 != bundle_sha256:
                raise WeightsError(
                    f"expected the weights of this run (bundle.json of SHA-256 {bundle_sha256}), found {bundle.sha256} "
                    f"in {bundle.folder}. Copy the same bundle to every node."
                )
            self.predictor = load_model(self.model, replace(asked, weights=bundle.folder, device=device))
        except Exception as error:
            self.problem = {
                "problem": f"node {platform.node()}: {explain(error)}",
                "of_weights": isinstance(error, WeightsError),
            }

    def __call__(self, batch: pyarrow.Table) -> pyarrow.Table:
        """Table with an item in column "item" to one with its row, or the problem, in column "outcome", as JSON."""
        import pyarrow

        from balaitous.cohort.addresses import is_url
        from balaitous.cohort.items import Item

        index, path, given = json.loads(batch["item"][0].as_py())
        item = Item(path if is_url(path) else Path(path), given)
        return pyarrow.table({"outcome": [json.dumps(self.problem or {"row": self.row(index, item)})]})

    def row(self, index: int, item: Item) -> Row:
        """What the local engine would give for the item."""
        import ray

        from balaitous.cohort.addresses import redacted
        from balaitous.cohort.local import predict_item
        from balaitous.cohort.table import row_of

        if ray.get(self.attempts.begin.remote(index)) <= ATTEMPTS:
            return predict_item(self.predictor, item)
        given_up = InputError(
            f"{redacted(item.path)}: {ATTEMPTS} workers died of it, for want of memory most likely. Give each more "
            "(fewer --workers), or bring the scan with thicker slices."
        )
        return row_of(item, given_up, self.model)


class Attempts:
    """How often each item was begun: an actor, because the workers that know it die."""

    def __init__(self) -> None:
        self.begun: Counter[int] = Counter()

    def begin(self, index: int) -> int:
        self.begun[index] += 1
        return self.begun[index]


def worker_share(
    nodes: Sequence[Mapping[str, float]], memory_bytes: float, device: str | None, workers: int | None
) -> dict[str, float]:
    """What each worker asks Ray for: ``num_cpus``, ``num_gpus`` and ``memory``, so that all of them fit.

    Parameters
    ----------
    nodes : resources of each node of the cluster, "CPU", "GPU" and "memory" in bytes
    memory_bytes : what a worker should have; less where no node has that much

    Raises
    ------
    ValueError : no node has what the device needs
    """
    gpu = device not in ("cpu", None, "auto") or (device != "cpu" and any(node.get("GPU", 0) >= 1 for node in nodes))
    kind = "GPU" if gpu else "CPU"
    nodes = [node for node in nodes if min(node.get(kind, 0), node.get("CPU", 0)) >= 1]
    if not nodes:
        raise ValueError(f"device {device or 'auto'!r} was asked for, but no node of the Ray cluster has a {kind}.")
    fitting = [max(1, int(min(node[kind], node["CPU"], node["memory"] // memory_bytes))) for node in nodes]
    cpus = min(node["CPU"] // count for node, count in zip(nodes, fitting, strict=True))
    if workers and workers < sum(fitting):
        cpus = min(sum(node["CPU"] for node in nodes) // workers, max(node["CPU"] for node in nodes))
    return {
        "num_cpus": max(1, int(cpus)),
        "num_gpus": int(gpu),
        "memory": min(memory_bytes, *(node["memory"] for node in nodes)),
    }


@contextmanager
def _connected(ray: Any, address: str | None) -> Iterator[None]:
    """Inside a Ray cluster: the one this process is in already, one that is joined, or one that is started here."""
    if ray.is_initialized():
        yield
        return
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    own = {"include_dashboard": False, "object_store_memory": OBJECT_STORE_BYTES} if address == "local" else {}
    try:
        if address not in ("local", "auto"):
            _check_address(address)  # Ray itself would go on trying for many minutes
        ray.init(address, log_to_driver=False, logging_level=logging.ERROR, **own)
    except (OSError, RuntimeError, ValueError) as error:
        reason = reason_of(error)
        raise ValueError(
            f"no Ray cluster at {address!r}: {reason}. Start one (`ray start --head`), set RAY_AUTH_MODE=token if it "
            "asks for a token, or leave --address out."
        ) from None
    try:
        yield
    finally:
        ray.shutdown()


def _check_address(address: str) -> None:
    """Raise ValueError if the address is none, OSError if nobody answers there."""
    host, _, port = address.rpartition(":")
    if not host or "/" in host or not port.isdigit():
        raise ValueError("expected HOST:PORT, or auto")
    socket.create_connection((host, int(port)), timeout=CONNECT_SECONDS).close()


def _import_ray() -> Any:
    """Ray without its statistics, and with no more of its logging on the terminal than what stops a run."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    try:
        import ray.data
    except ImportError:
        raise ValueError(needs_extra("--engine ray", "Ray", "ray")) from None
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    return ray
