"""Which scans the lung U-Net is trained and tested on: a folder or a table, prepared once, kept for the next start."""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

import balaitous
from balaitous.cohort.items import list_items
from balaitous.cohort.table import csv_line
from balaitous.errors import InputError, explain, first_few
from balaitous.evaluation.tasks import outcome_of, read_csv
from balaitous.files import write_whole
from balaitous.models import MODELS
from balaitous.reading.fingerprint import content_sha256
from balaitous.reading.headers import scan_name
from balaitous.text import printable
from balaitous.training.lungs.cases import LungCase, cached_case, digest, phantom_case, read_case

log = logging.getLogger(__name__)

MASK_ENDINGS = ("_lungmask", "_mask")  # of the name of a mask that lies beside its scan
FIRST_PHANTOM = 1000  # seed of the first phantom: any N of them are the same everywhere
BOOLEANS = {"true": 1, "false": 0}  # as pandas writes them
SCANS_FILE = "scans.csv"
SCANS_COLUMNS = ("PatientID", "path", "labels", "held_out", "status", "error")


@dataclass(frozen=True)
class LungScan:
    """A scan to train on, or to test on.

    Attributes
    ----------
    name : of the file without endings, or its path where that is not enough
    path : as `read_ct` takes it
    mask : of its lungs; None: a pseudo-mask is made
    held_out : kept from the training, to measure Dice on
    unsure : slices whose labels are not to be trusted, counted from 0 at the feet
    """

    name: str
    path: Path
    mask: Path | None = None
    held_out: bool = False
    unsure: slice | None = None


@dataclass(frozen=True)
class LungData:
    """Cases to train on, and cases to measure Dice on."""

    training: Sequence[LungCase]
    held_out: Sequence[LungCase]


# --- listing ----------------------------------------------------------------------------------------------------------


def list_lung_scans(data: Path, held_out: Sequence[str] = ()) -> list[LungScan]:
    """The scans of a table or a folder, each with its mask where it has one.

    Parameters
    ----------
    data : a .csv with columns ``path[,mask][,held_out][,unsure]``, whose relative paths start at its folder; or a
        folder as `list_items` takes it, where ``<name>_lungmask`` or ``<name>_mask`` beside a scan is its mask
    held_out : names of scans to hold out, beside those of the table

    Raises
    ------
    InputError : there is no such file, no scan in it, a line of the table makes no sense, or a name is not known
    """
    scans = scans_of_table(data) if data.suffix.lower() == ".csv" else scans_with_masks(data)
    if not scans:
        raise InputError(f"{data}: expected a line for every scan, found none.")
    scans = with_own_names(scans, data if data.is_dir() else data.parent)
    names = {scan.name for scan in scans}
    if unknown := [name for name in held_out if name not in names]:
        raise InputError(
            f"expected names of scans to hold out ({first_few(sorted(names))}), found {first_few(unknown)}."
        )
    return [replace(scan, held_out=scan.held_out or scan.name in held_out) for scan in scans]


def scans_of_table(path: Path) -> list[LungScan]:
    """The scans of a .csv with columns ``path[,mask][,held_out][,unsure]``."""
    scans = []
    for number, row in enumerate(read_csv(path, ["path"]).to_dict("records"), start=2):
        try:
            scans.append(scan_of_row(row, path.parent))
        except ValueError as error:
            raise InputError(f"{path}, line {number}: {error}") from None
    return scans


def scan_of_row(row: Mapping[str, str], folder: Path) -> LungScan:
    """The scan of a line of a table; ValueError if it makes no sense."""
    if not row["path"]:
        raise ValueError("path must be that of a scan. Got nothing.")
    path, mask = folder / row["path"], row.get("mask")
    return LungScan(
        name=scan_name(path),
        path=path,
        mask=folder / mask if mask else None,
        held_out=held_out_of(row.get("held_out") or "0"),
        unsure=unsure_of(row["unsure"]) if row.get("unsure") else None,
    )


def held_out_of(text: str) -> bool:
    """Whether a cell says that a scan is held out."""
    held_out = BOOLEANS.get(text.lower(), outcome_of(text))
    if held_out is None:
        raise ValueError(f"held_out must be 1 (not trained on), 0 or empty. Got {text!r} instead.")
    return bool(held_out)


def unsure_of(text: str) -> slice:
    """The slices of a cell such as ``41-52``, both ends included."""
    if (match := re.fullmatch(r"(\d+)-(\d+)", text.strip())) is None:
        raise ValueError(f"unsure must be the first and the last slice, such as 41-52. Got {text!r} instead.")
    return slice(int(match[1]), int(match[2]) + 1)


def scans_with_masks(data: Path) -> list[LungScan]:
    """The scans of a folder (or the one given), without the masks that lie beside them."""
    paths = [Path(item.path) for item in list_items([data], MODELS["severity"])]
    there = {path.parent / scan_name(path): path for path in paths}
    masks = {}
    for path in paths:
        names = (path.with_name(scan_name(path) + ending) for ending in MASK_ENDINGS)
        if mask := next((there[name] for name in names if name in there), None):
            masks[path] = mask
    return [LungScan(scan_name(path), path, masks.get(path)) for path in paths if path not in masks.values()]


