"""Resuming: what of a cohort is done already."""

import json
import shutil
from pathlib import Path

import pytest

from balaitous.cohort.growing import ItemTable
from balaitous.cohort.items import Item, list_items
from balaitous.cohort.run import Run, same_request_of
from balaitous.cohort.table import read_table
from helpers.rows import COLUMNS, SEVERITY, but_seconds

MADE_BY = ("bundle_sha256", "precision", "version")


@pytest.fixture
def done(rows, folder, tmp_path):
    """A table of the four scans, and what made it; three of them are done."""
    table = ItemTable(tmp_path / "table.csv", COLUMNS)
    run = Run(list_items([folder], SEVERITY), table)
    for row in rows:
        run.add(row)
    run.finish()
    return table.path, {key: rows[0][key] for key in MADE_BY}


def resume(done, scans):
    path, made_by = done
    return Run(scans, ItemTable(path, COLUMNS, resume=True), made_by, same_request_of(SEVERITY))


def names(scans):
    return [Path(scan.path).name for scan in scans]


def test_scans_that_are_done_are_skipped_and_failed_ones_tried_again(done, folder, rows):
    run = resume(done, list_items([folder], SEVERITY))
    assert names(run.todo) == ["2.mha"]
    assert (run.skipped, run.others) == (3, [])
    run.add(rows[2])
    assert but_seconds(run.finish()) == but_seconds(rows) == but_seconds(read_table(done[0], COLUMNS))
    assert run.summary()["failed"]["InputError"] == {"count": 1, "example": rows[2]["error"]}


def test_a_folder_that_was_moved_is_still_done_and_its_rows_get_the_new_paths(done, folder, rows, tmp_path):
    moved = shutil.copytree(folder, tmp_path / "moved")
    (moved / "0.mha").rename(moved / "renamed.mha")
    run = resume(done, list_items([moved], SEVERITY))
    assert names(run.todo) == ["2.mha"]
    finished = run.finish()
    assert [(row["PatientID"], Path(row["path"])) for row in finished] == [
        (name, moved / f"{name}.mha") for name in ("1", "3", "renamed")
    ]
    assert finished[-1]["probability_covid"] == rows[0]["probability_covid"]


def test_a_scan_whose_content_changed_is_predicted_again_and_its_old_row_replaced(done, folder, rows, tmp_path):
    changed = shutil.copytree(folder, tmp_path / "scans")
    run = resume(done, list_items([changed], SEVERITY))
    run.finish()
    shutil.copy(folder / "1.mha", changed / "0.mha")
    run = resume(done, list_items([changed], SEVERITY))
    assert names(run.todo) == ["0.mha", "2.mha"]  # the row of the same content is 1.mha's own
    assert [row["PatientID"] for row in run.others] == ["0"]  # kept until there is another
    run.add(rows[1] | {"PatientID": "0", "path": str(changed / "0.mha")})
    assert [row["PatientID"] for row in run.finish()] == ["0", "1", "3"]
    assert run.others == []


def test_a_row_stands_for_one_scan_only(done, folder, tmp_path):
    copies = [Path(shutil.copy(folder / "0.mha", tmp_path / f"copy{number}.mha")) for number in (1, 2)]
    run = resume(done, [Item(copies[0]), Item(folder / "0.mha"), Item(copies[1])])
    assert names(run.todo) == ["copy1.mha", "copy2.mha"]
    run.finish()
    run = resume(done, [Item(copies[0]), Item(copies[1])])
    assert names(run.todo) == ["copy2.mha"]


def test_rows_of_other_scans_stay_at_the_end_of_the_table(done, folder):
    run = resume(done, [Item(folder / "3.mha")])
    run.finish()
    assert [row["PatientID"] for row in read_table(done[0], COLUMNS)] == ["3", "0", "1"]
    assert [row["PatientID"] for row in run.others] == ["0", "1"]


def test_a_scan_with_another_age_or_sex_is_not_done(done, folder, rows):
    path = folder / "0.mha"
    age = rows[0]["age_years"]
    assert rows[0]["age_source"] == "header"
    for scan in (
        Item(path, {"age": age}),
        Item(path, {"sex": "M"}),
    ):  # said on purpose, which the header may not agree with
        assert names(resume(done, [scan]).todo) == ["0.mha"]
    row = rows[0] | {"age_years": 30.0, "age_source": "argument"}
    table = ItemTable(done[0], COLUMNS, resume=True)
    table.finish([row])
    assert resume(done, [Item(path, {"age": 30})]).todo == []
    table.finish([row])
    assert names(resume(done, [Item(path, {"age": 31})]).todo) == ["0.mha"]
    table.finish([row])
    assert names(resume(done, [Item(path)]).todo) == ["0.mha"]


def test_a_side_car_that_came_since_makes_a_scan_undone(done, folder, rows, tmp_path):
    path = Path(shutil.copy(folder / "0.mha", tmp_path))
    row = rows[0] | {"age_years": 65.0, "age_source": "default"}
    for sidecar, todo in ((None, []), ({"age": 40}, ["0.mha"]), ({"sex": "F"}, []), ({"age": -1}, ["0.mha"])):
        ItemTable(done[0], COLUMNS, resume=True).finish([row])
        if sidecar:
            (tmp_path / "0.json").write_text(json.dumps(sidecar))
        assert names(resume(done, [Item(path)]).todo) == todo, sidecar


def test_another_series_of_a_folder_is_not_done(done, folder, rows):
    ItemTable(done[0], COLUMNS, resume=True).finish([rows[0] | {"series_uid": "1.2.3"}])
    for series, todo in (("1.2.3", []), (None, []), ("1.2.4", ["0.mha"])):
        assert names(resume(done, [Item(folder / "0.mha", {"series": series})]).todo) == todo


def test_an_address_is_known_by_its_name_without_fetching_it(done, rows):
    url = "s3://bucket/0.mha"
    ItemTable(done[0], COLUMNS, resume=True).finish([rows[0] | {"path": url}])
    assert names(resume(done, [Item(url), Item("s3://bucket/1.mha")]).todo) == ["1.mha"]


@pytest.mark.parametrize("key", MADE_BY)
def test_rows_made_by_something_else_are_refused(key, done, folder):
    before = done[0].read_bytes()
    with pytest.raises(ValueError, match=f"made with {key} other as this run has, found .*--precision"):
        resume((done[0], done[1] | {key: "other"}), list_items([folder], SEVERITY))
    assert done[0].read_bytes() == before
