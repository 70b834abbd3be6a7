"""A table that grows: what a kill leaves of it, what counts as done, and what is never overwritten."""

import json
import math
import os
from pathlib import Path

import pandas as pd
import pytest

from balaitous.cohort.growing import ItemTable
from balaitous.cohort.items import Item
from balaitous.cohort.table import read_table, row_of, write_table
from balaitous.errors import InputError
from helpers import PHANTOM
from helpers.rows import COLUMNS, SEVERITY

ENDINGS = ("csv", "parquet", "json")


@pytest.fixture
def rows(short_prediction):
    """A predicted scan and a failed one."""
    return [
        row_of(Item(PHANTOM), short_prediction, SEVERITY),
        row_of(Item(Path("gone.mha")), InputError("no such file"), SEVERITY),
    ]


def test_a_row_is_on_disk_as_soon_as_it_is_appended_and_a_cut_anywhere_loses_at_most_the_last(rows, tmp_path):
    path = tmp_path / "table.csv"
    table = ItemTable(path, COLUMNS)
    table.begin()
    header = path.stat().st_size
    for number, row in enumerate([rows[0], rows[1], rows[0] | {"PatientID": "último, 3"}], start=1):
        table.append(row)
        assert len(read_table(path, COLUMNS)) == number
    whole, complete = path.read_bytes(), read_table(path, COLUMNS)
    for length in range(header, len(whole)):
        path.write_bytes(whole[:length])
        assert read_table(path, COLUMNS) == complete[: whole[:length].count(b"\n") - 1]


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_run_that_was_killed_leaves_its_rows_to_the_next(ending, rows, tmp_path):
    path = tmp_path / f"table.{ending}"
    killed = ItemTable(path, COLUMNS)
    killed.begin()
    for row in rows:
        killed.append(row)
    killed.lock.release()
    with pytest.raises(ValueError, match=r"1 predicted scans. Add --resume .* or remove it"):
        ItemTable(path, COLUMNS)
    resumed = ItemTable(path, COLUMNS, resume=True)
    assert resumed.done == rows[:1]  # the failed one is to be tried again
    resumed.begin(resumed.done)
    resumed.append(rows[1])
    resumed.finish(rows[::-1])
    assert os.listdir(tmp_path) == [path.name]
    assert read_table(path, COLUMNS) == rows[::-1]
    assert ItemTable(path, COLUMNS, resume=True).done == rows[:1]


def test_a_table_without_predicted_scans_may_be_overwritten(rows, tmp_path):
    path = tmp_path / "table.csv"
    for content in ([], rows[1:]):
        write_table(content, path, COLUMNS)
        assert ItemTable(path, COLUMNS).done == []
    path.write_bytes(b"")  # as mktemp makes it
    assert ItemTable(path, COLUMNS).done == []


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_file_that_is_no_such_table_is_left_alone(ending, rows, tmp_path):
    path = tmp_path / f"table.{ending}"
    path.write_text("PatientID,probCOVID,probSevere\na,1,0\n")
    with pytest.raises(ValueError, match=f"table.{ending} is there already: expected a table of this version"):
        ItemTable(path, COLUMNS, resume=True)
    write_table([{key: value for key, value in rows[0].items() if key != "input_sha256"}], path, COLUMNS)
    if ending == "parquet":
        pd.DataFrame([rows[0]]).drop(columns="input_sha256").to_parquet(path)
    with pytest.raises(ValueError, match="Choose another name, or remove it"):
        ItemTable(path, COLUMNS)


@pytest.mark.parametrize("content", ["{}", '""', "null", "0", '[["PatientID"]]', "[1]", '{"age": 65}', "[" * 100_000])
def test_json_that_is_no_list_of_rows_is_left_alone(content, tmp_path):
    path = tmp_path / "table.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"table\.json is there already: expected a table of this version"):
        ItemTable(path, COLUMNS)
    assert path.read_text() == content


def test_what_is_no_file_is_refused(tmp_path):
    (tmp_path / "folder.csv").mkdir()
    os.mkfifo(tmp_path / "pipe.csv")
    for name in ("folder.csv", "pipe.csv"):
        with pytest.raises(ValueError, match=rf"--out must be a file\. Got .*{name}"):
            ItemTable(tmp_path / name, COLUMNS)


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_table_is_one_run_s_until_it_is_finished(ending, rows, tmp_path):
    path = tmp_path / f"table.{ending}"
    first = ItemTable(path, COLUMNS)
    first.begin()
    first.append(rows[0])
    for resume in (False, True):
        with pytest.raises(ValueError, match="only run that writes there"):
            ItemTable(path, COLUMNS, resume)
    first.finish(rows)
    assert ItemTable(path, COLUMNS, resume=True).done == rows[:1]


def test_a_table_that_is_refused_is_not_held(rows, tmp_path):
    write_table(rows, tmp_path / "table.csv", COLUMNS)
    with pytest.raises(ValueError, match="Add --resume") as kept:
        ItemTable(tmp_path / "table.csv", COLUMNS)
    assert ItemTable(tmp_path / "table.csv", COLUMNS, resume=True).done
    assert kept.traceback


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_resumed_table_keeps_its_mode_and_a_linked_one_its_place(ending, rows, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    target, link = tmp_path / f"elsewhere/t.{ending}", tmp_path / f"table.{ending}"
    write_table(rows, target, COLUMNS)
    target.chmod(0o600)
    link.symlink_to(target)
    table = ItemTable(link, COLUMNS, resume=True)
    table.begin(table.done)
    assert table.growing.stat().st_mode & 0o777 == 0o600
    table.append(rows[1])
    table.finish(rows)
    assert link.is_symlink()
    assert (read_table(target, COLUMNS), target.stat().st_mode & 0o777) == (rows, 0o600)
    assert os.listdir(target.parent) == [target.name]


WRONG = {
    "too large": {"probability_covid": 7.5},
    "negative": {"probability_severe": -0.1},
    "of one view": {"probability_lung_covid": 7.5},
    "not a number": {"probability_covid": math.nan},
    "infinite": {"probability_covid": math.inf},
    "missing": {"probability_severe": None},
    "of unknown content": {"input_sha256": None},
    "without a name": {"PatientID": None},
    "spoilt checks": {"quality_values": "{"},
}


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("wrong", WRONG.values(), ids=list(WRONG))
def test_a_row_that_is_called_ok_without_an_answer_is_not_done(wrong, ending, rows, tmp_path, caplog):
    path = tmp_path / f"table.{ending}"
    write_table([rows[0], rows[0] | {"PatientID": "spoilt"} | wrong], path, COLUMNS)
    table = ItemTable(path, COLUMNS, resume=True)
    assert table.done == rows[:1]
    assert "1 rows are called ok and hold no whole answer" in caplog.text
    assert "these scans are predicted again: " in caplog.text
    table.lock.release()
    with pytest.raises(ValueError, match="with 2 predicted scans"):  # hours of work all the same
        ItemTable(path, COLUMNS)


@pytest.mark.parametrize(
    "wrong", [{"probability_covid": "0.5"}, {"probability_covid": True}, {"slices": "many"}, {"path": 3}]
)
def test_a_row_of_json_with_values_of_other_types_is_not_done(wrong, rows, tmp_path):
    (tmp_path / "table.json").write_text(json.dumps([rows[0] | wrong]))
    assert ItemTable(tmp_path / "table.json", COLUMNS, resume=True).done == []
