"""What ``inputs.json`` tells of a job: the user's own name of the scan, and age and sex where the job has such inputs.

It is a list with an object for each of the job's inputs, which the platform calls sockets (interfaces before 2026)::

    [{"socket": {"slug": "ct-image", "relative_path": "images/ct"}, "image": {"name": "P001.mha"}},
     {"socket": {"slug": "patient-age", "relative_path": "patient-age.json"}, "value": 45}]

A value that is null may stand in the file at ``relative_path`` instead. Every socket must be a known one: an age in
months or the mask of a lung is not silently left out, or taken for what it is not.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from balaitous.errors import InputError, reason_of
from balaitous.reading.documents import read_json
from balaitous.reading.patient import Patient, resolve

INPUTS_FILE = "inputs.json"
SCANS_FOLDER = "images/ct"
AGE_SOCKETS = ("age", "patient-age", "age-in-years")
SEX_SOCKETS = ("sex", "patient-sex")


@dataclass(frozen=True)
class JobInputs:
    """What a job tells besides the scan; None where it does not.

    Attributes
    ----------
    image_name : the user's own name of the scan
    age_years, sex : of the patient; sex is 1 male, 0 female, 0.5 unknown
    """

    image_name: str | None = None
    age_years: float | None = None
    sex: float | None = None


@dataclass(frozen=True)
class Socket:
    """One input of a job.

    Attributes
    ----------
    slug : name of the socket
    relative_path : where its file or folder lies below ``/input``; None where not told
    value : None where it has none, or it is in a file
    image_name : None for what is no image, or has no name
    """

    slug: str
    relative_path: str | None
    value: Any
    image_name: str | None

    @property
    def is_scan(self) -> bool:
        """Whether this is the CT."""
        if self.relative_path is None:
            return self.image_name is not None
        return self.relative_path.strip("/") == SCANS_FOLDER


def read_inputs(input_dir: Path) -> JobInputs:
    """What ``inputs.json`` of a job tells; nothing where there is none.

    Raises
    ------
    InputError : it is no list of sockets, has an unknown one or one twice, or an age or sex that makes no sense
    """
    path = input_dir / INPUTS_FILE
    if not path.exists():
        return JobInputs()
    items = parse_items(content_of(path))
    scan = single([item for item in items if item.is_scan])
    age = single([item for item in items if item.slug in AGE_SOCKETS and not item.is_scan])
    sex = single([item for item in items if item.slug in SEX_SOCKETS and not item.is_scan])
    if unknown := [item for item in items if item not in (scan, age, sex)]:
        raise InputError(
            f"{INPUTS_FILE}: expected the sockets of a CT in {SCANS_FOLDER} and, where wanted, of an age "
            f"({', '.join(AGE_SOCKETS)}) and a sex ({', '.join(SEX_SOCKETS)}), found also "
            f"{', '.join(described(item) for item in unknown)}. Take it out of the algorithm's inputs."
        )
    return JobInputs(
        image_name=None if scan is None else scan.image_name,
        age_years=patient_of(age, input_dir, "age").age_years,
        sex=patient_of(sex, input_dir, "sex").sex,
    )


def parse_items(content: Any) -> list[Socket]:
    """The inputs of a job, from the content of ``inputs.json``."""
    if not isinstance(content, list):
        raise InputError(
            f"{INPUTS_FILE}: expected a list of objects, found a {type(content).__name__}. Correct or remove it."
        )
    return [parse_item(entry) for entry in content]


def parse_item(entry: Any) -> Socket:
    """One input of a job."""
    fields = entry if isinstance(entry, dict) else {}
    socket = fields.get("socket") or fields.get("interface")
    if not isinstance(socket, dict) or not isinstance(slug := socket.get("slug"), str):
        raise InputError(
            f'{INPUTS_FILE}: expected objects with {{"socket": {{"slug": …}}}} (or "interface"), found '
            f"{json.dumps(entry)[:100]}. Correct or remove it."
        )
    path, image = socket.get("relative_path"), fields.get("image")
    name = image.get("name") if isinstance(image, dict) else None
    return Socket(slug, None if path is None else str(path), fields.get("value"), None if name is None else str(name))


def single(items: list[Socket]) -> Socket | None:
    """The item, if there is one; of several none can be preferred."""
    if len(items) > 1:
        raise InputError(
            f"{INPUTS_FILE}: expected one socket of a kind, found {', '.join(described(item) for item in items)}. "
            "Keep one of them."
        )
    return items[0] if items else None


def patient_of(item: Socket | None, input_dir: Path, name: str) -> Patient:
    """The patient as far as the socket of an age or a sex tells."""
    if item is None:
        return Patient()
    try:
        value = value_of(item, input_dir)
        return Patient() if value is None else resolve(Patient(), **{name: value})
    except ValueError as error:
        raise InputError(f"{INPUTS_FILE}, {described(item)}: {error}") from None


def value_of(item: Socket, input_dir: Path) -> Any:
    """The value of an input that is no image: in the item itself, or in a JSON file of its own; None if it has none."""
    if item.value is not None or item.relative_path is None:
        return item.value
    path = input_dir / item.relative_path
    if not path.resolve().is_relative_to(input_dir.resolve()):
        raise InputError(f"{INPUTS_FILE}, {described(item)}: expected a file inside {input_dir}. Correct its path.")
    return content_of(path) if path.exists() and not path.is_dir() else None


def content_of(path: Path) -> Any:
    """The content of a JSON file."""
    try:
        return read_json(path)
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path.name}: expected JSON, cannot read it ({reason_of(error)}). Correct or remove it."
        ) from None


def described(item: Socket) -> str:
    """A socket as an error names it."""
    return f"'{item.slug}'" + (f" at {item.relative_path}" if item.relative_path else "")
