"""Messages: one printable line."""

from __future__ import annotations

from balaitous.errors import InputError, explain, one_line


def test_messages_are_one_printable_line_of_limited_length():
    assert one_line("a\r\nERROR: b\x1b[2J\udcff") == "a ERROR: b\\x1b[2J\\udcff"
    assert len(one_line("x" * 10**6 + " do this")) < 1300
    assert one_line("x" * 10**6 + " do this").endswith("x do this")
    assert "\x1b" not in explain(InputError("series \x1b[31m"))
