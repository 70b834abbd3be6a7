"""Which inputs a command line means: files, DICOM folders, folders of them, or a table of paths; local or addresses."""

from __future__ import annotations

import logging
import os
import posixpath
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from itertools import groupby
from pathlib import Path, PurePath, PurePosixPath
from typing import TYPE_CHECKING, Any

from pydicom.tag import Tag

from balaitous.cohort.addresses import is_url, reachable, redacted
from balaitous.ct.dicom import read_header
from balaitous.errors import InputError
from balaitous.reading.headers import IMAGE_ENDINGS
from balaitous.reading.integrity import files_below
from balaitous.reading.patient import Patient, resolve
from balaitous.reading.pictures import DICOM_ENDINGS, PICTURE_ENDINGS

if TYPE_CHECKING:
    import fsspec

    from balaitous.models import Model

log = logging.getLogger(__name__)

STUDY_INSTANCE_UID = Tag("StudyInstanceUID")
SAME_COLUMNS = {"file": "path", "imgname": "path", "gender": "sex"}  # other people's names of ours
LIST_COLUMNS = ("path", "patient", "exam", "source", "split", "label")  # of every list; then one an output


@dataclass(frozen=True)
class Kind:
    """A kind of input.

    Attributes
    ----------
    what : for people
    endings : of single files
    folders : whether a folder with DICOM files of one study is one input
    rule : what is one, for people
    """

    what: str
    endings: tuple[str, ...]
    folders: bool
    rule: str


KINDS: Mapping[str, Kind] = {
    "ct": Kind(
        "scan",
        (*IMAGE_ENDINGS, ".zip"),
        folders=True,
        rule=f"a CT volume: a file ({', '.join(IMAGE_ENDINGS)}), the DICOM folder of one study, or a .zip of it",
    ),
    "picture": Kind(
        "picture",
        (*PICTURE_ENDINGS, *DICOM_ENDINGS),
        folders=False,
        rule=f"a picture: a file ({', '.join(PICTURE_ENDINGS)}), or one frame of DICOM ({', '.join(DICOM_ENDINGS)})",
    ),
}


@dataclass(frozen=True)
class Item:
    """One input to predict.

    Attributes
    ----------
    path : local, or an address for fsspec (``s3://bucket/scan.mha``), which stays text
    given : what overrides the facts in its header, by the names of `Model.given`
    group : what its list says in the column `Model.grouped_by`; "" where it says nothing
    folder : where what can be shown of it is saved; None: nowhere
    """

    path: Path | str
    given: Mapping[str, Any] = field(default_factory=dict)
    group: str = ""
    folder: Path | None = None

    @property
    def name(self) -> str:
        """The PatientID of tables: of its file without ending, of its folder."""
        path = Path(os.path.abspath(redacted(self.path)))
        endings = (ending for kind in KINDS.values() for ending in kind.endings)
        ending = next((each for each in endings if path.name.lower().endswith(each)), "")
        return path.name if path.is_dir() else path.name[: len(path.name) - len(ending)]


def what_of(reads: Sequence[str]) -> str:
    """What a model reads, for people."""
    return " or ".join(KINDS[kind].what for kind in reads)


def is_item_file(path: PurePath, reads: Sequence[str]) -> bool:
    """Whether a file's ending is that of one of these kinds."""
    return path.name.lower().endswith(tuple(ending for kind in reads for ending in KINDS[kind].endings))


def list_items(paths: Sequence[str | Path], model: Model, given: Mapping[str, Any] | None = None) -> list[Item]:
    """The inputs of a model behind the arguments, in order; folders are listed by name.

    Parameters
    ----------
    paths : files, DICOM folders, folders of these, or .csv files with a column ``path`` and others as `read_list` takes
        them, whose relative paths start at the table's folder; each of them local or an address
    given : facts of every item, by the names of `Model.given`; a table's own values go first

    Raises
    ------
    InputError : if a path does not exist or holds nothing that the model reads
    """
    given = {name: value for name, value in (given or {}).items() if value is not None}
    items: list[Item] = []
    for each in paths:
        path = each if is_url(each) else Path(each)
        if isinstance(path, Path) and not path.exists():
            raise InputError(
                f"no such file or folder: {path}. Expected a {what_of(model.reads)}, a folder of them or a .csv."
            )
        if redacted(path).lower().endswith(".csv"):
            items += read_list(path, model, given)
            continue
        if not isinstance(path, Path):
            found: Sequence[Path | str] = items_at(path, model.reads)
        else:
            found = list(items_in(path, model.reads)) if path.is_dir() else [path]
        if not found:
            endings = ", ".join(ending for kind in model.reads for ending in KINDS[kind].endings)
            raise InputError(
                f"no {what_of(model.reads)} in {redacted(path)}: expected files that end in {endings}, or DICOM files. "
                "Check the path."
            )
        items += [Item(each, given) for each in found]
    return items


