"""Which inputs a command line means: files, DICOM folders, folders of them, or a table of paths; local or addresses."""

from __future__ import annotations

import logging
import os
import posixpath
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path, PurePath, PurePosixPath
from typing import TYPE_CHECKING, Any

from pydicom.errors import InvalidDicomError

from balaitous.cohort.addresses import is_url, reachable, redacted
from balaitous.cohort.zips import pictures_in
from balaitous.errors import InputError, first_few, reason_of
from balaitous.reading.csv_files import bytes_of, parse_csv
from balaitous.reading.dicom.files import START_BYTES, to_elements
from balaitous.reading.dicom.studies import Tree, tree_of
from balaitous.reading.headers import IMAGE_ENDINGS
from balaitous.reading.integrity import is_litter
from balaitous.reading.patient import Patient, age_told, parse_age, resolve, sex_told
from balaitous.reading.pictures import DICOM_ENDINGS, PICTURE_ENDINGS
from balaitous.text import from_cell

if TYPE_CHECKING:
    import fsspec

    from balaitous.models import Model

log = logging.getLogger(__name__)

DICOM_NAMES = (*DICOM_ENDINGS, ".ima")  # of files behind an address
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
        rule=f"a picture: a file ({', '.join(PICTURE_ENDINGS)}), or one frame of DICOM ({', '.join(DICOM_ENDINGS)}); "
        "a .zip of pictures is a folder of them",
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
            files = list(items_in(path, model.reads)) if path.is_dir() else [path]
            found = [each for file in files for each in pictures_in(file, model.reads)]
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
    `LIST_COLUMNS` and the model's outputs; any other is named in a warning. Lines that hold nothing are left out.

    Raises
    ------
    InputError : it cannot be read, is no table as `parse_csv` has it, or a line names no input or an age or a sex that
        is none
    """
    name, expected = redacted(path), ", ".join(("path", *model.given))
    known = {*LIST_COLUMNS, *model.given, *model.outputs}
    table = parse_csv(content_of(path), name, known, SAME_COLUMNS)
    if "path" not in table.columns:
        found = ", ".join(each for each in table.columns if each)
        raise InputError(f"{name} has no column 'path' (found: {found}). Expected {expected}.")
    if unused := table.unused(known):
        log.warning("%s: columns that are not used: %s (known: %s)", name, ", ".join(unused), expected)
    items = []
    for number, row in zip(table.lines, table.rows, strict=True):
        stated = from_cell(row["path"])
        if not stated:
            raise InputError(
                f"{name}, line {number}: expected the path of a {what_of(model.reads)}, found none. Add it."
            )
        facts = {each: fact(each, row[each]) for each in model.given if row.get(each)}
        own = {each: value for each, value in facts.items() if value is not None}
        if "age" in facts and parse_age(row["age"]) == 0:
            log.warning("%s, line %d: an age of 0 counts as unknown; give --age 0 for a newborn", name, number)
        try:
            resolve(Patient(), own.get("age"), own.get("sex"))
        except ValueError as error:
            raise InputError(f"{name}, line {number}: {error} Correct age (years) or sex (M, F).") from None
        if "age" in own:
            own["age"] = parse_age(own["age"])
        each = stated if is_url(stated) else beside(path, stated)
        group = row.get(model.grouped_by, "") if model.grouped_by else ""
        items.append(Item(each, {**given, **own}, group))
    return items


def content_of(path: Path | str) -> bytes:
    """The bytes of a file, local or behind an address."""
    if isinstance(path, str):
        with reachable(path) as (files, file):
            return files.cat_file(file)
    try:
        return bytes_of(path)
    except OSError as error:
        raise InputError(f"{path}: expected a .csv of scans, cannot read it ({reason_of(error)}). Check it.") from None


def fact(name: str, text: str) -> Any:
    """What a cell says of an item; None where it says that it is unknown."""
    return {"age": age_told, "sex": sex_told}.get(name, str)(text)


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

    Headers are not opened, which would take hours over a network. So a folder that holds DICOM files is one scan, and
    the series of a study are one scan each if they lie in folders of their own. Files without ending (or with one of
    digits, as in a UID) are DICOM if the first of them in their folder is. Litter is left out.

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
            if not any(map(is_litter, relative.parts)):
                folders[relative.parent].append(relative)
        found: list[PurePosixPath] = []
        for folder, members in folders.items():
            found += [each for each in members if is_item_file(each, reads)]
            if any(KINDS[kind].folders for kind in reads) and holds_dicom(files, root, members):
                found.append(folder)
    base = url.rstrip("/")
    return [
        base if each == PurePosixPath() else f"{base}/{each}" for each in sorted(found, key=lambda each: each.parts)
    ]


def holds_dicom(files: fsspec.AbstractFileSystem, root: str, members: Sequence[PurePosixPath]) -> bool:
    """Whether the files of one folder are DICOM, by their names, else by the start of the first without ending."""
    if any(each.suffix.lower() in DICOM_NAMES for each in members):
        return True
    unnamed = sorted(each for each in members if not each.suffix or each.suffix[1:].isdigit())
    try:
        to_elements(BytesIO(files.cat_file(f"{root}/{unnamed[0]}", start=0, end=START_BYTES) if unnamed else b""))
    except InvalidDicomError:
        return False
    return True


def items_in(folder: Path, reads: Sequence[str]) -> Iterator[Path]:
    """The inputs of a folder and its sub-folders, by name: files, and folders that are one DICOM study.

    Links are followed, but no folder is visited twice: links may lead back. Litter is left out.
    """
    dicom = any(KINDS[kind].folders for kind in reads)
    todo: list[tuple[Path, Tree | None]] = [(folder, None)]
    visited = set()
    while todo:
        each, tree = todo.pop()
        if not each.is_dir():
            if is_item_file(each, reads):
                yield each
        elif (real := each.resolve()) not in visited:
            visited.add(real)
            if dicom and (tree is None or each.is_symlink()):
                tree = tree_of(each, lambda file: is_item_file(file, reads))
                for group in tree.divided(each):
                    log.warning(
                        "%s: a scan each, as they name one study, but no common series or frame of reference: %s",
                        each,
                        first_few([str(below.relative_to(each)) for below in group]),
                    )
            if tree and tree.is_scan(each):
                yield each
                if tree.is_whole(each):
                    yield from sorted(tree.files[each])
                    continue
            todo += [(below, tree) for below in sorted(each.iterdir(), reverse=True) if not is_litter(below.name)]
