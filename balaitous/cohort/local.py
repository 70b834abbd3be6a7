"""Many items on this machine, one after another or several at a time; one that fails never stops the others."""

from __future__ import annotations

import logging
import os
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from itertools import islice
from threading import Lock, local
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeVar

from balaitous.cohort.addresses import local_copy, redacted
from balaitous.cohort.processes import ReadingProcess, leave_interrupts_to_main_thread
from balaitous.cohort.table import Prediction, Row, row_of
from balaitous.errors import reader_died

if TYPE_CHECKING:
    from balaitous.cohort.items import Item
    from balaitous.models import Model
    from balaitous.provenance import Provenance
    from balaitous.weights.bundle import Bundle

log = logging.getLogger(__name__)

CAN_READ_BESIDE = os.name != "nt"  # Windows cannot end such processes as `processes` does
CLEARING_SECONDS = 1.0  # for what a reading process unpacked
AHEAD = 2  # items begun or waiting, for each worker: a slow one at the head of the line does not keep the others idle

Keep = Callable[[Any], None]
Save = Callable[[Any, "Item"], None]
Predicted = TypeVar("Predicted", bound=Prediction, covariant=True)


class Predictor(Protocol[Predicted]):
    """What every model can do. Its class takes the fields of `balaitous.models.Settings`.

    Attributes
    ----------
    MODEL : its row of `balaitous.models`
    device, precision : where and how its networks run
    predict : the prediction of one item, which several threads may ask for at once: ``predict(path, executor=None,
        **given)``. `executor` is where the steps run that need no network (None: in the thread that asks); `given` are
        facts by the names of `Model.given`
    """

    MODEL: ClassVar[Model]

    @property
    def bundle(self) -> Bundle: ...
    @property
    def device(self) -> Any: ...
    @property
    def precision(self) -> str: ...
    @property
    def provenance(self) -> Provenance: ...
    @property
    def predict(self) -> Callable[..., Predicted]: ...


def predict_items(
    model: Predictor,
    items: Iterable[Item],
    workers: int | None = None,
    keep: Keep | None = None,
    readers: Readers | None = None,
    save: Save | None = None,
) -> Generator[Row]:
    """Yield the row of each item, in the order of `items`. One that fails gives a row that says so.

    Parameters
    ----------
    items : read as they are needed, and not far ahead of the rows that are taken
    workers : items at a time: as many processes read and prepare them, one included, while the networks, in this one,
        take one after the other: an item that ends its process fails alone. Memory grows by one prepared item a worker.
        A script that asks for them does so below ``if __name__ == "__main__":``, as the standard library's
        `multiprocessing` has it. None: items are read in this process, which ends with one that ends its reader
    keep : gets every prediction before its row is yielded; where it fails, the item does
    readers : where a process was started beforehand; they end with the last row
    save : gets every prediction with its item, as `keep` does, and fills the item's folder
    """
    if workers is None:
        for item in items:
            yield predict_item(model, item, keep, save=save)
    else:
        yield from _side_by_side(model, iter(items), workers, keep, readers or Readers(model.MODEL.preparing), save)


def predict_item(
    model: Predictor,
    item: Item,
    keep: Keep | None = None,
    executor: Executor | None = None,
    save: Save | None = None,
) -> Row:
    """The row of one item, failed or not."""
    return row_of(item, outcome_of(model, item, keep, executor, save), model.MODEL)


def outcome_of(
    model: Predictor[Predicted],
    item: Item,
    keep: Keep | None = None,
    executor: Executor | None = None,
    save: Save | None = None,
) -> Predicted | Exception:
    """The prediction of one item, or why there is none: the one place where all that can go wrong with it is caught."""
    try:
        with local_copy(item.path) as path:
            prediction = model.predict(path, executor=executor, **item.given)
            if keep:
                keep(prediction)
            if save:
                save(prediction, item)
            return prediction
    except BrokenProcessPool:
        return reader_died(redacted(item.path))
    except Exception as error:
        log.debug("%s failed", redacted(item.path), exc_info=True)
        return error


def _side_by_side(
    model: Predictor,
    items: Iterator[Item],
    workers: int,
    keep: Keep | None,
    readers: Readers,
    save: Save | None,
) -> Iterator[Row]:
    threads = ThreadPoolExecutor(workers, initializer=leave_interrupts_to_main_thread)
    begun: deque[Future[Row]] = deque()

    def work(item: Item) -> Row:
        try:
            executor = readers.of_this_thread()
        except Exception as error:  # no room for another process, say
            return row_of(item, error, model.MODEL)
        return predict_item(model, item, keep, executor, save)

    try:
        while True:
            for item in islice(items, AHEAD * workers - len(begun)):
                begun.append(threads.submit(work, item))
            if not begun:
                return
            yield begun.popleft().result()
    finally:  # also when interrupted, or nobody wants more
        threads.shutdown(wait=False, cancel_futures=True)
        readers.close()


class Readers:
    """A reading process for each thread that asks for one; a scan that ends its process ends no other scan.

    Parameters
    ----------
    preload : module that does the reading; "": there are no processes, and reading happens in the threads
    """

    def __init__(self, preload: str) -> None:
        self.preload = preload
        self.mine, self.all, self.lock = local(), list[ReadingProcess](), Lock()
        self.waiting: list[ReadingProcess] = []  # started beforehand

    def start(self) -> Readers:
        """Start a process for the first thread that asks, while this one does something else; not where it cannot be
        started, which the first scan will tell.
        """
        if self.preload:
            with suppress(OSError, MemoryError), ThreadPoolExecutor(1, "", leave_interrupts_to_main_thread) as thread:
                self.waiting.append(thread.submit(ReadingProcess, self.preload).result())
            self.all.extend(self.waiting)
        return self

    def of_this_thread(self) -> ReadingProcess | None:
        """The process of the thread that asks.

        Raises
        ------
        OSError, MemoryError : it cannot be started
        """
        if not self.preload:
            return None
        if not hasattr(self.mine, "process"):
            with self.lock:
                started = self.waiting.pop() if self.waiting else None
            self.mine.process = started or ReadingProcess(self.preload)
            with self.lock:
                if not started:
                    self.all.append(self.mine.process)
        return self.mine.process

    def close(self) -> None:
        """End every process, and wait a moment for those that have something to clear away."""
        with self.lock:
            for reader in self.all:
                reader.end()
            deadline = time.monotonic() + CLEARING_SECONDS
            for reader in self.all:
                reader.process.join(max(0.0, deadline - time.monotonic()))


def first_reader(model: Model) -> Readers:
    """Processes that read a model's items, of which the first starts now: it is ready when the networks are."""
    return Readers(model.preparing if CAN_READ_BESIDE else "").start()