def read_list(path: Path | str, model: Model, given: Mapping[str, Any]) -> list[Item]:
    """The items of a .csv: a column ``path`` (or ``file``, ``imgname``), and one for each fact of `Model.given`.

    Names of columns are read in any case and with spaces around them. Columns that a list may have besides are
    `LIST_COLUMNS` and the model's outputs; any other is named in a warning.
    """
    import pandas as pd  # takes a while, which single items do without

    expected = ", ".join(("path", *model.given))
    with reachable(str(path)) as (files, file):
        content = files.cat_file(file)
    try:
        table = pd.read_csv(BytesIO(content), dtype=str, keep_default_na=False)
    except ValueError as error:
        raise InputError(
            f"{redacted(path)} is not a readable CSV ({error}). Expected columns path[,age,sex]."
        ) from None
    read = {str(name): str(name).strip().lower() for name in table.columns}
    names = {name: SAME_COLUMNS.get(own, own) for name, own in read.items()}
    if "path" not in names.values():
        raise InputError(f"{redacted(path)} has no column 'path' (found: {', '.join(names)}). Expected {expected}.")
    if twice := {name for name in names.values() if list(names.values()).count(name) > 1}:
        raise InputError(f"{redacted(path)} has several columns for {', '.join(sorted(twice))}. Keep one of each.")
    known = {*LIST_COLUMNS, *model.given, *model.outputs}
    if unknown := [own for own, name in names.items() if name not in known]:
        log.warning("%s: columns that are not used: %s (known: %s)", redacted(path), ", ".join(unknown), expected)
    items = []
    for number, row in enumerate(table.rename(columns=names).to_dict("records"), start=2):
        try:
            each = row["path"] if is_url(row["path"]) else beside(path, row["path"])
            own = {name: fact(name, row[name]) for name in model.given if row.get(name)}
            resolve(Patient(), own.get("age"), own.get("sex"))
        except ValueError as error:
            raise InputError(f"{redacted(path)}, line {number}: {error} Correct age (years) or sex (M, F).") from None
        group = row.get(model.grouped_by, "").strip() if model.grouped_by else ""
        items.append(Item(each, {**given, **own}, group))
    return items


def fact(name: str, text: str) -> float | str:
    """What a cell says of an item."""
    return float(text) if name == "age" else text


def beside(table: Path | str, path: str) -> Path | str:
    """A path as a table means it: a relative one starts where the table lies."""
    if isinstance(table, Path):
        return table.parent / path
    if os.path.isabs(path):
        return Path(path)
    protocol, _, file = table.partition("://")
    return f"{protocol}://{posixpath.normpath(posixpath.join(posixpath.dirname(file), path))}"  # stores know no ".."


def items_at(url: str, reads: Sequence[str]) -> list[str]:
    """The inputs at an address: the file itself, or those of a folder and its sub-folders, by name.

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
            if single := [each for each in members if is_item_file(each, reads)]:
                found += single
            elif any(KINDS[kind].folders for kind in reads) and holds_dicom(files, root, members):
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


def items_in(folder: Path, reads: Sequence[str]) -> Iterator[Path]:
    """The inputs of a folder and its sub-folders, by name: files, and folders that are one DICOM study.

    Links are followed, but no folder is visited twice: links may lead back.
    """
    todo, visited = [folder], set()
    while todo:
        each = todo.pop()
        if not each.is_dir():
            if is_item_file(each, reads):
                yield each
        elif (real := each.resolve()) not in visited:
            visited.add(real)
            if any(KINDS[kind].folders for kind in reads) and is_dicom_study(each):
                yield each
            else:
                todo += sorted(each.iterdir(), reverse=True)


def is_dicom_study(folder: Path) -> bool:
    """Whether a folder, its sub-folders included, holds DICOM files of one study, and no image files."""
    studies = set()
    for _, files in groupby(files_below(folder), key=lambda file: file.parent):
        names = sorted(files)
        if any(is_item_file(name, ("ct",)) for name in names):
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
