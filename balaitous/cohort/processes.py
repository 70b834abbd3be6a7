"""Processes that read and prepare scans, beside this one, which runs the networks. They never load PyTorch."""

from __future__ import annotations

import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from concurrent.futures import Executor, Future
from concurrent.futures.process import BrokenProcessPool
from importlib import import_module
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection
from threading import Thread, main_thread
from typing import Any, TypeVar

Result = TypeVar("Result")

SIGNALS = 5
END_SECONDS = 2
ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS")


class ReadingProcess(Executor):
    """One process, for who takes one scan after the other from one thread; a new one when a scan has ended it.

    It has one thread, so that all cores are left to the networks, and starts afresh: a forked one would share the locks
    of PyTorch's threads, but not the threads. Unlike a pool's it needs no semaphores: some systems have none, and who
    ends by `os._exit` would leave them behind.

    Parameters
    ----------
    preload : module that the process imports while this one loads its networks

    Raises
    ------
    OSError, MemoryError : it cannot be started
    """

    def __init__(self, preload: str) -> None:
        self.preload, self.ended = preload, False
        self._start()

    def _start(self) -> None:
        context = get_context("spawn")
        self.pipe, other_end = context.Pipe()
        self.process = context.Process(target=_take_calls, args=(other_end, self.preload), daemon=True)
        self.process.start()
        other_end.close()  # the process has the only one: when it dies, the pipe ends

    def submit(self, function: Callable[..., Result], /, *arguments: Any, **keywords: Any) -> Future[Result]:
        """Make a call in the process, and wait for it.

        Raises
        ------
        BrokenProcessPool : the process died of it
        """
        if self.ended:
            raise BrokenProcessPool("the process was ended")
        if not self.process.is_alive():
            self._start()
        future: Future[Result] = Future()
        try:
            self.pipe.send((function, arguments, keywords))
            result, error = self.pipe.recv()
        except (EOFError, ConnectionError):
            self.shutdown()
            raise BrokenProcessPool("the process died of the call") from None
        except BaseException:  # half an answer may be left in the pipe
            self.process.terminate()  # removes what was unpacked
            self.process.join(END_SECONDS)
            self.shutdown()
            raise
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the process, at once: no call is under way. The next one starts another process."""
        self.process.kill()
        self.process.join()
        self.pipe.close()

    def end(self) -> None:
        """End the process for good, from any thread: a call in hand is cut short, and what it unpacked is removed."""
        self.ended = True
        self.process.terminate()


def _take_calls(pipe: Connection, preload: str) -> None:
    """Answer one call after the other, until the other side is gone."""
    _leave_cores_and_interrupts_to_parent()
    import_module(preload)
    _end_when_told()  # from now on: an exit in the middle of an import would be told as its failure
    try:
        while True:
            _take_call(pipe)
    except (EOFError, ConnectionError):
        return


def _take_call(pipe: Connection) -> None:
    """Answer a call with its result or its error, and keep nothing of it: a scan is large."""
    function, arguments, keywords = pipe.recv()
    try:
        pipe.send((function(*arguments, **keywords), None))
    except Exception as error:
        error.add_note(traceback.format_exc())  # the other side sees its own frames only
        pipe.send((None, error))


def leave_interrupts_to_main_thread() -> None:
    """Block Ctrl-C in this thread and in the processes that it starts: the main thread ends them all."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})


def _leave_cores_and_interrupts_to_parent() -> None:
    os.environ.update(dict.fromkeys(ONE_THREAD, "1"))  # read when the libraries load, which they have not yet
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _end_when_told() -> None:
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
