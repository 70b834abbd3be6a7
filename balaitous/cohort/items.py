"""Which scans a command line means: files, DICOM folders, folders of scans, or a table of paths; local or addresses."""

from __future__ import annotations

import os
import posixpath
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from itertools import groupby
from pathlib import Path, PurePath, PurePosixPath

import fsspec
import pandas as pd
from pydicom.tag import Tag

from balaitous.cohort.addresses import is_url, reachable, shown
from balaitous.ct.dicom import read_header
from balaitous.errors import InputError
from balaitous.reading.headers import IMAGE_ENDINGS
from balaitous.reading.integrity import files_below
from balaitous.reading.patient import Patient, resolve

SCAN_ENDINGS = (*IMAGE_ENDINGS, ".zip")
STUDY_INSTANCE_UID = Tag("StudyInstanceUID")


@dataclass(frozen=True)
class Scan:
    """One scan to predict; age and sex override what its header says.

    Attributes
    ----------
    path : local, or an address for fsspec (``s3://bucket/scan.mha``), which stays text
    """

    path: Path | str
    age: float | None = None
    sex: float | str | None = None


def is_image_file(path: PurePath) -> bool:
    """Whether a file's ending is that of a scan."""
    return path.name.lower().endswith(SCAN_ENDINGS)


def list_scans(paths: Sequence[str | Path], age: float | None = None, sex: float | str | None = None) -> list[Scan]:
    """The scans behind the arguments, in order; folders are listed by name.

    Parameters
    ----------
    paths : image files, DICOM folders, folders of scans, or .csv files with columns ``path[,age,sex]``, whose relative
        paths start at the table's folder; each of them local or an address
    age, sex : for every scan; a table's own values go first

    Raises
    ------
    InputError : if a path does not exist or holds no scan
    """
    scans: list[Scan] = []
    for given in paths:
        path = given if is_url(given) else Path(given)
        if isinstance(path, Path) and not path.exists():
            raise InputError(
                f"no such file or folder: {path}. Expected an image file, a DICOM folder, a folder of scans or a .csv."
            )
        if shown(path).lower().endswith(".csv"):
            scans += read_scan_table(path, age, sex)
            continue
        if not isinstance(path, Path):
            found: Sequence[Path | str] = scans_at(path)
        else:
            found = list(scans_in(path)) if path.is_dir() else [path]
        if not found:
            raise InputError(
                f"no scan in {shown(path)}: expected files that end in {', '.join(SCAN_ENDINGS)}, or DICOM files. "
                "Check the path."
            )
        scans += [Scan(each, age, sex) for each in found]
    return scans


def read_scan_table(path: Path | str, age: float | None, sex: float | str | None) -> list[Scan]:
    """The scans of a .csv with columns ``path[,age,sex]``."""
    with reachable(str(path)) as (files, file):
        content = files.cat_file(file)
    try:
        table = pd.read_csv(BytesIO(content), dtype=str, keep_default_na=False)
    except ValueError as error:
        raise InputError(f"{shown(path)} is not a readable CSV ({error}). Expected columns path[,age,sex].") from None
    if "path" not in table.columns:
        found = ", ".join(table.columns)
        raise InputError(f"{shown(path)} has no column 'path' (found: {found}). Expected path[,age,sex].")
    scans = []
    for number, row in enumerate(table.to_dict("records"), start=2):
        try:
            each = row["path"] if is_url(row["path"]) else beside(path, row["path"])
            scan = Scan(each, float(row["age"]) if row.get("age") else age, row.get("sex") or sex)
            resolve(Patient(), scan.age, scan.sex)
        except ValueError as error:
            raise InputError(f"{shown(path)}, line {number}: {error} Correct age (years) or sex (M, F).") from None
        scans.append(scan)
    return scans


def beside(table: Path | str, path: str) -> Path | str:
    """A path as a table means it: a relative one starts where the table lies."""
    if isinstance(table, Path):
        return table.parent / path
    if os.path.isabs(path):
        return Path(path)
    protocol, _, file = table.partition("://")
    return f"{protocol}://{posixpath.normpath(posixpath.join(posixpath.dirname(file), path))}"  # stores know no ".."


def scans_at(url: str) -> list[str]:
    """The scans at an address: the file itself, or those of a folder and its sub-folders, by name.

    Headers are not opened, which would take hours over a network. So a folder that holds DICOM files and no image files
    is one scan, and the series of a study are one scan each if they lie in folders of their own. Files without ending
    (or with one of digits, as in a UID) are DICOM if the first of them in their folder is.

    Raises
    ------
    InputError : if there is nothing at the address, or no access
    """
    folders: dict[PurePosixPath, list[PurePosixPath]] = defaultdict(list)
    with reachable(url) as (files, root):
        if files.info(root)["type"] != "directory":
            return [url]
        for file in files.find(root):
            relative = PurePosixPath(file[len(root) :].lstrip("/"))
            folders[relative.parent].append(relative)
        found: list[PurePosixPath] = []
        for folder, members in folders.items():
            if images := [each for each in members if is_image_file(each)]:
                found += images
            elif holds_dicom(files, root, members):
                found.append(folder)
    base = url.rstrip("/")
    return [
        base if each == PurePosixPath() else f"{base}/{each}" for each in sorted(found, key=lambda each: each.parts)
    ]


def holds_dicom(files: fsspec.AbstractFileSystem, root: str, members: Sequence[PurePosixPath]) -> bool:
    """Whether the files of one folder are DICOM, by their names, else by the mark in the first without ending."""
    if any(each.suffix.lower() == ".dcm" for each in members):
        return True
    unnamed = sorted(each for each in members if not each.suffix or each.suffix[1:].isdigit())
    return bool(unnamed) and files.cat_file(f"{root}/{unnamed[0]}", start=128, end=132) == b"DICM"


def scans_in(folder: Path) -> Iterator[Path]:
    """The scans of a folder and its sub-folders, by name: image files and folders that are one DICOM study.

    Links are followed, but no folder is visited twice: links may lead back.
    """
    todo, visited = [folder], set()
    while todo:
        each = todo.pop()
        if not each.is_dir():
            if is_image_file(each):
                yield each
        elif (real := each.resolve()) not in visited:
            visited.add(real)
            if is_dicom_study(each):
                yield each
            else:
                todo += sorted(each.iterdir(), reverse=True)


def is_dicom_study(folder: Path) -> bool:
    """Whether a folder, its sub-folders included, holds DICOM files of one study, and no image files."""
    studies = set()
    for _, files in groupby(files_below(folder), key=lambda file: file.parent):
        names = sorted(files)
        if any(map(is_image_file, names)):
            return False
        # one file speaks for the folder it lies in: thousands of headers need not be read twice
        studies.add(next(filter(None, map(study_uid, names)), None))
    return len(studies - {None}) == 1


def study_uid(path: Path) -> str | None:
    """StudyInstanceUID of a DICOM image; None of any other file."""
    try:
        header = read_header(path, [STUDY_INSTANCE_UID])
        return str(header.get("StudyInstanceUID", "")) or None
    except Exception:  # pydicom lets a dozen types through for damaged headers; reading the scan will say so
        return None
