"""Rows of a table of predictions, as they are compared."""

from __future__ import annotations

from collections.abc import Iterable

from balaitous.cohort.table import columns_of
from balaitous.models import MODELS

SEVERITY = MODELS["severity"]
COLUMNS = columns_of(SEVERITY)


def but_seconds(rows: Iterable[dict]) -> list[dict]:
    """Rows without the times that they took."""
    return [{name: value for name, value in row.items() if not name.startswith("seconds")} for row in rows]
