"""JSON from outside."""

import json
import os
import sys
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from balaitous.reading.documents import MAXIMUM_DIGITS, MAXIMUM_LEVELS, parse_json, read_json

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(JSON)
def test_what_is_json_comes_back_as_it_was(content):
    assert parse_json(json.dumps(content).encode()) == content


@given(st.binary(max_size=40) | st.text('[]{}":,0123456789eE.-+NaInfity\\u d8 ', max_size=40).map(str.encode))
def test_whatever_is_no_json_is_refused_and_raises_nothing_else(content):
    with suppress(ValueError):
        parse_json(content)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[" * 100_000, "more than 100 levels"),
        ('{"a":' * 100_000, "more than 100 levels"),
        ("[" * 101 + "]" * 101, "more than 100 levels"),
        ('{"a": ' * 101 + "1" + "}" * 101, "more than 100 levels"),
        ('{"a": 1, "b": 2, "a": 3}', "the key 'a' twice"),
        ('[{"b": {"a": 1, "a": 1}}]', "the key 'a' twice"),
        ("[NaN]", "NaN, which is no number"),
        ('{"a": -Infinity}', "-Infinity, which is no number"),
        ("[1e999]", "a number that is too large: 1e999"),
        (f"[{'9' * 301}]", "a number of 301 digits"),
        (f"[{'9' * 100_000}]", "a number of 100,000 digits"),
    ],
)
def test_what_readers_take_differently_is_refused(content, said):
    with pytest.raises(ValueError, match=said):
        parse_json(content.encode())


def test_levels_and_digits_that_are_allowed_can_be_worked_with():
    deep = parse_json(b"[" * MAXIMUM_LEVELS + b"]" * MAXIMUM_LEVELS)
    assert repr(deep) == "[" * MAXIMUM_LEVELS + "]" * MAXIMUM_LEVELS
    assert float(parse_json(b"9" * MAXIMUM_DIGITS)) < sys.float_info.max


def test_nan_is_read_where_it_is_allowed():
    nan, infinite, large = parse_json(b"[NaN, Infinity, 1e999]", finite=False)
    assert nan != nan
    assert infinite == large == float("inf")


def test_a_byte_order_mark_is_no_part_of_it(tmp_path):
    (tmp_path / "a.json").write_bytes(b"\xef\xbb\xbf[1]")
    assert read_json(tmp_path / "a.json") == [1]


def test_a_file_that_is_too_large_is_not_read_to_its_end(tmp_path):
    path = tmp_path / "a.json"
    path.write_bytes(b"[]")
    os.truncate(path, 2**40)  # takes no space
    with pytest.raises(ValueError, match="more than 16,777,216 bytes"):
        read_json(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes with names")
def test_pipes_devices_and_sockets_are_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.json")
    (tmp_path / "link.json").symlink_to(tmp_path / "a.json")
    for path in (tmp_path / "a.json", tmp_path / "link.json", "/dev/null", "/dev/zero"):
        with pytest.raises(OSError, match="it is a pipe, a device or a socket, not a file"):
            read_json(tmp_path / path)


def test_what_is_not_there_and_a_folder_are_told_as_such(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "a.json")
    with pytest.raises(IsADirectoryError):
        read_json(tmp_path)
