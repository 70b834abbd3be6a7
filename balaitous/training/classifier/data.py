"""Pictures with labels, from tables; which of them belong together; which look alike."""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from balaitous.cohort.table import csv_line
from balaitous.errors import InputError, explain, first_few
from balaitous.evaluation.tasks import patient_of, read_csv, repeated
from balaitous.files import write_whole
from balaitous.reading.pictures import PICTURE_ENDINGS, Picture, read_picture
from balaitous.text import from_cell, printable

log = logging.getLogger(__name__)

PATH_COLUMNS = ("path", "file", "imgname")
GROUP_COLUMNS = ("group", "patient")
UNNAMED = ("first without a name", "second without a name")  # the published table of positives has these two
FOLDERS = ("", "images")  # beside a table, where its pictures may lie
ALIKE_CORRELATION = 0.95  # of two pictures at `ALIKE_SIDE`²: the same slice, cut or scaled a little otherwise
ALIKE_SIDE = 32
USED_FILE = "pictures.csv"


@dataclass(frozen=True)
class LabelledPicture:
    """A picture, and what is known of it.

    Attributes
    ----------
    name : as its table calls it
    path : of its file
    labels : of each output: 1 there, 0 not, NaN not known
    group : pictures of one are never on both sides of a split
    source : where it is from
    split : what its table says of its use; "" where it says nothing
    """

    name: str
    path: Path
    labels: tuple[float, ...]
    group: str
    source: str
    split: str = ""


@dataclass(frozen=True)
class TableFormat:
    """How tables name outputs, and what groups pictures where they do not say.

    Attributes
    ----------
    outputs : names, in order
    output_of : the output that a column is of; None of another column
    finding_of : what a cell says of an output; ValueError if it says nothing that is known
    is_known : whether an empty cell of a table with these columns means 0; else it is not known
    group_of : of a picture by its file's name
    """

    outputs: tuple[str, ...]
    output_of: Callable[[str], str | None]
    finding_of: Callable[[str, str], float]
    is_known: Callable[[Sequence[str]], bool]
    group_of: Callable[[str], str]


@dataclass(frozen=True)
class Pictures:
    """Pictures at the size that a network sees, with what is known of them.

    Attributes
    ----------
    listed : what each is
    grey : (N, H, W) uint8, 0 black … 255 white
    labels : (N, outputs) float32 of 0, 1, NaN
    """

    listed: Sequence[LabelledPicture]
    grey: NDArray[np.uint8]
    labels: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.listed)

    @property
    def digest(self) -> str:
        """What they are known by: the start of the SHA-256 of all that a training sees of them."""
        facts = repr([(each.labels, each.source) for each in self.listed]).encode()
        return hashlib.sha256(np.ascontiguousarray(self.grey).data.tobytes() + facts).hexdigest()[:32]

    def subset(self, chosen: NDArray) -> Pictures:
        """Those of these indices."""
        return Pictures([self.listed[int(i)] for i in chosen], self.grey[chosen], self.labels[chosen])


# --- tables -----------------------------------------------------------------------------------------------------------


def read_tables(paths: Sequence[Path], form: TableFormat) -> list[LabelledPicture]:
    """The pictures of tables, in order.

    Raises
    ------
    InputError : as `read_table`, or a picture is listed twice
    """
    pictures = [each for path in paths for each in read_table(path, form)]
    if twice := repeated(str(each.path) for each in pictures):
        raise InputError(f"expected every picture once, found twice or more: {first_few(twice)}. Remove lines.")
    return pictures


def read_table(path: Path, form: TableFormat) -> list[LabelledPicture]:
    """The pictures of a .csv.

    Its columns: the picture (``path``, ``file`` or ``imgname``, or the first one without a name), from the table's
    folder or ``images`` in it; those of outputs; where it has them ``patient`` or ``group``, ``source``, ``split``.

    Raises
    ------
    InputError : no such table, no column of pictures or of outputs, an output twice, no such picture, or a cell that
        says nothing that is known: with the line
    """
    table = read_csv(path, (), unnamed=UNNAMED)
    names = {column: str(column).strip().lower() for column in table.columns}
    by_name = {name: column for column, name in names.items()}
    at = next((by_name[name] for name in (*PATH_COLUMNS, UNNAMED[0]) if name in by_name), None)
    columns = {column: output for column in table.columns if (output := form.output_of(str(column)))}
    found = ", ".join(map(str, table.columns)) or "none"
    if at is None or not columns:
        what = f"a column of pictures ({', '.join(PATH_COLUMNS)}) and columns of outputs ({', '.join(form.outputs)})"
        raise InputError(f"{path}: expected {what}, found {found}.")
    if twice := [output for output, count in Counter(columns.values()).items() if count > 1]:
        raise InputError(f"{path}: expected one column for each output, found several for {first_few(twice)}.")
    group = next((by_name[name] for name in (*GROUP_COLUMNS, UNNAMED[1]) if name in by_name), None)
    known = form.is_known([str(column) for column in columns])
    pictures = []
    for number, row in zip(table.index, table.to_dict("records"), strict=True):
        try:
            file = picture_file(path.parent, from_cell(row[at]))
            said = dict.fromkeys(form.outputs, 0.0 if known else float("nan"))
            for column, output in columns.items():
                if known or row[column].strip():
                    said[output] = form.finding_of(row[column], output)
        except (ValueError, InputError) as error:
            raise InputError(f"{path}, line {number}: {error}") from None
        pictures.append(
            LabelledPicture(
                name=file.name,
                path=file,
                labels=tuple(said.values()),
                group=(patient_of(row[group]) if group else "") or form.group_of(file.name),
                source=row[by_name["source"]].strip() if "source" in by_name else path.parent.name,
                split=row[by_name["split"]].strip() if "split" in by_name else "",
            )
        )
    if not pictures:
        raise InputError(f"{path}: expected a line for every picture, found none.")
    return pictures


