"""What ``predict --save DIR`` writes: a folder an item, there whole or not at all, and a page that lists them."""

from __future__ import annotations

import json
import re
import shutil
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from balaitous.cohort.items import Item
from balaitous.cohort.table import Prediction, Row, row_names, row_of
from balaitous.files import is_json_with, new_folder, remove_folder, write_whole
from balaitous.locks import FOLDER_LOCK, Lock
from balaitous.models import Model, imported
from balaitous.report.case import PAGE, case_page, run_page
from balaitous.report.page import is_ours, thumbnail

if TYPE_CHECKING:
    from balaitous.cohort.local import Predictor
    from balaitous.cohort.run import Run, SameRequest

RECORD = "case.json"  # what a folder of ours is known by
RECORD_KEYS = ("model", "path", "input_sha256", "bundle_sha256", "compared_with", "files", "thumbnail")
PARTIAL = re.compile(r"\..+\.[0-9a-f]{8}\.partial")  # of a run that was killed, see `balaitous.files`
LEFT_BY_SYSTEMS = {".DS_Store", "Thumbs.db", "desktop.ini"}
LONGEST_NAME = 200  # bytes; file systems take 255, some of which a folder needs while it is made
SMALL_PICTURE = re.compile(r"data:image/jpeg;base64,[A-Za-z0-9+/=]*")


@dataclass(frozen=True)
class Saver:
    """Writes the folder of an item, `Item.folder`.

    Attributes
    ----------
    model : whose row names what writes its pictures
    beside : the model with other weights, to compare with
    """

    model: Model
    beside: Predictor | None = None

    def __call__(self, prediction: Prediction, item: Item) -> None:
        """Write what can be shown of a prediction.

        Raises
        ------
        OSError : it names the folder
        """
        assert item.folder is not None
        row = row_of(item, prediction, self.model)
        try:
            with new_folder(item.folder) as folder:
                shown = imported(self.model.saving)(prediction, folder, self.beside)
                use_of = prediction.provenance.intended_use
                page = case_page(folder, self.model, row, shown, prediction.checks, use_of)
                (folder / PAGE).write_text(page, encoding="utf-8")
                record = {
                    "model": self.model.name,
                    **{name: row[name] for name in ("PatientID", "path", "input_sha256", "bundle_sha256", "version")},
                    "compared_with": self.beside.bundle.sha256 if self.beside else None,
                    "files": {each.name: each.stat().st_size for each in sorted(folder.iterdir())},
                    "thumbnail": thumbnail(folder / shown[0].file) if shown else "",
                }
                (folder / RECORD).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        except OSError as error:  # which may name a file that is gone by now
            raise OSError(error.errno, error.strerror or str(error), str(item.folder)) from error


class SavedFolders:
    """The folder of ``--save`` and those of the items in it: this run's alone until `finish`.

    Parameters
    ----------
    root : is made if it is not there; the folder that it lies in is
    resume : go on with what an earlier run saved there
    compared_with : SHA-256 of the bundle that stands beside; None without one
    own : other files that the run writes, which may lie there too
    read : what the run reads, which may not lie there, nor be a folder that holds this one

    Raises
    ------
    ValueError : other people's files lie there, or cases that are not to be resumed, or it is no place to write
    OSError : it cannot be written to
    """

    def __init__(
        self,
        root: Path,
        model: Model,
        resume: bool = False,
        compared_with: str | None = None,
        own: Iterable[Path | None] = (),
        read: Iterable[str | Path] = (),
    ) -> None:
        check_place(root, read)
        self.root, self.model, self.compared_with = root, model, compared_with
        check_nothing_else(root, {each.name for each in own if each and each.resolve().parent == root.resolve()})
        root.mkdir(exist_ok=True)
        self.lock = Lock(root)
        try:
            for each in root.iterdir():
                if PARTIAL.fullmatch(each.name) and each.is_dir():
                    shutil.rmtree(each)
            cases = sum(record_of(each) is not None for each in root.iterdir())
            if cases and not resume:
                raise ValueError(
                    f"{root} holds {cases} saved cases already. Add --resume to go on with them, or choose another "
                    "folder for --save."
                )
        except BaseException:
            self.lock.release()
            raise

    def is_whole(self, row: Row) -> bool:
        """Whether the folder of a row is here, of the same input and weights, with every file that was written."""
        return self.whole_name(row) != ""

    def whole_name(self, row: Row) -> str:
        """The name of a row's folder, if that is whole; else ""."""
        name = PurePath(row["saved"] or "").name
        record = None if name in ("", "..") else record_of(self.root / name)
        if record is None or any(record[each] != row[each] for each in ("input_sha256", "bundle_sha256")):
            return ""
        if (record["model"], record["compared_with"]) != (self.model.name, self.compared_with):
            return ""
        return name if all_there(self.root / name, record["files"]) else ""

    def and_whole(self, same_request: SameRequest | None) -> SameRequest:
        """What tells whether a row is done: the request is the same, and its folder whole."""
        return lambda path, given, row: self.is_whole(row) and (same_request is None or same_request(path, given, row))

    def assign(self, items: Sequence[Item], run: Run) -> list[Item]:
        """The items that are to do, each with its folder; rows that are done get to know where theirs is now.

        Names are those of the items, ``<name>``, ``<name>_2``, … in the order of the list. What an earlier run left of
        an item that is to do again is removed.
        """
        again = {row_names(item)["path"] for item in run.todo}
        stay = [row for row in run.others if row["path"] not in again]
        taken = {key_of(PAGE)} | {key_of(name) for row in stay if (name := self.whole_name(row))}
        for done in filter(None, run.rows):
            name = self.whole_name(done)
            done["saved"] = str(self.root / name)
            taken.add(key_of(name))
        todo: list[Item] = []
        for item, row in zip(items, run.rows, strict=True):
            if row is None:
                told = row_names(item)
                name = next(each for each in names_like(told["PatientID"]) if self.is_free(each, told["path"], taken))
                taken.add(key_of(name))
                if (self.root / name).exists():
                    remove_folder(self.root / name)
                todo.append(replace(item, folder=self.root / name))
        return todo

    def is_free(self, name: str, path: str, taken: set[str]) -> bool:
        """Whether a folder may have this name: nobody has it, or an earlier run of the same item."""
        if key_of(name) in taken:
            return False
        record = record_of(self.root / name)
        return not (self.root / name).exists() or (record is not None and record["path"] == path)

    def finish(self, rows: Sequence[Row]) -> Path:
        """Write the page that lists these rows, and let others write here.

        Returns
        -------
        the page
        """
        names = [self.whole_name(row) if row["status"] == "ok" else "" for row in rows]
        records = [(record_of(self.root / name) if name else None) or {"thumbnail": ""} for name in names]
        small = [each["thumbnail"] if SMALL_PICTURE.fullmatch(each["thumbnail"]) else "" for each in records]
        page = self.root / PAGE
        write_whole(page, run_page(self.model, rows, names, small).encode())
        self.lock.release()
        return page


