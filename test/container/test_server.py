"""The container's server: a process of its own, real calls, the real model."""

import importlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path

import pytest

from balaitous.container.answers import PROBABILITY_FILES
from balaitous.errors import BalaitousError
from helpers import ROOT
from helpers.commands import run_job
from helpers.waiting import PATIENCE_SECONDS, WAITING, held_reader, kill_readers, pipe_of, wait_until

pytestmark = pytest.mark.slow

END_SECONDS = 5  # between SIGTERM and SIGKILL of the platform, at least

# As the container starts it, on a port that is free here: the platform's may be taken by another test run.
START = """
import sys, process
from balaitous.container import server
server.PORT = int(sys.argv[1])
sys.exit(process.main(["invoke", *sys.argv[2:]]))
"""
WITHOUT_WEIGHTS = "import balaitous; balaitous.Balaitous = lambda: None\n" + START
LOADING_FOR_EVER = """
import balaitous, time
balaitous.Balaitous = lambda: (print("loading", flush=True), time.sleep(1e6))
""" + START  # fmt: skip
# Its networks compute for ever, in long operations of PyTorch.
COMPUTING_FOR_EVER = """
import torch
import balaitous.severity.pipeline as pipeline

def compute(*_):
    print("computing", flush=True)
    while True:
        torch.ones(1000, 1000) @ torch.ones(1000, 1000)

pipeline.scan_features = compute
""" + START  # fmt: skip


@dataclass
class Server:
    """A server in a process of its own, with the folders of its jobs."""

    process: subprocess.Popen
    port: int
    folder: Path

    def call(self, method, path):
        """Status of the answer; None where nothing listens."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_SECONDS)
        try:
            connection.request(method, path)
            return connection.getresponse().status
        except ConnectionRefusedError:
            return None
        finally:
            connection.close()

    def wait_for(self, condition):
        """Wait until a condition holds, as long as the server lives."""
        wait_until(condition, self.process)

    def bring(self, scan, inputs=None):
        """Replace /input by a new job's, as the platform does; the scan in it."""
        shutil.rmtree(self.folder / "input", ignore_errors=True)
        (self.folder / "input/images/ct").mkdir(parents=True)
        if inputs is not None:
            (self.folder / "input/inputs.json").write_text(json.dumps(inputs))
        return Path(shutil.copy(scan, self.folder / "input/images/ct"))

    def empty_output(self):
        for file in self.output.iterdir():
            file.unlink()

    def invoke(self, scan, inputs=None):
        """Status of a job on a scan, with a fresh /input; /output is left as it is."""
        self.bring(scan, inputs)
        return self.call("POST", "/invoke")

    def end(self):
        """Send SIGTERM; the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=PATIENCE_SECONDS)

    @property
    def output(self):
        return self.folder / "output"

    @property
    def answers(self):
        return {file.name: json.loads(file.read_text()) for file in self.output.iterdir()}

    @property
    def log(self):
        return (self.folder / "log").read_text()

    @property
    def errors(self):
        return (self.folder / "errors").read_text()


def start(folder, script):
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    (folder / "output").mkdir()
    with (folder / "log").open("w") as log, (folder / "errors").open("w") as errors:
        process = subprocess.Popen(
            [sys.executable, "-c", script, str(port), folder / "input", folder / "output"],
            cwd=ROOT,
            env=os.environ | {"BALAITOUS_WEIGHTS": "mini", "PYTHONPATH": WAITING},
            stdout=log,
            stderr=errors,
        )
    return Server(process, port, folder)


@pytest.fixture
def started(tmp_path):
    """Starts a server that is gone after the test."""
    servers = []

    def start_one(script):
        servers.append(start(tmp_path, script))
        return servers[-1]

    yield start_one
    for server in servers:
        server.process.kill()
        server.process.wait()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A healthy server with the real model, and what its log held at the first answer."""
    server = start(tmp_path_factory.mktemp("server"), START)
    server.wait_for(lambda: server.call("GET", "/health") is not None)
    server.log_when_it_answered = server.log
    yield server
    server.process.kill()
    server.process.wait()


@pytest.fixture(scope="module")
def scans(short_scans, tmp_path_factory):
    """Two different scans of a few slices, and one that is none."""
    folder = shutil.copytree(short_scans, tmp_path_factory.mktemp("jobs") / "scans")
    (folder / "none.mha").write_text("not an image")
    return folder


@pytest.fixture(scope="module")
def expected(scans, tmp_path_factory):
    """The answers of `exec` to each of the scans: {file: {name: number}}."""
    output = tmp_path_factory.mktemp("expected")
    assert run_job("exec", scans, output).returncode == 5
    return {name: json.loads((output / name).read_text()) for name in PROBABILITY_FILES}


def test_the_port_opens_when_the_weights_are_loaded(server):
    assert "weights: mini" in server.log_when_it_answered
    assert server.call("GET", "/health") == 200


