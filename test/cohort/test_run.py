"""Many scans: in order, one by one on disk, whatever happens to one of them, to a process, or to the run itself."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from multiprocessing import active_children
from pathlib import Path

import pytest

from balaitous.cohort.items import Scan, list_scans
from balaitous.cohort.local import predict_scans
from balaitous.cohort.run import Run
from balaitous.cohort.table import ScanTable, read_table
from balaitous.ct.volume import write_mha
from balaitous.reading.fingerprint import content_sha256
from helpers.phantoms import small_chest
from helpers.waiting import WAITING, pipe_of

MADE_BY = ("bundle_sha256", "precision", "version")
PATIENCE_SECONDS = 60


def small_scan(path: Path, seed: int) -> Path:
    write_mha(path, small_chest(seed))
    return path


def but_seconds(rows):
    return [{name: value for name, value in row.items() if not name.startswith("seconds")} for row in rows]


def wait_until(condition):
    """Whether the condition comes true."""
    until = time.monotonic() + PATIENCE_SECONDS
    while not (true := condition()) and time.monotonic() < until:
        time.sleep(0.05)
    return true


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Four scans; the third is none."""
    folder = tmp_path_factory.mktemp("cohort") / "scans"
    folder.mkdir()
    for seed in (0, 1, 3):
        small_scan(folder / f"{seed}.mha", seed)
    (folder / "2.mha").write_text("no image")
    return folder


@pytest.fixture(scope="module")
def rows(model, folder):
    """What one worker says of the four scans."""
    return list(predict_scans(model, list_scans([folder])))


# --- one after another, and side by side


def test_one_scan_that_fails_does_not_stop_the_others(rows, folder):
    assert [row["path"] for row in rows] == [str(folder / f"{number}.mha") for number in range(4)]
    assert [row["error_kind"] for row in rows] == [None, None, "InputError", None]
    assert rows[0]["input_sha256"] == content_sha256(folder / "0.mha")


def test_two_workers_give_the_rows_of_one_in_the_same_order(model, folder, rows):
    assert but_seconds(predict_scans(model, list_scans([folder]), workers=2)) == but_seconds(rows)
    assert wait_until(lambda: not active_children())


