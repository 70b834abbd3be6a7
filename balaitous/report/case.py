"""The pages of a run: one a case, with its answer, pictures, checks and origin, and one that lists them all."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from balaitous.checks import Check
from balaitous.models import Model
from balaitous.report.page import (
    cell,
    document,
    figure,
    heading,
    note,
    notes,
    picture_cell,
    share_cell,
    table,
    table_of,
    use,
)
from balaitous.report.style import DISCLAIMER

PAGE = "index.html"
ORIGIN = {  # columns of every table: how they are told
    **{"path": "file", "input_sha256": "SHA-256 of it", "bundle": "weights", "bundle_sha256": "SHA-256 of them"},
    **{"version": "balaitous", "device": "device", "device_name": "processor", "precision": "precision"},
    **{"calibration": "calibration"},
}


@dataclass(frozen=True)
class Shown:
    """A picture that a model shows of a case.

    Attributes
    ----------
    file : its name, of a PNG
    title : what it is, in few words, as one who cannot see it hears it
    caption : what is seen, with units
    """

    file: str
    title: str
    caption: str


def case_page(
    folder: Path, model: Model, row: Mapping[str, Any], shown: Sequence[Shown], checks: Iterable[Check], use_of: str
) -> str:
    """The page of one case.

    Parameters
    ----------
    folder : where its pictures lie
    row : of the table
    shown : the pictures, in their order
    use_of : what the weights are good for
    """
    answers = ((cell(label), share_cell(row[f"probability_{name}"])) for name, label in model.outputs.items())
    own = ((name.replace("_", " "), told(row[name])) for name in model.columns if row[name] is not None)
    origin = ((label, told(row[name])) for name, label in ORIGIN.items() if row[name] is not None)
    parts = [
        note(f"{model.title[0].upper()}{model.title[1:]}."),
        *map(use, dict.fromkeys((DISCLAIMER, use_of, model.good_for))),  # what two of them say is said once
        table_of(("", "probability"), answers),
        *(figure(folder / each.file, each.title, each.caption) for each in shown),
        heading("Quality checks"),
        table(("", "found"), ((each.status, each.message) for each in checks)),
    ]
    if row["warnings"]:
        parts += [heading("Warnings"), notes(row["warnings"].split("; "))]
    parts += [heading("Facts"), table(("", ""), own), heading("Origin"), table(("", ""), origin), note(model.citation)]
    return document(str(row["PatientID"]), parts)


def run_page(model: Model, rows: Sequence[Mapping[str, Any]], folders: Sequence[str], thumbnails: Sequence[str]) -> str:
    """The page that lists the cases of a run.

    Parameters
    ----------
    rows : of the table
    folders : of each row, below that of the page; "" of one that has none
    thumbnails : of each row, as `thumbnail` makes them; "" of one that has none
    """
    failed = sum(row["status"] == "failed" for row in rows)
    lines = []
    for row, folder, small in zip(rows, folders, thumbnails, strict=True):
        page = f"{folder}/{PAGE}" if folder else ""
        line = [picture_cell(small, f"picture of {row['PatientID']}", page), cell(row["PatientID"], page)]
        if row["status"] == "failed":
            line += [cell(f"failed: {row['error']}", columns=len(model.outputs) + 2)]
        else:
            line += [share_cell(row[f"probability_{name}"]) for name in model.outputs]
            line += [cell(row["quality"] or "–"), cell(row["quality_notes"] or "")]
        lines.append(line)
    parts = [
        note(f"{model.title[0].upper()}{model.title[1:]}: {len(rows)} cases, {failed} of them failed."),
        use(),
        use(model.good_for),
        table_of(("", "PatientID", *model.outputs.values(), "quality", ""), lines),
    ]
    return document("Cases", parts)


def told(value: Any) -> str:
    """A value of a row, for people."""
    return f"{value:g}" if isinstance(value, float) else str(value)
