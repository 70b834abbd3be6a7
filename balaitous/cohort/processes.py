"""Processes that read and prepare scans, beside this one, which runs the networks. They never load PyTorch."""

from __future__ import annotations

import os
import signal
import sys
import time
from concurrent.futures import ProcessPoolExecutor, wait
from multiprocessing import get_context, parent_process
from threading import Thread, main_thread
from typing import Any

SIGNALS = 5
START_POLL_SECONDS = 0.2
ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS")


def reading_processes(count: int) -> ProcessPoolExecutor:
    """So many processes: the first is started, the others when there is work. Each has one thread, so that all cores
    are left to the networks.

    They start afresh: forked ones would share the locks of PyTorch's threads, but not the threads.

    Raises
    ------
    MemoryError : there is not even room for the threads that speak with the processes
    """
    processes = ProcessPoolExecutor(count, mp_context=get_context("spawn"), initializer=_set_up)
    first = processes.submit(os.getpid)
    manager: Any = processes._executor_manager_thread
    while not first.done():
        if not manager.is_alive():  # nobody is told; who waits for the processes, or for their end, waits for ever
            for process in processes._processes.values():
                process.kill()
            raise MemoryError("can't start new thread")
        wait([first], timeout=START_POLL_SECONDS)
    return processes


def leave_interrupts_to_main_thread() -> None:
    """Block Ctrl-C in this thread and in the processes that it starts: the main thread ends them all."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})


def _set_up() -> None:
    os.environ.update(dict.fromkeys(ONE_THREAD, "1"))  # read when the libraries load, which they have not yet
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # removes what was unpacked on the way out
    Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A process that was killed cannot tell its children, and these would wait for work for ever."""
    parent = parent_process()
    assert parent is not None
    parent.join()
    for _ in range(SIGNALS):  # the first one ends the work in hand, the next one the wait for more
        signal.pthread_kill(main_thread().ident or 0, signal.SIGTERM)
        time.sleep(1)
    os._exit(1)  # a lock that another process died with may stop the usual way out
