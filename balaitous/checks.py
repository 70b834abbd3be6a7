"""A quality check holds a measured value against limits; its verdict is recorded, or refuses the input.

The limits are handed in by whoever measures: for CTs they stand in `balaitous.ct.quality_limits`. ``fail`` is where a
method cannot answer, and is refused; ``warn`` is where its answer deserves a second look, and is recorded with it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from balaitous.errors import BalaitousError, InputError

Status = Literal["ok", "warn", "fail"]
Range = tuple[float, float]

ANY = math.inf
DIGITS = 4  # of a measured value that are kept


@dataclass(frozen=True)
class Limits:
    """What a measured value is held against.

    Attributes
    ----------
    subject, unit : what the value is, for a reader; the unit is "" for a ratio or a count
    ok : (least, largest) value of an input as it should be
    usable : (least, largest) value that the method can answer for: a warning inside, a failure outside
    low, high : what a value below or above `ok` means, and what to do
    missing : the status where nothing could be measured
    """

    subject: str
    unit: str
    ok: Range
    usable: Range = (-ANY, ANY)
    low: str = ""
    high: str = ""
    missing: Status = "ok"


@dataclass(frozen=True)
class Check:
    """One check of a scan.

    Attributes
    ----------
    name : of what was measured
    status : "ok", "warn" or "fail"
    value, unit : what was measured; None where that was not possible
    message : what was found, what was expected, and what to do, in one line
    """

    name: str
    status: Status
    value: float | None
    unit: str
    message: str


class QualityError(InputError):
    """The image was read, but it is not fit for an answer.

    Attributes
    ----------
    checks : what was measured
    """

    def __init__(self, message: str, checks: Sequence[Check] = ()) -> None:
        super().__init__(message)  # the message alone: so it survives the way out of a process
        self.checks = tuple(checks)


def check_value(name: str, value: float | None, limits: Limits) -> Check:
    """The check of a measured value; the same value, the same check."""
    if value is None or math.isnan(value):
        told = f"; {limits.low}" if limits.missing != "ok" else ""
        return Check(name, limits.missing, None, limits.unit, f"{limits.subject}: not to be found{told}")
    value = float(f"{value:.{DIGITS}g}")
    low, high = limits.ok
    found = f"{limits.subject}: {value:g} {limits.unit}".rstrip()
    if low <= value <= high:
        return Check(name, "ok", value, limits.unit, found)
    status: Status = "warn" if limits.usable[0] <= value <= limits.usable[1] else "fail"
    expected = (
        f"expected at least {low:g}: {limits.low}" if value < low else f"expected at most {high:g}: {limits.high}"
    )
    return Check(name, status, value, limits.unit, f"{found}, {expected}")


def verdict(checks: Iterable[Check]) -> dict[str, Any]:
    """What is recorded of checks: ``quality`` (the worst status; None without any), ``quality_notes``, ``checks``."""
    checks = list(checks)
    worse = [each for status in ("fail", "warn") for each in checks if each.status == status]
    return {
        "quality": worse[0].status if worse else "ok" if checks else None,
        "quality_notes": "; ".join(each.message for each in worse) or None,
        "checks": [asdict(each) for each in checks],
    }


def refuse(name: str, expected: str, checks: Sequence[Check], strict: bool = False) -> None:
    """Refuse the input of this name if a check failed; with `strict`, also if a check warned.

    Parameters
    ----------
    expected : what the input should be, such as "a whole chest CT"

    Raises
    ------
    QualityError : with every check, and what was found in one line
    """
    record = verdict(checks)
    if record["quality"] == "fail" or (strict and record["quality"] == "warn"):
        why = " (warnings, which strict checks refuse)" if record["quality"] == "warn" else ""
        raise QualityError(f"{name}: expected {expected}, found {record['quality_notes']}{why}", checks)


def check_probabilities(probabilities: Mapping[str, float]) -> None:
    """Refuse a number that is no probability: networks can give NaN, for example in half precision.

    Raises
    ------
    BalaitousError : it names the first
    """
    for name, value in probabilities.items():
        if not 0 <= value <= 1:  # NaN is not either
            raise BalaitousError(f"expected {name} in [0, 1], found {value}: try precision fp32, or other weights")
