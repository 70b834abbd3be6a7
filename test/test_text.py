"""Names and messages on one line, harmless to terminals, logs and spreadsheets."""

from __future__ import annotations

import logging

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from balaitous.text import PlainFormatter, as_cell, from_cell, printable

STEERING = ["\x1b[31m", "\n", "\r", "\t", "\x00", "\x7f", "\x85", "\u2028", "\u2029", "\u202e", "\u2066", "\udcff"]
ENDS = "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"  # what `str.splitlines` splits at
names = st.text() | st.text(st.sampled_from("'=+-@ \t＝ab\u3000"))


@pytest.mark.parametrize("text", STEERING)
def test_what_steers_a_terminal_or_ends_a_line_is_escaped(text):
    told = printable(f"a{text}ERROR: b")
    assert told.isprintable()
    assert told.startswith("a\\")
    assert told.endswith("ERROR: b")


@pytest.mark.parametrize(
    "text", ["Müller", "山田\u3000太郎", "a\u00a0b", "🫁", r"C:\scans\new", "[red]x[/red]", ":heart:"]
)
def test_names_of_people_and_files_stay_as_they_are(text):
    assert printable(text) == text


@given(names)
def test_a_text_is_one_line_that_stays_as_it_is(text):
    told = printable(text)
    assert printable(told) == told
    assert not set(told) & set(ENDS)
    told.encode()  # no lone surrogate


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", " =1", "＝1+1", "'=1", "''-x"])
def test_no_cell_is_a_formula(text):
    assert as_cell(text) == f"'{text}"


@given(names)
@example("'=")
def test_a_cell_reads_back_as_the_text(text):
    assert from_cell(as_cell(text)) == text
    assert as_cell(text).lstrip()[:1] not in {"=", "+", "-", "@", "＝"}


def test_a_record_of_the_log_is_one_line_above_its_traceback():
    try:
        raise ValueError("why")
    except ValueError as error:
        record = logging.LogRecord("a", 30, "a.py", 1, "%s: odd", ("x\nERROR: y",), (type(error), error, None))
    first, *others = PlainFormatter("%(levelname)s: %(message)s").format(record).splitlines()
    assert first == "WARNING: x\\nERROR: y: odd"
    assert others == ["ValueError: why"]
