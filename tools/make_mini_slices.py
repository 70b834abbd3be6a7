"""How the bundle ``resources/mini-slices`` is made: with this package's own commands, from labelled pictures.

    python tools/make_mini_slices.py --data DATA --work WORK --out resources/mini-slices

DATA has the folders ``covid_ct_slices`` and ``sars_cov_2_ct_slices`` that resources/mini-slices/CARD.md names. Every
stage leaves what it made in WORK, so that a run that was interrupted goes on where it was. Every draw is seeded;
sums in another order on another processor still change the last digits.

Beside the bundle: the same recipe without the pictures that are related to the test split, and on the other source
alone. Their predictions are in WORK, for `balaitous evaluate`. The test split is predicted once, at the end.
"""

from __future__ import annotations

import argparse
import csv
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

log = logging.getLogger(__name__)

RECIPE = "mini-slices"
LICENCE = "research use only, not commercial (trained on COVID-CT: figures of papers without a stated licence)"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with the pictures")
    parser.add_argument("--work", type=Path, required=True, help="folder for what the stages leave")
    parser.add_argument("--out", type=Path, required=True, help="the bundle's folder; its CARD.md stays")
    parser.add_argument("--bundle-only", action="store_true", help="without the runs beside it")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    make_mini_slices(options.data.absolute(), options.work.absolute(), options.out.absolute(), options.bundle_only)


def make_mini_slices(data: Path, work: Path, out: Path, bundle_only: bool) -> None:
    """Run the stages that are not done yet, and put the bundle in its place."""
    work.mkdir(parents=True, exist_ok=True)
    split = {name: data / f"covid_ct_slices/{name}_meta.csv" for name in ("train", "val", "test")}
    named = ("--name", "mini-slices", "--licence", LICENCE)
    train(work / "mini-slices", ("--data", split["train"], "--validation", split["val"]), named)
    out.mkdir(parents=True, exist_ok=True)
    bundle = work / "mini-slices/bundle"
    for file in [*bundle.glob("*.safetensors"), bundle / "bundle.json"]:
        shutil.copy(file, out)
    predict(bundle, split["val"], work / "validation.csv")
    predict(bundle, split["test"], work / "test.csv")
    if bundle_only:
        return

    sars = write_sars(data, work)
    train(work / "apart", ("--data", split["train"], "--validation", split["val"], "--apart", split["test"]), named)
    predict(work / "apart/bundle", split["test"], work / "apart.csv")
    predict(bundle, sars["val"], work / "covid_ct_on_sars.csv")
    train(work / "sars", ("--data", sars["train"], "--validation", sars["val"]), named)
    predict(work / "sars/bundle", split["test"], work / "sars_on_covid_ct.csv")


def train(folder: Path, data: Sequence[object], named: Sequence[object]) -> None:
    """A training of the recipe, if it is not done."""
    if not (folder / "bundle/bundle.json").exists():
        command("train", "slices", "--recipe", RECIPE, *data, *named, "--out", folder)


def predict(bundle: Path, items: Path, table: Path) -> None:
    """The table of predictions, if it is not there."""
    if not table.exists():
        command(
            "predict",
            with_paths(items, table.with_suffix("")),
            "--model",
            "slices",
            "--weights",
            bundle,
            "--out",
            table,
        )


def with_paths(table: Path, folder: Path) -> Path:
    """A list for `predict` of a table whose pictures lie in ``images`` beside it, under the ending .png."""
    with table.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    if "imgname" not in rows[0]:
        return table
    images = table.parent / "images"
    paths = [(images / f"{row['imgname'].rpartition('.')[0]}.png",) for row in rows]
    return write_csv(folder.with_suffix(".list.csv"), ("path",), paths)


def write_sars(data: Path, work: Path) -> dict[str, Path]:
    """SARS-CoV-2 slices as tables; every fifth file for validation: its patients are not known."""
    files = sorted((data / "sars_cov_2_ct_slices").glob("*/*"))
    rows = [(file, int(file.parent.name == "COVID"), "sars_cov_2") for file in files]
    parts = {"train": [row for i, row in enumerate(rows) if i % 5], "val": rows[::5]}
    return {
        name: write_csv(work / f"sars_{name}.csv", ("path", "covid", "source"), part) for name, part in parts.items()
    }


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *rows])
    return path


def command(*words: object) -> None:
    """A command of this package; an error ends this one too."""
    line = [sys.executable, "-m", "balaitous", *map(str, words)]
    log.info("%s", " ".join(line[2:]))
    subprocess.run(line, check=True, env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])})


if __name__ == "__main__":
    main()
