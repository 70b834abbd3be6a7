"""Which scans a command line means: files, DICOM folders, folders of scans, or a table of paths."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pydicom
from pydicom.errors import InvalidDicomError

from balaitous.ct.patient import Patient, resolve
from balaitous.ct.volume import IMAGE_SUFFIXES
from balaitous.errors import InputError

SCAN_ENDINGS = (*IMAGE_SUFFIXES, ".zip")


@dataclass(frozen=True)
class Scan:
    """One scan to predict; age and sex override what its header says."""

    path: Path
    age: float | None = None
    sex: float | str | None = None


def is_image_file(path: Path) -> bool:
    """Whether a file's ending is that of a scan."""
    return path.name.lower().endswith(SCAN_ENDINGS)


def list_scans(paths: Sequence[str | Path], age: float | None = None, sex: float | str | None = None) -> list[Scan]:
    """The scans behind the arguments, in order; folders are listed by name.

    Parameters
    ----------
    paths : image files, DICOM folders, folders of scans, or .csv files with columns ``path[,age,sex]``, whose relative
        paths start at the table's folder
    age, sex : for every scan; a table's own values go first

    Raises
    ------
    InputError : if a path does not exist or holds no scan
    """
    scans: list[Scan] = []
    for path in map(Path, paths):
        if not path.exists():
            raise InputError(
                f"no such file or folder: {path}. Expected an image file, a DICOM folder, a folder of scans or a .csv."
            )
        if path.suffix.lower() == ".csv":
            scans += read_scan_table(path, age, sex)
        elif path.is_dir():
            found = list(scans_in(path))
            if not found:
                raise InputError(
                    f"no scan in {path}: expected files that end in {', '.join(SCAN_ENDINGS)}, or DICOM files. "
                    "Check the path."
                )
            scans += [Scan(each, age, sex) for each in found]
        else:
            scans.append(Scan(path, age, sex))
    return scans


def read_scan_table(path: Path, age: float | None, sex: float | str | None) -> list[Scan]:
    """The scans of a .csv with columns ``path[,age,sex]``."""
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (ValueError, OSError) as error:
        raise InputError(f"{path} is not a readable CSV ({error}). Expected columns path[,age,sex].") from None
    if "path" not in table.columns:
        raise InputError(f"{path} has no column 'path' (found: {', '.join(table.columns)}). Expected path[,age,sex].")
    scans = []
    for number, row in enumerate(table.to_dict("records"), start=2):
        try:
            scan = Scan(path.parent / row["path"], float(row["age"]) if row.get("age") else age, row.get("sex") or sex)
            resolve(Patient(), scan.age, scan.sex)
        except ValueError as error:
            raise InputError(f"{path}, line {number}: {error} Correct age (years) or sex (M, F).") from None
        scans.append(scan)
    return scans


def scans_in(folder: Path) -> Iterator[Path]:
    """The scans of a folder and its sub-folders, by name: image files and folders that are one DICOM study."""
    if is_dicom_study(folder):
        yield folder
        return
    for each in sorted(folder.iterdir()):
        if each.is_dir():
            yield from scans_in(each)
        elif is_image_file(each):
            yield each


def is_dicom_study(folder: Path) -> bool:
    """Whether a folder, its sub-folders included, holds DICOM files of one study, and no image files."""
    studies = set()
    for parent, _, names in os.walk(folder):
        if any(is_image_file(Path(name)) for name in names):
            return False
        # one file speaks for the folder it lies in: thousands of headers need not be read twice
        studies.add(next(filter(None, (study_uid(Path(parent, name)) for name in sorted(names))), None))
    return len(studies - {None}) == 1


def study_uid(path: Path) -> str | None:
    """StudyInstanceUID of a DICOM image; None of any other file."""
    try:
        header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=["StudyInstanceUID", "SOPClassUID"])
    except (InvalidDicomError, OSError):
        return None
    return str(header.get("StudyInstanceUID", "")) or None
