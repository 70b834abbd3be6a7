"""One row a scan, on disk as soon as it is there, and read back as it was."""

import csv
import math
import os
import tempfile
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from balaitous.cohort.items import Item
from balaitous.cohort.table import read_table, row_of, write_table
from balaitous.errors import BalaitousError, InputError
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


def value_of(kind: type) -> st.SearchStrategy:
    values = {
        str: st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1),
        int: st.integers(-(2**63), 2**63 - 1),
        float: st.floats(allow_nan=False),
    }
    return st.none() | values[kind]


ROW = st.tuples(*map(value_of, COLUMNS.values())).map(lambda values: dict(zip(COLUMNS, values, strict=True)))


def test_rows_of_predicted_and_of_failed_scans_have_the_same_columns(rows, short_prediction):
    good, bad = rows
    assert list(good) == list(bad) == list(COLUMNS)
    assert tuple(good)[:6] == ("PatientID", "path", "probability_covid", "probability_severe", "status", "error")
    assert good["input_sha256"] == short_prediction.input_sha256
    assert (bad["status"], bad["error"], bad["error_kind"]) == ("failed", "no such file", "InputError")
    assert all(value is None or type(value) is COLUMNS[name] for name, value in good.items())


def test_everything_that_a_prediction_tells_has_its_column(rows, short_prediction):
    row, stages = rows[0], short_prediction.seconds
    told = [f"probability_{key}" for key in short_prediction.probabilities] + [f"seconds_{key}" for key in stages]
    assert [name for name in told if row.get(name) is None] == []
    assert sum(row[f"seconds_{stage}"] for stage in stages) == pytest.approx(row["seconds"], abs=0.002)
    empty = {"error", "error_kind", "series_uid", "series", "other_series", "int8_sha256", "calibration", "warnings"}
    empty |= {"saved"}
    assert row["quality"] == "warn"  # the phantom has contrast agent
    assert {name for name, value in row.items() if value is None} == empty


def test_a_row_and_results_tell_which_series_was_read_and_which_were_there(short_prediction):
    told = {"series": "B30f, 1 mm, 300 slices", "other_series": "B70f, 1 mm, 300 slices (1.2.3)"}
    prediction = replace(short_prediction, **told)
    row, results = row_of(Item(PHANTOM), prediction, SEVERITY), prediction.to_dict()
    assert told.items() <= row.items()
    assert told.items() <= results.items()


def test_what_is_no_probability_is_a_failure(short_prediction):
    with pytest.raises(
        BalaitousError, match=r"expected probability_severe in \[0, 1\], found nan: try precision fp32"
    ) as told:
        replace(short_prediction, probability_severe=math.nan)
    row = row_of(Item(PHANTOM), told.value, SEVERITY)
    assert (row["status"], row["probability_covid"], row["error_kind"]) == ("failed", None, "BalaitousError")


@pytest.mark.parametrize("ending", ENDINGS)
@given(rows=st.lists(ROW, max_size=3))
def test_rows_read_back_as_they_were(ending, rows):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"table.{ending}")
        write_table(rows, path, COLUMNS)
        assert read_table(path, COLUMNS) == rows
        assert os.listdir(folder) == [path.name]


@pytest.mark.parametrize(
    "name",
    ["two\nlines\r.mha", "caf\udce9.mha", 'a,"b".mha', "\x00.mha", "\u202e.mha", "a\x85b\u2028c.mha", "=1+1.mha"],
)
def test_a_file_name_of_any_bytes_is_one_line_of_the_table(name, tmp_path):
    row = row_of(Item(Path("scans", name)), InputError(f"{name}: nothing there"), SEVERITY)
    write_table([row], tmp_path / "table.csv", COLUMNS)
    assert len((tmp_path / "table.csv").read_text().splitlines()) == 2
    assert read_table(tmp_path / "table.csv", COLUMNS) == [row]


@pytest.mark.parametrize("ending", ENDINGS)
def test_names_are_the_same_in_every_format_and_no_spreadsheet_calculates_them(ending, tmp_path):
    names = ["=1+1", "+4", "-5", "@SUM(A1)", "'=quoted", "\t=tab", "\r=return", "＝wide"]
    rows = [row_of(Item(Path(f"{name}.mha")), InputError(f"{name} failed"), SEVERITY) for name in names]
    path = tmp_path / f"table.{ending}"
    write_table(rows, path, COLUMNS)
    assert read_table(path, COLUMNS) == rows
    if ending == "csv":
        cells = [cell for line in csv.reader(path.open(newline="")) for cell in line]
        assert not [cell for cell in cells if cell[:1] in "=+-@\t\r＝" and cell]


def test_a_table_never_shows_the_password_or_signature_of_an_address():
    scan = Item("https://me:secret@host/scan.nii.gz?signature=secret")
    row = row_of(scan, InputError(f"{scan.path} cannot be reached"), SEVERITY)
    assert row["PatientID"] == "scan"
    assert "secret" not in str(row)


def test_pandas_reads_counts_as_whole_numbers_and_missing_ones_as_missing(rows, tmp_path):
    write_table(rows, tmp_path / "table.parquet", COLUMNS)
    good, bad = pd.read_parquet(tmp_path / "table.parquet").to_dict("records")
    assert good["slices"] == rows[0]["slices"]
    assert pd.isna(bad["slices"])
    assert math.isnan(bad["probability_covid"])
