"""Tables that people hand in as CSV (RFC 4180): lists of scans, references, predictions, heads.

A line with more or fewer fields than the first one says something else than its reader believes: a decimal comma, a
name with a comma in it, a column without a name. Such a file is refused, with the line.
"""

from __future__ import annotations

import csv
import io
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from types import MappingProxyType

from balaitous.errors import InputError, first_few
from balaitous.files import open_regular

log = logging.getLogger(__name__)

OTHER_SEPARATORS = {";": "semicolons", "\t": "tabs"}


@dataclass(frozen=True)
class CsvTable:
    """A table of texts.

    Attributes
    ----------
    columns : names, without spaces around them; those that are known as the reader spells them, "" where there is none
    rows : the fields of each line by their column, without spaces around them
    lines : number of each row's line in the file, from 1
    """

    columns: tuple[str, ...]
    rows: tuple[dict[str, str], ...]
    lines: tuple[int, ...]

    def unused(self, known: Iterable[str]) -> list[str]:
        """Columns that are not among the known ones and hold something."""
        others = [name for name in dict.fromkeys(self.columns) if name not in set(known)]
        return [name or "one without a name" for name in others if name or any(row[name] for row in self.rows)]


def bytes_of(path: Path) -> bytes:
    """The bytes of a file.

    Raises
    ------
    OSError : it cannot be read, or is a pipe or a device
    """
    with open_regular(path) as file:
        return file.read()


def parse_csv(
    content: bytes,
    name: str,
    known: Iterable[str],
    same: Mapping[str, str] = MappingProxyType({}),
    unnamed: Sequence[str] = (),
) -> CsvTable:
    """The table in a CSV file; lines that hold nothing are left out, and named in a warning.

    Parameters
    ----------
    name : of the file, for messages
    known : columns that its reader knows; they are found in any case and with spaces around them
    same : other people's names of known columns, in lower case
    unnamed : what the first columns are called if they have no name

    Raises
    ------
    InputError : it is no text in UTF-8, has no commas between its fields, a line with another number of fields than the
        first, or two columns of one meaning
    """
    try:
        text = content.decode("utf-8-sig")
        if "\0" in text:
            raise ValueError("it holds bytes that are no text")
        reader = csv.reader(io.StringIO(text, newline=""), strict=True, skipinitialspace=True)
        lines = [(reader.line_num, [each.strip() for each in fields]) for fields in reader if fields]
        if not lines:
            raise ValueError("it is empty")
    except (ValueError, csv.Error) as error:
        raise InputError(
            f"{name} is not a readable CSV ({error}). Expected text in UTF-8 with the names of its columns in the "
            "first line and commas between the fields."
        ) from None
    (_, header), *others = lines
    if len(header) == 1 and (found := [what for sign, what in OTHER_SEPARATORS.items() if sign in header[0]]):
        raise InputError(
            f"{name}, line 1: expected commas between the fields, found {found[0]}. Save it with commas, and with "
            "points in decimals (0.93)."
        )
    own = {each.lower(): each for each in known} | dict(same)
    header = [each or called for each, called in zip_longest(header, unnamed[: len(header)], fillvalue="")]
    columns = tuple(own.get(each.lower(), each) for each in header)
    if twice := sorted({each for each in columns if each in own.values() and columns.count(each) > 1}):
        raise InputError(f"{name} has several columns for {', '.join(twice)}. Keep one of each.")
    if empty := [number for number, fields in others if not any(fields)]:
        log.warning("%s: lines that hold nothing are left out: %s", name, first_few([str(each) for each in empty]))
    filled = [(number, fields) for number, fields in others if any(fields)]
    for number, fields in filled:
        if len(fields) != len(columns):
            raise InputError(
                f"{name}, line {number}: expected {len(columns)} fields as in the first line, found {len(fields)}. "
                "Name every column, write decimals with a point (0.93), and put texts that hold commas in quotes."
            )
    return CsvTable(
        columns,
        tuple(_row(columns, fields) for _, fields in filled),
        tuple(number for number, _ in filled),
    )


def _row(columns: tuple[str, ...], fields: list[str]) -> dict[str, str]:
    """Fields by their columns; what stands in columns without a name together."""
    row: dict[str, str] = {}
    for name, field in zip(columns, fields, strict=True):
        row[name] = field if name else row.get("", "") + field
    return row
