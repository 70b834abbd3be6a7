"""Many scans on this machine, one after another or several at a time; one that fails never stops the others."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from typing import TYPE_CHECKING

from balaitous.cohort.addresses import local_copy, shown
from balaitous.cohort.processes import (
    ReadingProcess,
    leave_interrupts_to_main_thread,
    reader_died,
    reading_processes,
)
from balaitous.cohort.table import Row, row_of

if TYPE_CHECKING:
    from balaitous.cohort.items import Scan
    from balaitous.severity.pipeline import Balaitous

log = logging.getLogger(__name__)

AHEAD = 2  # scans begun or waiting, for each worker: a slow scan at the head of the line does not keep the others idle


def predict_scans(
    model: Balaitous, scans: Iterable[Scan], series: str | None = None, workers: int = 1
) -> Generator[Row]:
    """Yield the row of each scan, in the order of `scans`. A scan that fails gives a row that says so.

    Parameters
    ----------
    scans : read as they are needed, and not far ahead of the rows that are taken
    series : SeriesInstanceUID, for DICOM folders with several
    workers : scans at a time: as many processes read and prepare scans while the networks, in this one, take one scan
        after the other. Memory grows by one prepared scan a worker. A script that calls this with more than one does
        so below ``if __name__ == "__main__":``, as the standard library's `multiprocessing` has it
    """
    if workers == 1:
        for scan in scans:
            yield predict_scan(model, scan, series)
    else:
        yield from _side_by_side(model, iter(scans), series, workers)


def predict_scan(model: Balaitous, scan: Scan, series: str | None = None, executor: Executor | None = None) -> Row:
    """The row of one scan, failed or not.

    Raises
    ------
    BrokenProcessPool : if a process of `executor` died, of this scan or of another one
    """
    try:
        with local_copy(scan.path) as path:
            return row_of(scan, model.predict(path, age=scan.age, sex=scan.sex, series=series, executor=executor))
    except BrokenProcessPool:
        raise
    except Exception as error:
        log.debug("%s failed", shown(scan.path), exc_info=True)
        return row_of(scan, error)


def _side_by_side(model: Balaitous, scans: Iterator[Scan], series: str | None, workers: int) -> Iterator[Row]:
    threads = ThreadPoolExecutor(workers, initializer=leave_interrupts_to_main_thread)
    processes = reading_processes(workers)
    begun: deque[tuple[Scan, Executor, Future[Row]]] = deque()
    try:
        while True:
            for scan in islice(scans, AHEAD * workers - len(begun)):
                begun.append((scan, processes, threads.submit(predict_scan, model, scan, series, processes)))
            if not begun:
                return
            scan, used, future = begun.popleft()
            try:
                row = future.result()
            except BrokenProcessPool:
                wait([each for _, _, each in begun])  # which scan it was is not known, and memory may be short
                row = _predict_alone(model, scan, series)
                if used is processes:
                    processes = reading_processes(workers)
            yield row
    finally:  # also when interrupted, or nobody wants more
        threads.shutdown(wait=False, cancel_futures=True)
        processes.shutdown(wait=False, cancel_futures=True)


def _predict_alone(model: Balaitous, scan: Scan, series: str | None) -> Row:
    """The row of a scan that was under way when a process died."""
    with ReadingProcess() as process:
        try:
            return predict_scan(model, scan, series, process)
        except BrokenProcessPool:
            return row_of(scan, reader_died(shown(scan.path)))
