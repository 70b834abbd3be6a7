"""Tables as CSV: read as they are meant, or refused with the file and the line."""

from __future__ import annotations

import csv
import io
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from balaitous.errors import InputError
from balaitous.reading.csv_files import bytes_of, parse_csv

KNOWN = ("PatientID", "probability_covid", "probability_severe")


def parse(text: str | bytes):
    return parse_csv(text if isinstance(text, bytes) else text.encode(), "t.csv", KNOWN, {"name": "PatientID"})


@pytest.mark.parametrize(
    "header", ["PatientID,probability_covid", " patientid , PROBABILITY_COVID", "Name,probability_covid"]
)
def test_known_columns_are_found_in_any_case_with_spaces_and_by_other_names(header):
    table = parse(f"\ufeff{header}\r\n a , 0.5\r\n")
    assert table.columns == ("PatientID", "probability_covid")
    assert table.rows == ({"PatientID": "a", "probability_covid": "0.5"},)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (
            "PatientID,probability_covid,probability_severe\na,0.5,0.5\nb,0,93,0,81\n",
            "line 3: expected 3 fields .* found 5",
        ),
        ("PatientID,probability_covid\na,0.5,0.5\n", "line 2: expected 2 fields .* found 3"),
        ("PatientID,probability_covid\n\na,0.5,\n", "line 3: expected 2 fields .* found 3"),
        ("PatientID,probability_covid,probability_severe\na,0.5\n", "line 2: expected 3 fields .* found 2"),
        ("PatientID;probability_covid\na;0,5\n", "line 1: expected commas .* found semicolons"),
        ("PatientID\tprobability_covid\na\t0.5\n", "line 1: expected commas .* found tabs"),
        ("PatientID,name\na,b\n", "several columns for PatientID"),
        ('PatientID\n"a', "not a readable CSV"),
        ("", "it is empty"),
        ("\n\n", "it is empty"),
        (b"PatientID\n\xff\xfe\n", "not a readable CSV"),
        (b"PatientID\na\0b\n", "bytes that are no text"),
    ],
)
def test_what_is_no_table_is_refused_with_the_line(content, reason):
    with pytest.raises(InputError, match=rf"t\.csv.*{reason}"):
        parse(content)


def test_lines_that_hold_nothing_are_left_out_with_a_word_and_the_others_keep_their_numbers(caplog):
    table = parse("PatientID,probability_covid\n,\na,0.5\n\n , \nb,0.25\n,,,,\n")
    assert [row["PatientID"] for row in table.rows] == ["a", "b"]
    assert table.lines == (3, 6)
    assert "t.csv: lines that hold nothing are left out: 2, 5, 7" in caplog.text


def test_columns_that_nobody_reads_are_told_also_those_without_a_name():
    assert parse("PatientID,gendre,,\na,F,x,\n").unused(KNOWN) == ["gendre", "one without a name"]
    assert parse("PatientID,,\na,,\n").unused(KNOWN) == []


def test_a_pipe_is_not_waited_for_and_a_missing_file_is_an_error(tmp_path):
    os.mkfifo(tmp_path / "pipe.csv")
    for name in ("pipe.csv", "gone.csv", "."):
        with pytest.raises(OSError, match=r"pipe|No such file|directory"):
            bytes_of(tmp_path / name)


texts = st.text(st.characters(codec="utf-8", exclude_characters="\0\r\ufeff"))


@given(st.lists(st.tuples(texts, texts, texts), min_size=1))
def test_every_table_that_is_written_is_read_back_but_for_spaces_at_the_ends(rows):
    content = io.StringIO()
    csv.writer(content).writerows([KNOWN, *rows])
    expected = [tuple(each.strip() for each in row) for row in rows]
    table = parse(content.getvalue())
    assert [tuple(row.values()) for row in table.rows] == [row for row in expected if any(row)]


def test_first_columns_without_a_name_get_one_where_their_reader_knows_what_they_are():
    table = parse_csv(b",,label,\na,p1,1,x\n", "t.csv", KNOWN, unnamed=("picture", "patient"))
    assert table.columns == ("picture", "patient", "label", "")
    assert parse_csv(b"path\na\n", "t.csv", KNOWN, unnamed=("picture", "patient")).columns == ("path",)
