"""Rows of models with several outputs, and tables of what they would say: nothing of them but the row is needed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import expit, softmax

from balaitous.models import Model


def row(name: str, outputs: dict[str, str]) -> Model:
    return Model(name, "tests", ("picture",), outputs, bundles=(name,), where="nowhere:Nothing")


FINDER = row("finder", {"sick": "sick", "round": "round spot", "pale": "pale spot"})  # spots are found in the sick
SORTER = row("sorter", {"cat": "a cat", "dog": "a dog", "cow": "a cow"})  # each is one of these
ITEMS = 120


def write_findings(folder: Path, noise: float = 1.0, name: str = "found.csv") -> tuple[Path, Path]:
    """A table of the finder, and its reference by path: two items a patient, two sources; pale spots are in few."""
    drawn = np.random.default_rng(0).normal(size=(ITEMS, 3)) * noise
    number = np.arange(ITEMS)
    truth = np.stack([number % 2, (number % 2) & (number % 3 == 0), (number % 2) & (number % 40 == 1)], axis=1)
    probability = expit(2 * truth - 1 + drawn)
    table = pd.DataFrame({"PatientID": number, "path": [f"/data/{each % 2}/{each}.png" for each in number]})
    for column, output in enumerate(FINDER.outputs):
        table[f"probability_{output}"] = probability[:, column]
    table["status"], table["bundle"], table["bundle_sha256"] = "ok", "b", "ab" * 32
    table.to_csv(folder / name, index=False)
    reference = pd.DataFrame({"path": [f"{each % 2}/{each}.png" for each in number]})
    for column, output in enumerate(FINDER.outputs):
        reference[output] = truth[:, column].astype(str)
    reference.loc[5, "round"] = ""
    reference["patient"], reference["source"] = number // 2, np.where(number < 70, "here", "there")
    reference.to_csv(folder / "reference.csv", index=False)
    return folder / name, folder / "reference.csv"


def write_classes(folder: Path) -> tuple[Path, Path]:
    """A table of the sorter, its logits twice what they should be, and its reference with labels, one of them empty."""
    generator = np.random.default_rng(0)
    logits = generator.normal(size=(ITEMS, 3)) * 1.5
    label = np.array([generator.choice(3, p=softmax(each)) for each in logits])
    table = pd.DataFrame({"PatientID": np.arange(ITEMS)})
    for column, output in enumerate(SORTER.outputs):
        table[f"probability_{output}"] = softmax(2 * logits, axis=1)[:, column]
    table.to_csv(folder / "sorted.csv", index=False)
    names = np.array([*SORTER.outputs])[label].astype(object)
    names[7], names[8] = "", SORTER.outputs[names[8]].upper()
    pd.DataFrame({"PatientID": np.arange(ITEMS), "label": names}).to_csv(folder / "labels.csv", index=False)
    return folder / "sorted.csv", folder / "labels.csv"
