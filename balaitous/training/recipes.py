"""Recipes of trainings: small TOML files, each a dataclass whose fields the file may set."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

from balaitous.errors import InputError, reason_of
from balaitous.files import open_regular

Recipe = TypeVar("Recipe")

LARGEST = 2**31 - 1  # of every number


def read_recipe(kind: type[Recipe], recipe: str | Path, folder: Path) -> Recipe:
    """A recipe by its name in a folder, or from a TOML file; what it leaves out keeps its default.

    Raises
    ------
    InputError : missing, no TOML, or a name or value that no recipe has
    """
    named = folder / f"{recipe}.toml"
    path = named if named.exists() else Path(recipe)
    try:
        with open_regular(path) as file:
            return from_mapping(kind, tomllib.load(file))
    except (OSError, ValueError, TypeError, RecursionError) as error:
        names = ", ".join(sorted(each.stem for each in folder.glob("*.toml")))
        raise InputError(f"{recipe}: expected a recipe ({names}, or a TOML file), found: {reason_of(error)}.") from None


def from_mapping(kind: type, content: Mapping[str, Any]) -> Any:
    """A dataclass from what a file says of its fields; lists become tuples, tables dataclasses."""
    known = {each.name: each for each in fields(kind)}
    if unknown := sorted(content.keys() - known.keys()):
        raise ValueError(f"unknown {', '.join(unknown)} (known: {', '.join(known)})")
    values = {}
    for name, value in content.items():
        default = getattr(kind(), name)
        if is_dataclass(default) and isinstance(value, dict):
            value = from_mapping(type(default), value)
        elif not is_like(value, default):
            raise ValueError(
                f"{name} must be like {default}, numbers from 0 to {LARGEST}. Got {repr(value)[:80]} instead"
            )
        values[name] = tuple(value) if isinstance(value, list) else value
    return kind(**values)


def is_like(value: Any, default: Any) -> bool:
    """Whether a value of a file may take a default's place: a text, a truth, or as many numbers that make sense.

    An empty tuple stands for any number of fractions.
    """
    if isinstance(default, tuple):
        if not isinstance(value, list) or len(value) != len(default or value):
            return False
        return all(map(is_like, value, default or [0.0] * len(value)))
    if isinstance(default, str | bool):
        return type(value) is type(default)
    if is_dataclass(default):
        return False
    kinds = (int, float) if isinstance(default, float) else (int,)  # a bool is neither; `blocks` may be None
    return type(value) in kinds and 0 <= value <= LARGEST
