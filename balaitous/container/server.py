"""Grand Challenge's ``invoke`` mode: weights are loaded once, then jobs are served over HTTP, one after the other.

=================  ==================================================================================================
``GET /health``    200; the port opens when the weights are loaded
``POST /invoke``   runs the job that lies in ``/input`` now: 201 with its answers in ``/output``, 500 if it failed (the
                   log says why), 409 while another job runs: it has ``/input`` and ``/output`` to itself
=================  ==================================================================================================
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from pathlib import Path
from types import FrameType

from balaitous.cohort.processes import ReadingProcess
from balaitous.container.grand_challenge import MODEL, load_model, run_job
from balaitous.container.streams import report
from balaitous.errors import BalaitousError, needs_extra

try:
    import uvicorn
    from fastapi import FastAPI, Response
except ImportError as error:
    raise BalaitousError(
        needs_extra("API_METHOD=invoke", f"FastAPI and uvicorn ({error})", "invoke")
        + ", or build the image with --build-arg API_METHOD=invoke"
    ) from None

log = logging.getLogger(__name__)

PORT = 4743  # the platform's
GRACE_SECONDS = 2  # for a job that is nearly done when the server is told to end


def serve(input_dir: Path, output_dir: Path) -> None:
    """Load the weights, and serve until SIGTERM or SIGINT.

    Parameters
    ----------
    input_dir, output_dir : of every job, as `run_job` takes them

    Raises
    ------
    WeightsError : the weights are missing, or not what they claim to be
    BalaitousError : the port is taken
    """
    jobs = JobServer(input_dir, output_dir)
    # From the first moment on: as the first process of a container, one without a handler does not hear SIGTERM.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, jobs.end)
    jobs.load()
    # uvicorn waits for a running job as long as the grace lasts, and then raises the signal again, for `JobServer.end`.
    config = uvicorn.Config(
        make_app(jobs), log_config=None, access_log=False, timeout_graceful_shutdown=GRACE_SECONDS, lifespan="off"
    )
    with listen(PORT) as listener:
        log.info("serving on port %d", PORT)
        uvicorn.Server(config).run(sockets=[listener])


class JobServer:
    """One model, and one job at a time.

    All jobs run in one thread, so that the numerical libraries keep one pool of threads, and not one for every job.
    Scans are read in a process beside it: a file that ends the reader, in spite of all checks, ends its job only.

    Parameters
    ----------
    input_dir, output_dir : as `run_job` takes them; what is in them is new for each job
    """

    def __init__(self, input_dir: Path, output_dir: Path) -> None:
        self.input_dir = input_dir
        self.output_dir = output_dir
        self.thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="jobs")
        self.reader: Executor | None = None
        self.job: Future[int] | None = None

    def load(self) -> None:
        """Load the weights, and start the process that reads.

        Raises
        ------
        WeightsError : they are missing, or not what they claim to be
        OSError, MemoryError : the process cannot be started
        """
        self.reader = ReadingProcess(MODEL.preparing)
        self.model = self.thread.submit(load_model).result()

    @property
    def busy(self) -> bool:
        """Whether a job is running."""
        return self.job is not None and not self.job.done()

    async def health(self) -> Response:
        """Answer that the weights are loaded."""
        return Response(status_code=200)

    async def invoke(self) -> Response:
        """Run a job, unless one is running."""
        if self.busy:
            log.info("a call while a job was running is refused (409)")
            return Response("A job is running. Call again when it is done.\n", status_code=409)
        self.job = self.thread.submit(self.run)
        exit_code = await asyncio.wrap_future(self.job)
        if exit_code:
            return Response(f"The job failed (exit code {exit_code}): see ERROR in the log.\n", status_code=500)
        return Response(status_code=201)

    def run(self) -> int:
        """Run the job that lies in the input folder, and return its exit code."""
        try:
            return run_job(lambda: self.model, self.input_dir, self.output_dir, self.reader)
        except Exception as error:
            return report(error)

    def end(self, signal_number: int, _frame: FrameType | None) -> None:
        """End the process at once, also while a job runs: nothing else can interrupt it."""
        if self.busy:
            report(BalaitousError("the server was told to end before the job was done: it has no answer, run it again"))
            os._exit(128 + signal_number)
        os._exit(0)


def make_app(jobs: JobServer) -> FastAPI:
    """The two addresses, and nothing else: no redirect, which the platform takes for a failure, no documentation."""
    app = FastAPI(redirect_slashes=False, openapi_url=None)
    app.add_api_route("/health", jobs.health, methods=["GET"])
    app.add_api_route("/invoke", jobs.invoke, methods=["POST"])
    return app


def listen(port: int) -> socket.socket:
    """A socket that listens on a port of every network.

    Raises
    ------
    BalaitousError : the port is taken
    """
    try:
        return socket.create_server(("", port))
    except OSError as error:
        raise BalaitousError(f"expected port {port} to be free, found: {error}. End what listens there.") from None
