"""Compare the request behind a table's row with today's: series, age, sex and side-car are not in a scan's content."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from balaitous.errors import InputError
from balaitous.reading.headers import scan_name
from balaitous.reading.patient import Patient, read_sidecar, resolve


def same_request(path: Path | str, given: Mapping[str, Any], row: Mapping[str, Any]) -> bool:
    """Whether `predict` would get the same request now.

    Parameters
    ----------
    path : of the scan; text where it is an address
    given : age, sex and series that are asked for
    row : of a table, of a scan of the same content
    """
    if given.get("series") not in (None, row["series_uid"]):
        return False
    is_address = not isinstance(path, Path)
    stored = ("header", "dicom", "sidecar") if is_address else ("header", "dicom")
    made_with = Patient(*(row[key] for key in ("age_years", "age_source", "sex", "sex_source")))
    age = (made_with.age_years, made_with.age_source) if made_with.age_source in stored else (None, None)
    sex = (made_with.sex, made_with.sex_source) if made_with.sex_source in stored else (None, None)
    try:
        beside = Patient() if is_address else sidecar_of(path)
        return resolve(Patient(*age, *sex).filled_from(beside), given.get("age"), given.get("sex")) == made_with
    except InputError:  # a side-car that is none: predicting the scan will say so
        return False


def sidecar_of(path: Path | str) -> Patient:
    """What the side-car beside a local scan tells."""
    sidecar = Path(os.path.abspath(path)).parent / f"{scan_name(path)}.json"
    return read_sidecar(sidecar) if sidecar.is_file() else Patient()