@pytest.mark.parametrize("workers", [1, 2])
def test_scans_are_not_begun_far_ahead_of_the_rows_that_are_taken(workers, model, folder):
    begun = []
    scans = (begun.append(number) or Scan(folder / "gone.mha") for number in range(1000))
    rows = predict_scans(model, scans, workers=workers)
    assert begun == []
    for taken in range(1, 4):
        assert next(rows)["status"] == "failed"
        assert len(begun) <= taken + 2 * workers
    rows.close()
    assert wait_until(lambda: not active_children())


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc, to see which process reads a file")
def test_a_process_that_dies_fails_only_the_scan_that_it_died_of(model, folder, rows, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", WAITING)
    deadly = small_scan(tmp_path / "deadly.mha", 4)
    pipe = pipe_of(deadly)  # whoever reads the scan waits here for us, and is killed
    scans = [Scan(folder / "0.mha"), Scan(deadly), Scan(folder / "1.mha"), Scan(folder / "3.mha")]
    killed = []

    def reads(process, path):
        fds = Path(f"/proc/{process.pid}/fd")
        return any(os.path.realpath(fd) == str(path) for fd in fds.iterdir())

    def kill_readers():
        while len(killed) < 2:
            with open(pipe, "wb"):  # waits for a reader
                reader = wait_until(lambda: next((each for each in active_children() if reads(each, pipe)), None))
                killed.append(reader)
                reader.kill()
                reader.join()

    killer = threading.Thread(target=kill_readers, daemon=True)
    killer.start()
    found = list(predict_scans(model, scans, workers=2))
    killer.join(PATIENCE_SECONDS)
    assert len(killed) == 2
    assert [row["status"] for row in found] == ["ok", "failed", "ok", "ok"]
    assert found[1]["error_kind"] == "InputError"
    assert "deadly.mha: expected to read it, the process that did was ended" in found[1]["error"]
    assert but_seconds(found[:1] + found[2:]) == but_seconds([rows[0], rows[1], rows[3]])


# --- what is done already


@pytest.fixture
def done(rows, folder, tmp_path):
    """A table of the four scans, and what made it; three of them are done."""
    table = ScanTable(tmp_path / "table.csv")
    run = Run(list_scans([folder]), table)
    for row in rows:
        run.add(row)
    run.finish()
    return table.path, {key: rows[0][key] for key in MADE_BY}


def resume(done, scans, series=None):
    path, made_by = done
    return Run(scans, ScanTable(path, resume=True), made_by, series)


def names(scans):
    return [Path(scan.path).name for scan in scans]


def test_scans_that_are_done_are_skipped_and_failed_ones_tried_again(done, folder, rows):
    run = resume(done, list_scans([folder]))
    assert names(run.todo) == ["2.mha"]
    assert (run.skipped, run.others) == (3, [])
    run.add(rows[2])
    assert but_seconds(run.finish()) == but_seconds(rows) == but_seconds(read_table(done[0]))
    assert run.summary()["failed"]["InputError"] == {"count": 1, "example": rows[2]["error"]}


def test_a_folder_that_was_moved_is_still_done_and_its_rows_get_the_new_paths(done, folder, rows, tmp_path):
    moved = shutil.copytree(folder, tmp_path / "moved")
    (moved / "0.mha").rename(moved / "renamed.mha")
    run = resume(done, list_scans([moved]))
    assert names(run.todo) == ["2.mha"]
    finished = run.finish()
    assert [(row["PatientID"], Path(row["path"])) for row in finished] == [
        (name, moved / f"{name}.mha") for name in ("1", "3", "renamed")
    ]
    assert finished[-1]["probability_covid"] == rows[0]["probability_covid"]


def test_a_scan_whose_content_changed_is_predicted_again_and_its_old_row_replaced(done, folder, rows, tmp_path):
    changed = shutil.copytree(folder, tmp_path / "scans")
    run = resume(done, list_scans([changed]))
    run.finish()
    shutil.copy(folder / "1.mha", changed / "0.mha")
    run = resume(done, list_scans([changed]))
    assert names(run.todo) == ["0.mha", "2.mha"]  # the row of the same content is 1.mha's own
    assert [row["PatientID"] for row in run.others] == ["0"]  # kept until there is another
    run.add(rows[1] | {"PatientID": "0", "path": str(changed / "0.mha")})
    assert [row["PatientID"] for row in run.finish()] == ["0", "1", "3"]
    assert run.others == []


def test_a_row_stands_for_one_scan_only(done, folder, tmp_path):
    copies = [Path(shutil.copy(folder / "0.mha", tmp_path / f"copy{number}.mha")) for number in (1, 2)]
    run = resume(done, [Scan(copies[0]), Scan(folder / "0.mha"), Scan(copies[1])])
    assert names(run.todo) == ["copy1.mha", "copy2.mha"]
    run = resume(done, [Scan(copies[0]), Scan(copies[1])])
    assert names(run.todo) == ["copy2.mha"]


def test_rows_of_other_scans_stay_at_the_end_of_the_table(done, folder):
    run = resume(done, [Scan(folder / "3.mha")])
    run.finish()
    assert [row["PatientID"] for row in read_table(done[0])] == ["3", "0", "1"]
    assert [row["PatientID"] for row in run.others] == ["0", "1"]


def test_a_scan_with_another_age_or_sex_is_not_done(done, folder, rows):
    path = folder / "0.mha"
    age = rows[0]["age_years"]
    assert rows[0]["age_source"] == "header"
    for scan in (Scan(path, age=age), Scan(path, sex="M")):  # said on purpose, which the header may not agree with
        assert names(resume(done, [scan]).todo) == ["0.mha"]
    row = rows[0] | {"age_years": 30.0, "age_source": "argument"}
    table = ScanTable(done[0], resume=True)
    table.finish([row])
    assert resume(done, [Scan(path, age=30)]).todo == []
    table.finish([row])
    assert names(resume(done, [Scan(path, age=31)]).todo) == ["0.mha"]
    table.finish([row])
    assert names(resume(done, [Scan(path)]).todo) == ["0.mha"]


def test_a_side_car_that_came_since_makes_a_scan_undone(done, folder, rows, tmp_path):
    path = Path(shutil.copy(folder / "0.mha", tmp_path))
    row = rows[0] | {"age_years": 65.0, "age_source": "default"}
    for sidecar, todo in ((None, []), ({"age": 40}, ["0.mha"]), ({"sex": "F"}, []), ({"age": -1}, ["0.mha"])):
        ScanTable(done[0], resume=True).finish([row])
        if sidecar:
            (tmp_path / "0.json").write_text(json.dumps(sidecar))
        assert names(resume(done, [Scan(path)]).todo) == todo, sidecar


def test_another_series_of_a_folder_is_not_done(done, folder, rows):
    ScanTable(done[0], resume=True).finish([rows[0] | {"series_uid": "1.2.3"}])
    for series, todo in (("1.2.3", []), (None, []), ("1.2.4", ["0.mha"])):
        assert names(resume(done, [Scan(folder / "0.mha")], series).todo) == todo


def test_an_address_is_known_by_its_name_without_fetching_it(done, rows):
    url = "s3://bucket/0.mha"
    ScanTable(done[0], resume=True).finish([rows[0] | {"path": url}])
    assert names(resume(done, [Scan(url), Scan("s3://bucket/1.mha")]).todo) == ["1.mha"]


@pytest.mark.parametrize("key", MADE_BY)
def test_rows_made_by_something_else_are_refused(key, done, folder):
    before = done[0].read_bytes()
    with pytest.raises(ValueError, match=f"made with {key} other as this run has, found .*--precision"):
        resume((done[0], done[1] | {key: "other"}), list_scans([folder]))
    assert done[0].read_bytes() == before


# --- killed and interrupted


def command(*arguments, **options):
    environment = os.environ | {"BALAITOUS_WEIGHTS": "mini", "OMP_WAIT_POLICY": "passive", "PYTHONPATH": WAITING}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    program = [sys.executable, "-m", "balaitous", "predict", *map(str, arguments)]
    # a shell that started the tests in the background has told them, and so their children, to ignore Ctrl-C
    options["preexec_fn"] = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)
    return subprocess.Popen(program, env=environment, start_new_session=True, **pipes, **options)


