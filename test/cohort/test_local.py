"""Many scans on this machine: in order, whatever happens to one of them or to a process."""

import threading
from multiprocessing import active_children
from pathlib import Path

import pytest

from balaitous.cohort.items import Item, list_items
from balaitous.cohort.local import predict_items
from balaitous.reading.fingerprint import content_sha256
from helpers.phantoms import write_small_chest
from helpers.rows import SEVERITY, but_seconds
from helpers.waiting import PATIENCE_SECONDS, WAITING, kill_readers, pipe_of, wait_until


def test_one_scan_that_fails_does_not_stop_the_others(rows, folder):
    assert [row["path"] for row in rows] == [str(folder / f"{number}.mha") for number in range(4)]
    assert [row["error_kind"] for row in rows] == [None, None, "InputError", None]
    assert rows[0]["input_sha256"] == content_sha256(folder / "0.mha")


@pytest.mark.slow
def test_two_workers_give_the_rows_of_one_in_the_same_order(model, folder, rows):
    assert but_seconds(predict_items(model, list_items([folder], SEVERITY), workers=2)) == but_seconds(rows)
    wait_until(lambda: not active_children())


@pytest.mark.parametrize("workers", [None, 1, 2])
def test_scans_are_not_begun_far_ahead_of_the_rows_that_are_taken(workers, model, folder):
    begun = []
    scans = (begun.append(number) or Item(folder / "gone.mha") for number in range(1000))
    rows = predict_items(model, scans, workers=workers)
    assert begun == []
    for taken in range(1, 4):
        assert next(rows)["status"] == "failed"
        assert len(begun) <= taken + 2 * (workers or 0)
    rows.close()
    wait_until(lambda: not active_children())


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc, to see which process reads a file")
def test_a_process_that_dies_fails_only_the_scan_that_it_died_of(model, folder, rows, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", WAITING)
    deadly = write_small_chest(tmp_path / "deadly.mha", 4)
    # whoever reads the scan waits for us, and is killed
    killer = threading.Thread(target=kill_readers, args=(pipe_of(deadly), 1), daemon=True)
    killer.start()
    scans = [Item(folder / "0.mha"), Item(deadly), Item(folder / "1.mha"), Item(folder / "3.mha")]
    found = list(predict_items(model, scans, workers=2))
    killer.join(PATIENCE_SECONDS)
    assert not killer.is_alive()
    assert [row["status"] for row in found] == ["ok", "failed", "ok", "ok"]
    assert found[1]["error_kind"] == "InputError"
    assert "deadly.mha: expected to read it, the process that did was ended" in found[1]["error"]
    assert but_seconds(found[:1] + found[2:]) == but_seconds([rows[0], rows[1], rows[3]])