def with_own_names(scans: Sequence[LungScan], folder: Path) -> list[LungScan]:
    """The scans, those of the same name called by their path, from the folder where they lie below it.

    Raises
    ------
    InputError : a scan is listed twice
    """
    times = Counter(scan.name for scan in scans)
    if twice := [str(path) for path, count in Counter(scan.path for scan in scans).items() if count > 1]:
        raise InputError(f"expected every scan once, found twice or more: {first_few(twice)}. Remove lines.")

    def own(scan: LungScan) -> str:
        if times[scan.name] == 1:
            return scan.name
        return (scan.path.relative_to(folder) if scan.path.is_relative_to(folder) else scan.path).as_posix()

    return [replace(scan, name=own(scan)) for scan in scans]


# --- preparation ------------------------------------------------------------------------------------------------------


def prepare_cases(scans: Sequence[LungScan], folder: Path, phantoms: int = 0) -> LungData:
    """Scans at the method's spacing with their labels; those that were prepared before are taken from the folder.

    One that cannot be used is left out, and named in the log and in ``scans.csv``.

    Parameters
    ----------
    folder : where they are kept
    phantoms : how many of them to train on beside the scans

    Raises
    ------
    InputError : none is left to train on, or a scan is both trained on and held out
    """
    prepared = prepare_each(scans, folder)
    training, held_out = (
        [prepared[scan.name] for scan in scans if scan.name in prepared and scan.held_out is kind]
        for kind in (False, True)
    )
    check_apart(training, held_out)
    training += [kept_phantom(FIRST_PHANTOM + i, folder) for i in range(phantoms)]
    if not training:
        raise InputError(
            f"expected at least one scan to train on, found {len(scans)} scans, of which {len(held_out)} are held out "
            f"and {len(scans) - len(prepared)} failed. Why is in {folder / SCANS_FILE}."
        )
    return LungData(training, held_out)


def prepare_each(scans: Sequence[LungScan], folder: Path) -> dict[str, LungCase]:
    """The cases of the scans that can be used, by name; what became of each is in ``scans.csv``.

    Raises
    ------
    ValueError : another file of that name is there
    """
    prepared: dict[str, LungCase] = {}
    lines = [csv_line(SCANS_COLUMNS)]
    if (folder / SCANS_FILE).exists() and not (folder / SCANS_FILE).read_bytes().startswith(lines[0]):
        raise ValueError(
            f"{folder / SCANS_FILE} is there already, and not from an earlier run of this command: it is not "
            "overwritten. Choose another folder, or remove it."
        )
    for number, scan in enumerate(scans, start=1):
        labels, error = "mask" if scan.mask else "pseudo-mask", ""
        try:
            prepared[scan.name] = prepared_case(scan, folder)
            log.info("%d/%d %s: %s", number, len(scans), scan.name, labels)
        except Exception as reason:  # whatever is wrong with one scan, the others can be used
            error = explain(reason)
            log.debug("%s failed", scan.path, exc_info=True)
            log.warning("%d/%d %s: left out: %s", number, len(scans), scan.name, error)
        names = (printable(scan.name), printable(str(scan.path)))
        lines.append(csv_line((*names, labels, int(scan.held_out), "failed" if error else "ok", error)))
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / SCANS_FILE, b"".join(lines))
    return prepared


def check_apart(training: Sequence[LungCase], held_out: Sequence[LungCase]) -> None:
    """Raise InputError if a scan that is held out is trained on as well, under another name or in another format."""
    tested = {digest([np.ascontiguousarray(case.hu).data]): case.name for case in held_out}
    for case in training:
        if same := tested and tested.get(digest([np.ascontiguousarray(case.hu).data])):
            raise InputError(
                f"expected to test on other scans than those trained on, found that {same} (held out) and {case.name} "
                "are the same scan. Hold out both, or remove one."
            )


def prepared_case(scan: LungScan, folder: Path) -> LungCase:
    """The case of a scan, kept under what it is made of, so that a changed file, mask or version makes another one."""
    for path in (scan.path, scan.mask):
        if path is not None and not path.exists():
            raise InputError(f"{path}: expected a scan or its mask, found no such file or folder. Check the path.")
    unsure = scan.unsure and (scan.unsure.start, scan.unsure.stop)
    key = _key(content_sha256(scan.path), scan.mask and content_sha256(scan.mask), unsure)
    case = cached_case(folder / f"{key}.safetensors", partial(read_case, scan.path, scan.mask, scan.unsure))
    return replace(case, name=scan.name)


def kept_phantom(seed: int, folder: Path) -> LungCase:
    """A phantom, as `phantom_case` makes it."""
    return cached_case(folder / f"{_key('phantom', seed)}.safetensors", partial(phantom_case, seed))


def _key(*facts: object) -> str:
    return hashlib.sha256(json.dumps([*facts, balaitous.__version__]).encode()).hexdigest()[:32]
