"""Text that comes from files, made harmless: for terminals, log lines, tables, and the spreadsheets that open these."""

from __future__ import annotations

import logging
import re
import unicodedata

# Control characters (ESC, line ends), those that cannot be seen (they turn the direction of what follows, say), bytes
# of file names that are no text, and the two line ends of Unicode. Spaces of any width are left as they are.
ESCAPED = {"Cc", "Cf", "Cs", "Zl", "Zp"}
FORMULA = re.compile(r"'*\s*[=+\-@＝＋－＠]")  # what a spreadsheet calculates; apostrophes, that it was told not to


def printable(text: str) -> str:
    r"""A text on one line: what steers a terminal, hides or ends a line is written as an escape, such as ``\x1b``.

    A text that was made printable stays as it is.
    """
    if text.isprintable():
        return text
    return "".join(_escape(each) if unicodedata.category(each) in ESCAPED else each for each in text)


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode()


def as_cell(text: str) -> str:
    """A cell of CSV that no spreadsheet takes for a formula: where the text looks like one, an apostrophe comes first.

    `from_cell` gives every text back as it was.
    """
    return f"'{text}" if FORMULA.match(text) else text


def from_cell(cell: str) -> str:
    """The text of a cell that `as_cell` made."""
    return cell[1:] if cell.startswith("'") and FORMULA.match(cell) else cell


class PlainFormatter(logging.Formatter):
    """Every record on one line, whatever the names in it; a traceback comes below."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        """The line of a record."""
        return printable(super().formatMessage(record))
