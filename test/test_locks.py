"""One run at a time, with real processes: whoever is killed holds nothing."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading

import pytest

from balaitous import locks
from balaitous.locks import Lock
from helpers.waiting import PATIENCE_SECONDS, wait_until

HOLD = """
import os, sys, time
from pathlib import Path
from balaitous.locks import Lock
lock = Lock(Path(sys.argv[1]))
if os.fork():
    print(os.getpid(), flush=True)
time.sleep(600)
"""


@pytest.fixture
def held(tmp_path):
    """A table that another process holds, whose forked child outlives it: the process, and its child's group."""
    path = tmp_path / "table.csv"
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, path], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout.readline()
    yield path, process
    os.killpg(process.pid, 9)
    process.communicate()


def test_a_second_run_is_refused_and_a_killed_one_holds_nothing_though_its_child_lives(held):
    path, process = held
    with pytest.raises(ValueError, match=r"table\.csv: expected to be the only run that writes there, found another"):
        Lock(path)
    process.kill()
    process.wait(PATIENCE_SECONDS)
    os.killpg(process.pid, 0)  # the child is there
    with Lock(path):
        pass
    assert os.listdir(path.parent) == []


def test_a_run_that_waits_comes_next(tmp_path, caplog):
    first, got = Lock(tmp_path), threading.Event()

    def second():
        with Lock(tmp_path, wait=True):
            got.set()

    thread = threading.Thread(target=second)
    thread.start()
    wait_until(lambda: "another run is writing there; waiting" in caplog.text)
    assert not got.is_set()
    first.release()
    thread.join(PATIENCE_SECONDS)
    assert got.is_set()
    assert os.listdir(tmp_path) == []


def test_a_link_and_what_it_points_to_are_one(tmp_path):
    (tmp_path / "link.csv").symlink_to(tmp_path / "table.csv")
    with Lock(tmp_path / "link.csv"), pytest.raises(ValueError, match="found another one"):
        Lock(tmp_path / "table.csv")


def test_a_lock_that_nobody_holds_on_to_is_gone_and_a_file_of_that_name_stays(tmp_path):
    (tmp_path / ".mine.csv.lock").write_text("mine")
    lock = Lock(tmp_path / "mine.csv")
    del lock
    with Lock(tmp_path / "mine.csv"):
        pass
    assert (tmp_path / ".mine.csv.lock").read_text() == "mine"


def test_where_there_are_no_locks_a_word_says_so(tmp_path, caplog, monkeypatch):
    def none(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(locks.fcntl, "flock", none)  # as a network file system without them answers
    with Lock(tmp_path / "table.csv"), Lock(tmp_path / "table.csv"):
        pass
    assert "table.csv: no locks here (No locks available): see to it that no other run writes there" in caplog.text
    monkeypatch.setattr(locks, "fcntl", None)  # as on Windows
    with Lock(tmp_path / "table.csv"):
        assert "this system knows no locks" in caplog.text


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(OSError, match=r"No such file.*gone/table\.csv'"):
        Lock(tmp_path / "gone" / "table.csv")