def test_jobs_of_one_server_get_the_digits_of_runs_of_their_own(server, scans, expected):
    for scan in ("a.mha", "b.mha", "a.mha"):
        server.empty_output()
        assert server.invoke(scans / scan) == 201
        answers = server.answers
        (case,) = answers.pop("results.json")["cases"]
        assert case["file"] == scan
        assert answers == {name: numbers[scan] for name, numbers in expected.items()}
    assert expected["probability-covid.json"]["a.mha"] != expected["probability-covid.json"]["b.mha"]
    assert server.log.count("weights: mini") == 1


def test_what_one_job_tells_is_not_known_to_the_next(server, scans):
    told = [
        {"socket": {"slug": "ct-image", "relative_path": "images/ct"}, "image": {"name": "P001.mha"}},
        {"socket": {"slug": "patient-age", "relative_path": "patient-age.json"}, "value": 21},
    ]
    seen = []
    for inputs in (told, None):
        assert server.invoke(scans / "a.mha", inputs) == 201
        (case,) = server.answers["results.json"]["cases"]
        seen.append((case["image_name"], case["age_years"]))
    assert seen == [("P001.mha", 21.0), (None, 62.0)]


def test_a_job_that_fails_leaves_no_number_and_the_server_lives_on(server, scans, expected):
    assert server.invoke(scans / "a.mha") == 201
    assert server.invoke(scans / "none.mha") == 500  # into the same /output
    (case,) = server.answers.pop("results.json")["cases"]
    assert case["status"] == "failed"
    assert list(server.answers) == ["results.json"]
    assert server.errors.splitlines()[-1] == f"ERROR: {case['error']}"

    (server.folder / "input/images/ct/none.mha").unlink()
    assert server.call("POST", "/invoke") == 500
    assert server.errors.splitlines()[-1].startswith("ERROR: expected .mha files in ")
    assert "Traceback" not in server.errors

    assert server.invoke(scans / "b.mha") == 201
    assert server.answers["probability-covid.json"] == expected["probability-covid.json"]["b.mha"]


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="finds the reading process in /proc")
def test_a_scan_that_ends_the_process_that_reads_it_fails_and_the_server_lives_on(server, scans, expected):
    pipe = pipe_of(server.bring(scans / "a.mha"))
    with ThreadPoolExecutor() as pool:
        job = pool.submit(server.call, "POST", "/invoke")
        kill_readers(pipe, 1)
        assert job.result() == 500
    (case,) = server.answers["results.json"]["cases"]
    assert "a.mha: expected to read it, the process that did was ended" in case["error"]
    assert server.errors.splitlines()[-1] == f"ERROR: {case['error']}"

    assert server.invoke(scans / "b.mha") == 201
    assert server.answers["probability-covid.json"] == expected["probability-covid.json"]["b.mha"]


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="finds the reading process in /proc")
def test_a_second_call_while_a_job_runs_is_refused_and_changes_nothing(server, scans, expected):
    pipe = pipe_of(server.bring(scans / "b.mha"))
    server.empty_output()
    with ThreadPoolExecutor() as pool:
        first = pool.submit(server.call, "POST", "/invoke")
        with held_reader(pipe):
            assert server.call("POST", "/invoke") == 409
            assert server.call("GET", "/health") == 200
            assert not first.done()
            pipe.unlink()  # a scan is opened more than once
    assert first.result() == 201
    assert server.answers["probability-covid.json"] == expected["probability-covid.json"]["b.mha"]


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/health/", 404), ("GET", "/invoke", 405)])
def test_other_addresses_are_refused_not_redirected(server, method, path, status):
    assert server.call(method, path) == status


def test_sigterm_ends_an_idle_server(started):
    server = started(WITHOUT_WEIGHTS)
    server.wait_for(lambda: server.call("GET", "/health") == 200)
    assert server.end() == 0
    assert server.errors == ""


def test_sigterm_ends_a_server_that_is_loading_and_not_healthy_yet(started):
    server = started(LOADING_FOR_EVER)
    server.wait_for(lambda: "loading" in server.log)
    assert server.call("GET", "/health") is None
    assert server.end() == 0


def test_sigterm_ends_a_server_while_a_job_runs_and_says_so(started, short_scan):
    from balaitous.container.server import GRACE_SECONDS

    server = started(COMPUTING_FOR_EVER)
    server.wait_for(lambda: server.call("GET", "/health") == 200)
    server.bring(short_scan)
    with ThreadPoolExecutor() as pool:
        lost = pool.submit(server.call, "POST", "/invoke")
        server.wait_for(lambda: "computing" in server.log)
        assert server.end() == 128 + signal.SIGTERM
    assert 2 * GRACE_SECONDS < END_SECONDS
    assert server.errors.splitlines()[-1].startswith("ERROR: the server was told to end before the job was done")
    assert server.answers.keys() == {"results.json"}
    assert lost.exception() is not None or lost.result() >= 500


def test_a_port_that_is_taken_is_named():
    from balaitous.container.server import listen

    with listen(0) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(BalaitousError, match=f"expected port {port} to be free, found: .*in use"):
            listen(port)


def test_an_image_without_the_server_says_how_to_build_one_with_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    monkeypatch.delitem(sys.modules, "balaitous.container.server", raising=False)
    with pytest.raises(BalaitousError, match="--build-arg API_METHOD=invoke"):
        importlib.import_module("balaitous.container.server")