def check_place(root: Path, read: Iterable[str | Path]) -> None:
    """Raise ValueError if it can be no folder, or lies among what is read: the next run would read its pictures."""
    if root.exists() and not root.is_dir():
        raise ValueError(f"--save must be a folder. Got {root}, which is a file.")
    place = root.resolve()
    if not place.parent.is_dir():
        raise ValueError(f"--save must lie in an existing folder. {place.parent} does not exist.")
    for each in map(Path, read):
        real = each.resolve()
        if real.is_relative_to(place) or (real.is_dir() and place.is_relative_to(real)):
            raise ValueError(
                f"--save must be a folder apart from what is read, else the next run reads its pictures. Got {root} "
                f"for {each}: choose another folder."
            )


def check_nothing_else(root: Path, own: Iterable[str]) -> None:
    """Raise ValueError if there is something in a folder that no earlier run with ``--save`` wrote there."""
    own = tuple(own)
    hidden = tuple(f".{name}." for name in own)
    for each in sorted(root.iterdir()) if root.exists() else ():
        ours = (
            each.name in (FOLDER_LOCK, *own, *LEFT_BY_SYSTEMS)
            or PARTIAL.fullmatch(each.name)
            or (hidden and each.name.startswith(hidden))
            or (each.name == PAGE and is_ours(each))
            or record_of(each) is not None
        )
        if not ours:
            raise ValueError(
                f"--save must be an empty folder, or that of an earlier run. Found {each}, which is of neither: choose "
                "another folder."
            )


def record_of(folder: Path) -> dict[str, Any] | None:
    """What a run wrote down of the folder of an item; None of a folder that is none."""
    record = folder / RECORD
    if not is_json_with(record, RECORD_KEYS):
        return None
    found = json.loads(record.read_bytes())
    kinds = {"files": dict, "thumbnail": str, "path": str}
    return found if all(isinstance(found[name], kind) for name, kind in kinds.items()) else None


def all_there(folder: Path, sizes: dict[str, Any]) -> bool:
    """Whether files of these names and sizes are in a folder."""
    try:
        return all((folder / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError):
        return False


def names_like(name: str) -> Iterator[str]:
    """The names that a folder for an item may have, the first that is free to be taken."""
    name = folder_name(name)
    yield name
    for number in count(2):
        yield f"{name}_{number}"


def folder_name(name: str) -> str:
    """A name as a folder's: of its first characters, never hidden, never the folder itself or the one above."""
    name = name.encode()[:LONGEST_NAME].decode(errors="ignore")
    return name if name and not name.startswith(".") else f"_{name}"


def key_of(name: str) -> str:
    """What two names have in common that are one on a system which knows no capitals, or composes letters."""
    return unicodedata.normalize("NFC", name).casefold()
