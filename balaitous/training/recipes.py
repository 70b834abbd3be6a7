"""Recipes of trainings: small TOML files, each a dataclass whose fields the file may set."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

from balaitous.errors import InputError

Recipe = TypeVar("Recipe")


def read_recipe(kind: type[Recipe], recipe: str | Path, folder: Path) -> Recipe:
    """A recipe by its name in a folder, or from a TOML file; what it leaves out keeps its default.

    Raises
    ------
    InputError : missing, no TOML, or a name or value that no recipe has
    """
    named = folder / f"{recipe}.toml"
    path = named if named.exists() else Path(recipe)
    try:
        return from_mapping(kind, tomllib.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        names = ", ".join(sorted(each.stem for each in folder.glob("*.toml")))
        raise InputError(f"{recipe}: expected a recipe ({names}, or a TOML file), found: {error}.") from None


def from_mapping(kind: type, content: Mapping[str, Any]) -> Any:
    """A dataclass from what a file says of its fields; lists become tuples, tables dataclasses."""
    known = {each.name: each for each in fields(kind)}
    if unknown := sorted(content.keys() - known.keys()):
        raise ValueError(f"unknown {', '.join(unknown)} (known: {', '.join(known)})")
    values = {}
    for name, value in content.items():
        default = getattr(kind(), name)
        if is_dataclass(default):
            value = from_mapping(type(default), value)
        values[name] = tuple(value) if isinstance(value, list) else value
    return kind(**values)