def picture_file(folder: Path, name: str) -> Path:
    """The file of a picture that a table names, whose ending may be missing or another one.

    Raises
    ------
    InputError : there is none
    """
    name = name.strip()
    if not name:
        raise InputError("expected the name of a picture, found nothing.")
    for below in FOLDERS:
        if (exact := folder / below / name).is_file():
            return exact
    stem = name[: -len(ending)] if (ending := Path(name).suffix.lower()) in PICTURE_ENDINGS else name
    for below in FOLDERS:
        for ending in PICTURE_ENDINGS:
            if (other := folder / below / f"{stem}{ending}").is_file():
                return other
    raise InputError(f"expected the picture {name} in {folder} or its folder images, found no such file.")


# --- pictures ---------------------------------------------------------------------------------------------------------


def load_pictures(
    listed: Sequence[LabelledPicture], size: tuple[int, int], grey_of: Callable[[Picture], NDArray], out: Path
) -> Pictures:
    """Read pictures at a size; those that cannot be used are left out, and named in the log and in ``pictures.csv``.

    Parameters
    ----------
    size : rows, columns
    grey_of : (Y, X) in [0, 1] of a picture, as the model sees it; an error leaves the picture out
    out : the folder of ``pictures.csv``

    Raises
    ------
    InputError : none is left
    """
    from balaitous.networks.classifier import resized

    kept, grey, rows = [], [], []
    for each in listed:
        error = ""
        try:
            small = resized(grey_of(read_picture(each.path)), size).clamp(0, 1)
            grey.append(np.round(255 * small.numpy()).astype(np.uint8))
            kept.append(each)
        except Exception as reason:  # whatever is wrong with one, the others can be used
            error = explain(reason)
            log.warning("%s: left out: %s", each.path, error)
        facts = {"path": str(each.path), "group": each.group, "source": each.source, "split": each.split}
        rows.append({**facts, "status": "failed" if error else "ok", "error": error})
    out.mkdir(parents=True, exist_ok=True)
    write_whole(out / USED_FILE, csv_of(rows))
    if not kept:
        raise InputError(f"expected at least one picture, found none among {len(listed)}. Why is in {out / USED_FILE}.")
    return Pictures(kept, np.stack(grey), np.array([each.labels for each in kept], np.float32))


def csv_of(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Rows with the same columns, at least one, as a CSV; every text on one line."""
    texts = ([printable(each) if isinstance(each, str) else each for each in row.values()] for row in rows)
    return csv_line(rows[0]) + b"".join(map(csv_line, texts))


def without_relatives(pictures: Pictures, others: Pictures) -> tuple[Pictures, list[str]]:
    """Those that share no group with others, and look like none of them; and the names of those left out."""
    groups = {each.group for each in others.listed}
    alike = correlations(pictures.grey, others.grey).max(axis=1) > ALIKE_CORRELATION
    related = np.array([each.group in groups for each in pictures.listed]) | alike
    return pictures.subset(np.flatnonzero(~related)), [pictures.listed[int(i)].name for i in np.flatnonzero(related)]


def correlations(pictures: NDArray[np.uint8], others: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Pearson's r of every two pictures (N, H, W) and (M, H, W) at `ALIKE_SIDE`²; (N, M)."""
    one, other = (_small(each) for each in (pictures, others))
    return one @ other.T


def _small(pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
    import torch
    import torch.nn.functional as F

    small = F.interpolate(torch.from_numpy(pictures).float()[:, None], (ALIKE_SIDE, ALIKE_SIDE), mode="area").numpy()
    flat = small.reshape(len(pictures), -1)
    flat = flat - flat.mean(axis=1, keepdims=True)
    return flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-6)


def folds_of(pictures: Pictures, by: str, count: int) -> list[NDArray[np.bool_]]:
    """Which pictures are held out in each fold; those of one group are together.

    Parameters
    ----------
    by : "patient": groups, in `count` folds of about the same size; "source": a fold a source

    Raises
    ------
    ValueError : unknown, or too few groups or sources
    """
    if by not in ("patient", "source"):
        raise ValueError(f"folds must be patient or source. Got {by!r} instead.")
    keys = [each.group if by == "patient" else each.source for each in pictures.listed]
    sizes = Counter(keys)
    count = len(sizes) if by == "source" else min(count, len(sizes))
    if count < 2:
        raise ValueError(f"folds by {by} need at least two of them. Got {len(sizes)}.")
    totals, fold_of = [0] * count, {}
    for key, size in sorted(sizes.items(), key=lambda pair: (-pair[1], pair[0])):  # the largest first, to the emptiest
        fold_of[key] = int(np.argmin(totals))
        totals[fold_of[key]] += size
    return [np.array([fold_of[key] == fold for key in keys]) for fold in range(count)]


def of_split(pictures: Sequence[LabelledPicture], names: Mapping[str, str]) -> dict[str, list[LabelledPicture]]:
    """Pictures by what their tables say of their use; one that says nothing is trained on."""
    split: dict[str, list[LabelledPicture]] = {}
    for each in pictures:
        use = names.get(each.split.lower())
        if use is None:
            raise InputError(f"{each.path}: split must be one of {', '.join(filter(None, names))}. Got {each.split!r}.")
        split.setdefault(use, []).append(replace(each, split=use))
    return split
