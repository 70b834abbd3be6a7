"""Many items on this machine, one after another or several at a time; one that fails never stops the others."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from threading import Lock, local
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeVar

from balaitous.cohort.addresses import local_copy, redacted
from balaitous.cohort.processes import ReadingProcess, leave_interrupts_to_main_thread, reader_died
from balaitous.cohort.table import Prediction, Row, row_of

if TYPE_CHECKING:
    from balaitous.cohort.items import Item
    from balaitous.models import Model
    from balaitous.provenance import Provenance
    from balaitous.weights.bundle import Bundle

log = logging.getLogger(__name__)

CLEARING_SECONDS = 1.0  # for what a reading process unpacked
AHEAD = 2  # items begun or waiting, for each worker: a slow one at the head of the line does not keep the others idle

Keep = Callable[[Any], None]
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
    model: Predictor, items: Iterable[Item], workers: int = 1, keep: Keep | None = None
) -> Generator[Row]:
    """Yield the row of each item, in the order of `items`. One that fails gives a row that says so.

    Parameters
    ----------
    items : read as they are needed, and not far ahead of the rows that are taken
    workers : items at a time: as many processes read and prepare them while the networks, in this one, take one after
        the other. Memory grows by one prepared item a worker. A script that calls this with more than one does so below
        ``if __name__ == "__main__":``, as the standard library's `multiprocessing` has it
    keep : gets every prediction before its row is yielded; where it fails, the item does
    """
    if workers == 1:
        for item in items:
            yield predict_item(model, item, keep)
    else:
        yield from _side_by_side(model, iter(items), workers, keep)


def predict_item(model: Predictor, item: Item, keep: Keep | None = None, executor: Executor | None = None) -> Row:
    """The row of one item, failed or not."""
    return row_of(item, outcome_of(model, item, keep, executor), model.MODEL)


def outcome_of(
    model: Predictor[Predicted], item: Item, keep: Keep | None = None, executor: Executor | None = None
) -> Predicted | Exception:
    """The prediction of one item, or why there is none: the one place where all that can go wrong with it is caught."""
    try:
        with local_copy(item.path) as path:
            prediction = model.predict(path, executor=executor, **item.given)
            if keep:
                keep(prediction)
            return prediction
    except BrokenProcessPool:
        return reader_died(redacted(item.path))
    except Exception as error:
        log.debug("%s failed", redacted(item.path), exc_info=True)
        return error


def _side_by_side(model: Predictor, items: Iterator[Item], workers: int, keep: Keep | None) -> Iterator[Row]:
    readers = Readers(model.MODEL.preparing)
    threads = ThreadPoolExecutor(workers, initializer=leave_interrupts_to_main_thread)
    begun: deque[Future[Row]] = deque()

    def work(item: Item) -> Row:
        try:
            executor = readers.of_this_thread()
        except Exception as error:  # no room for another process, say
            return row_of(item, error, model.MODEL)
        return predict_item(model, item, keep, executor)

    try:
        while True:
            for item in islice(items, AHEAD * workers - len(begun)):
                begun.append(threads.submit(work, item))
            if not begun:
                return
            yield begun.popleft().result()
    finally:  # also when interrupted, or nobody wants more
        threads.shutdown(wait=False, cancel_futures=True)
        readers.end()


class Readers:
    """A reading process for each thread that asks for one; a scan that ends its process ends no other scan.

    Parameters
    ----------
    preload : module that does the reading; "": there are no processes, and reading happens in the threads
    """

    def __init__(self, preload: str) -> None:
        self.preload = preload
        self.mine, self.all, self.lock = local(), list[ReadingProcess](), Lock()

    def of_this_thread(self) -> ReadingProcess | None:
        """The process of the thread that asks.

        Raises
        ------
        OSError, MemoryError : it cannot be started
        """
        if not self.preload:
            return None
        if not hasattr(self.mine, "process"):
            self.mine.process = ReadingProcess(self.preload)
            with self.lock:
                self.all.append(self.mine.process)
        return self.mine.process

    def end(self) -> None:
        """End every process, and wait a moment for those that have something to clear away."""
        with self.lock:
            for reader in self.all:
                reader.end()
            deadline = time.monotonic() + CLEARING_SECONDS
            for reader in self.all:
                reader.process.join(max(0.0, deadline - time.monotonic()))
