"""JSON from outside, strictly: what one part of a program would read otherwise than another, or never end, is refused.

RFC 8259 leaves to each reader what a key that comes twice means, how deep it goes and which numbers it takes; Python's
takes the last key, all numbers, NaN, and as many levels as its stack has.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

from balaitous.files import open_regular

MAXIMUM_BYTES = 2**24  # a bundle.json or inputs.json has some thousands
MAXIMUM_LEVELS = 100  # what goes through them once more, such as a copy or a message, stays far from Python's limit
MAXIMUM_DIGITS = 300  # of a whole number: it can still be made a float


def read_json(path: Path, *, maximum_bytes: int = MAXIMUM_BYTES, finite: bool = True) -> Any:
    """The content of a JSON file, as `parse_json` takes it.

    Parameters
    ----------
    maximum_bytes : of the file

    Raises
    ------
    OSError : it cannot be read, or is a pipe or a device
    ValueError : it is larger, or as `parse_json`
    """
    with open_regular(path) as file:
        content = file.read(maximum_bytes + 1)
    if len(content) > maximum_bytes:
        raise ValueError(f"more than {maximum_bytes:,} bytes")
    return parse_json(content, finite=finite)


def parse_json(content: bytes, *, finite: bool = True) -> Any:
    """What a text of JSON says.

    Parameters
    ----------
    finite : refuse NaN and infinity, which are no JSON, though some programs write them

    Raises
    ------
    ValueError : it is no JSON, has a key twice in an object, more levels than `MAXIMUM_LEVELS`, or a number that is not
        finite or of more than `MAXIMUM_DIGITS`; it says which
    """
    try:
        value = json.loads(
            content,
            object_pairs_hook=_once,
            parse_int=_whole_number,
            parse_float=_finite_number if finite else None,
            parse_constant=_no_number if finite else None,
        )
    except RecursionError:
        raise ValueError(f"more than {MAXIMUM_LEVELS} levels of lists and objects in each other") from None
    level, levels = _inside([value]), 0
    while level:
        levels += 1
        if levels > MAXIMUM_LEVELS:
            raise ValueError(f"more than {MAXIMUM_LEVELS} levels of lists and objects in each other")
        level = [each for outer in level for each in _inside(outer)]
    return value


def _inside(value: Any) -> list[Any]:
    """The values of an object or list that may have others inside."""
    values = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [each for each in values if isinstance(each, dict | list)]


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice, _ = max(Counter(name for name, _ in pairs).items(), key=lambda each: each[1])
        raise ValueError(f"the key {twice[:40]!r} twice in one object")
    return found


def _whole_number(text: str) -> int:
    if len(text) > MAXIMUM_DIGITS:
        raise ValueError(f"a number of {len(text):,} digits")
    return int(text)


def _finite_number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"a number that is too large: {text[:40]}")
    return value


def _no_number(text: str) -> float:
    raise ValueError(f"{text}, which is no number")
