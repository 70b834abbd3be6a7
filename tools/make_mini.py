"""How the bundle ``resources/mini`` is made: with this package's own commands, from real scans and phantoms.

    python tools/make_mini.py --data DATA --work WORK --out resources/mini

DATA has the folders ``ct``, ``covid_ct_slices`` and ``sars_cov_2_ct_slices`` that resources/mini/CARD.md names. Every
stage leaves what it made in WORK, so that a run that was interrupted goes on where it was. On two CPU cores it takes
about four hours. Every draw is seeded; sums in another order on another processor still change the last digits.
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

# --- lungs: file → its mask; None: a pseudo-mask ----------------------------------------------------------------------
LUNG_SCANS = {
    "lowres_id001.nii.gz": "lowres_id001_lungmask.nii.gz",
    "lowres_id002.nii.gz": "lowres_id002_lungmask.nii.gz",
    "lowres_id003.nii.gz": "lowres_id003_lungmask.nii.gz",
    "covid_P001_5mm.mha": None,
    "normal_001_5mm.mha": None,
    "lungdx_A0001_native.mha": None,
    "cmbcrc_MSB01068_5mm.mha": None,
}
LUNGS_HELD_OUT = ("lowres_id003.nii.gz",)  # and cap_001, which has no mask to compare with and is in no list at all
UNSURE = {"lungdx_A0001_native.mha": "41-52"}  # slices whose pseudo-mask was looked at and found wrong
LUNGS = ("--phantoms", 40, "--steps", 1400, "--batch", 8, "--learning-rate", 2e-3, "--variants", 4, "--width", 16)

# --- cohorts: lungs that patients with synthetic disease are made of; those of P001 and cap_001 are diseased themselves
HOSTS = ("lowres_id001.nii.gz", "lowres_id002.nii.gz", "normal_001_5mm.mha", "lungdx_A0001_native.mha")
HOSTS_HELD_OUT = ("cmbcrc_MSB01068_5mm.mha", "lowres_id003.nii.gz")
COHORTS = {"encoders": (160, 1, HOSTS), "heads": (240, 2, HOSTS), "held_out": (160, 3, HOSTS_HELD_OUT)}  # scans, seed

BLOCKS = {"full": 4, "lung": 4}  # that run
LICENCE = (
    "research use only, not commercial (trained on COVID-CT-MD samples, COVID-CT slices and low-resolution CTs without "
    "a stated licence, on SARS-CoV-2 CT slices under CC BY-NC-SA 4.0, and on CC BY 4.0 scans of TCIA)"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with the scans and slices")
    parser.add_argument("--work", type=Path, required=True, help="folder for what the stages leave")
    parser.add_argument("--out", type=Path, required=True, help="the bundle's folder; its CARD.md stays")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    make_mini(options.data.absolute(), options.work.absolute(), options.out.absolute())


def make_mini(data: Path, work: Path, out: Path) -> None:
    """Run the stages that are not done yet, and put the bundle in its place."""
    work.mkdir(parents=True, exist_ok=True)
    ct = data / "ct"
    write_lists(data, work)

    if not (work / "lungs/lung_unet.safetensors").exists():
        command("train", "lungs", "--data", work / "lungs.csv", *LUNGS, "--precision", "bf16", "--out", work / "lungs")
    with_lungs = work / "with_lungs"  # what else is in it does not show in the slices, the only use of it
    if not with_lungs.exists():
        lung_unet = work / "lungs/lung_unet.safetensors"
        command(
            "weights", "pack", "--base", "mini", "--lung-unet", lung_unet, "--dtype", "float16", "--out", with_lungs
        )

    for name, (scans, seed, hosts) in COHORTS.items():
        if not (work / name / "metadata/reference.csv").exists():
            drawn = ("--scans", scans, "--seed", seed, "--host", *(ct / host for host in hosts))
            module("balaitous.training.cohorts", *drawn, "--out", work / name)

    # The lung view goes on from the full one: drawn anew, it sees too little that differs, and learns nothing.
    full = work / "encoder_full/encoder.safetensors"
    for view, more in {
        "full": ("--data", work / "images.csv", "--probe", work / "probe.csv"),
        "lung": ("--start", full),
    }.items():
        if not (work / f"encoder_{view}/encoder.safetensors").exists():
            volumes = ("--data", work / "volumes.csv", "--data", work / "encoders/data/mha")
            where = ("--weights", with_lungs, "--slices", work / "slices", "--out", work / f"encoder_{view}")
            command("train", "encoder", "--view", view, "--recipe", "mini", *volumes, *more, *where)
    with_encoders = work / "with_encoders"
    if not with_encoders.exists():
        encoders = [(f"--encoder-{view}", work / f"encoder_{view}/encoder.safetensors") for view in BLOCKS]
        blocks = [(f"--blocks-{view}", count) for view, count in BLOCKS.items()]
        given = (word for pair in (*encoders, *blocks) for word in pair)
        command("weights", "pack", "--base", with_lungs, *given, "--dtype", "float16", "--out", with_encoders)

    heads = work / "trained_heads"
    if not (heads / "bundle").exists():
        named = ("--name", "mini", "--licence", LICENCE)
        command("train", "heads", "--data", work / "heads", "--weights", with_encoders, *named, "--out", heads)
    held_out = work / "held_out"
    if not (work / "evaluation/metrics.json").exists():
        table = ("--out", work / "held_out.csv", "--resume")
        command("predict", held_out / "data/mha", "--weights", heads / "bundle", *table)
        reference = ("--reference", held_out / "metadata/reference.csv")
        command("evaluate", "--predictions", work / "held_out.csv", *reference, "--out", work / "evaluation")
    out.mkdir(parents=True, exist_ok=True)
    for file in [*(heads / "bundle").glob("*.safetensors"), heads / "bundle/bundle.json"]:
        shutil.copy(file, out)


def write_lists(data: Path, work: Path) -> None:
    """The scans, slices and labels that commands take as CSV."""
    ct, slices = data / "ct", data / "covid_ct_slices"
    lungs = [
        (ct / file, ct / mask if mask else "", int(file in LUNGS_HELD_OUT), UNSURE.get(file, ""))
        for file, mask in LUNG_SCANS.items()
    ]
    write_csv(work / "lungs.csv", ("path", "mask", "held_out", "unsure"), lungs)
    write_csv(work / "volumes.csv", ("path",), [(ct / host,) for host in HOSTS])
    # The probe's test split is in no training; its training split may be, as no label is used there.
    splits = {split: labelled_slices(slices, split) for split in ("train", "val", "test")}
    images = [image for split in ("train", "val") for image, _ in splits[split]]
    images += sorted((data / "sars_cov_2_ct_slices").glob("*/*"))
    write_csv(work / "images.csv", ("path",), [(image,) for image in images])
    probe = [(image, label, split) for split in ("train", "test") for image, label in splits[split]]
    write_csv(work / "probe.csv", ("path", "label", "split"), probe)


def labelled_slices(folder: Path, split: str) -> list[tuple[Path, int]]:
    """The images of a split of COVID-CT, and whether they show COVID-19."""
    with (folder / f"{split}_meta.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    found = {path.stem: path for path in (folder / "images").iterdir()}
    return [(found[row["imgname"].rpartition(".")[0]], int(row["CVD19"] == "CVD19")) for row in rows]


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *rows])


def command(*words: object) -> None:
    """A command of this package."""
    module("balaitous", *words)


def module(name: str, *words: object) -> None:
    """A module as a command, in a process of its own; an error ends this one too."""
    line = [sys.executable, "-m", name, *map(str, words)]
    log.info("%s", " ".join(line[2:]))
    subprocess.run(line, check=True, env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])})


if __name__ == "__main__":
    main()