def group_is_gone(process):
    try:
        os.killpg(process.pid, 0)
    except ProcessLookupError:
        return True
    return False


def data_rows(path):
    return max(path.read_bytes().count(b"\n") - 1, 0) if path.exists() else 0


@pytest.fixture
def stuck(folder, rows):
    """The pipe at which the scan waits that is none: it never comes to an end."""
    pipe = pipe_of(folder / "2.mha")
    yield pipe
    pipe.unlink(missing_ok=True)


def test_a_killed_cohort_resumes_to_the_table_of_an_uninterrupted_one(stuck, folder, rows, tmp_path):
    table = tmp_path / "table.csv"
    process = command(folder, "--out", table, "--workers", 2)
    assert wait_until(lambda: data_rows(table) == 2), process.communicate(timeout=1)
    process.kill()
    process.communicate()
    assert [row["PatientID"] for row in read_table(table)] == ["0", "1"]
    assert wait_until(lambda: group_is_gone(process))

    stuck.unlink()
    resumed = command(folder, "--out", table, "--resume", "--workers", 1)
    _, err = resumed.communicate()
    assert resumed.returncode == 5
    assert "4 scans: 1 done, 2 done before, 1 failed;" in err
    assert but_seconds(read_table(table)) == but_seconds(rows)


def test_ctrl_c_ends_at_once_with_the_table_written_and_nothing_left_behind(stuck, folder, tmp_path):
    table, growing = tmp_path / "table.parquet", tmp_path / ".table.parquet.rows.csv"
    process = command(folder, "--out", table, "--workers", 2)
    assert wait_until(lambda: data_rows(growing) == 2), process.communicate(timeout=1)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to all of them
    _, err = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 130
    assert err.strip().splitlines()[-1] == (
        f"ERROR: interrupted after 2 of 4 scans; their rows are in {table}, --resume goes on from there."
    )
    assert "Traceback" not in err
    assert wait_until(lambda: group_is_gone(process))
    assert [row["PatientID"] for row in read_table(table)] == ["0", "1"]
    assert not growing.exists()
