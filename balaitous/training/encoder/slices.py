"""Keep the slices that encoders are trained on: of CT volumes as the encoders see them, and 2-D images.

A folder of slices has ``<hash of the content>.npy``, (Z, 224, 224) int16 in HU, and beside those of a volume
``<hash>.lung.npy``, (Z, 224, 224) bool.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

import balaitous
from balaitous.cohort.items import Item, items_in, list_items
from balaitous.cohort.run import Run
from balaitous.cohort.table import Row
from balaitous.ct.lungs import AIR_HU, WINDOW_HU
from balaitous.errors import InputError
from balaitous.files import replacing
from balaitous.models import MODELS
from balaitous.reading.fingerprint import content_sha256
from balaitous.reading.pictures import PICTURE_ENDINGS, read_picture
from balaitous.severity.pipeline import Balaitous, Prediction
from balaitous.training.keeping import begin_keeping

log = logging.getLogger(__name__)

CT = MODELS["severity"]  # what is a scan, is what it reads
SIZE = 224  # pixels of the slices that the encoders see


class SliceStore:
    """Slices by content: ``<folder>/<bundle>-<version>/…``, each file written at once.

    Slices depend on the bundle, whose U-Net finds the lungs, but not on the precision, as features do.
    """

    def __init__(self, folder: Path, model: Balaitous) -> None:
        self.folder = folder / f"{model.bundle.sha256[:16]}-{balaitous.__version__}"
        self.folder.mkdir(parents=True, exist_ok=True)

    def path(self, input_sha256: str) -> Path:
        """Where the slices of a scan are, or will be."""
        return self.folder / f"{input_sha256}.npy"

    def save(self, prediction: Prediction) -> None:
        """Keep the slices that the encoders saw of a scan, and where the lung is in them."""
        assert prediction.input_sha256 is not None
        path = self.path(prediction.input_sha256)
        write_array(lung_file(path), prediction.mask)
        write_array(path, prediction.image.round().astype(np.int16))  # the last: with it, all is there

    def save_picture(self, picture: Path) -> Path:
        """Keep a 2-D image, unless it is there already; returns where.

        Raises
        ------
        InputError : not an image
        """
        path = self.path(content_sha256(picture))
        if not path.exists():
            write_array(path, picture_as_hu(picture))
        return path


class Slices:
    """All slices of some files, file after file, read from disk as they are asked for.

    Parameters
    ----------
    files : of a `SliceStore`
    view : "full", slices as they are; "lung", all but the lung set to air

    Attributes
    ----------
    file : (N,) number of the file that a slice is of; slices of one scan lie together, in their order

    Raises
    ------
    InputError : no slices, or no lungs of some for the lung view
    """

    def __init__(self, files: Sequence[Path], view: str) -> None:
        self.files, self.view = files, view
        if view == "lung" and (without := [each for each in files if not lung_file(each).exists()]):
            raise InputError(
                f"the lung view expects volumes, in which lungs can be found; {len(without)} of {len(files)} are 2-D "
                "images. Leave them out, or train the full view on them."
            )
        counts = [len(mapped(file)) for file in files]
        if not sum(counts):
            raise InputError("expected slices to train on, found none. Give scans or images.")
        self.file = np.repeat(np.arange(len(counts)), counts)
        self.first = np.cumsum([0, *counts[:-1]])

    def __len__(self) -> int:
        return len(self.file)

    def __getitem__(self, index: int) -> NDArray[np.int16]:
        """(224, 224) in HU."""
        number = self.file[index]
        within = index - self.first[number]
        hu = np.array(mapped(self.files[number])[within])
        if self.view == "lung":
            hu[~mapped(lung_file(self.files[number]))[within]] = AIR_HU
        return hu

    def of_file(self, number: int) -> NDArray[np.int16]:
        """(Z, 224, 224) in HU of one file."""
        first = self.first[number]
        return np.stack([self[index] for index in range(first, first + len(mapped(self.files[number])))])

    @cached_property
    def identity(self) -> str:
        """The same for the same slices in the same order."""
        names = [self.view, *(each.name for each in self.files)]  # of their content
        return hashlib.sha256("\n".join(names).encode()).hexdigest()

    def neighbour(self, index: int, step: int) -> int:
        """The slice `step` further on in the same scan; the slice itself where the scan ends."""
        other = index + step
        same = 0 <= other < len(self) and self.file[other] == self.file[index]
        return other if same else index


def list_material(paths: Iterable[str | Path]) -> tuple[list[Item], list[Path]]:
    """The scans and the 2-D images behind some paths, of which each is one, a folder of them, or a .csv with a column
    ``path``.

    Raises
    ------
    InputError : a path does not exist, or there is neither behind it
    """
    scans: list[Item] = []
    pictures: list[Path] = []
    for path in map(Path, paths):
        inside = sorted(each for each in path.rglob("*") if is_picture(each)) if path.is_dir() else []
        if inside:
            pictures += inside
            scans += [Item(each) for each in items_in(path, CT.reads)]
        elif path.exists() and is_picture(path):
            pictures.append(path)
        else:
            for scan in list_items([path], CT):
                if is_picture(Path(scan.path)):  # of a table
                    pictures.append(Path(scan.path))
                else:
                    scans.append(scan)
    return scans, pictures


def keep_slices(
    model: Balaitous,
    store: SliceStore,
    paths: Sequence[Path],
    workers: int | None,
    follow: Callable[[Run, Iterator[Row]], None],
) -> dict[Path, Path]:
    """Keep the slices of scans and 2-D images; those that fail are named in the log and left out.

    Parameters
    ----------
    paths : as `list_material` takes them
    workers : scans at a time
    follow : takes the rows of the scans and adds them to the run

    Returns
    -------
    the files of slices by what they were made of
    """
    scans, pictures = list_material(paths)
    kept: dict[Path, Path] = {}
    if scans:
        run, rows = begin_keeping(model, store, scans, workers)
        try:
            with closing(rows):
                follow(run, rows)
        finally:
            done = run.finish()
        for scan, row in zip(scans, done, strict=True):
            if row["status"] == "ok":
                kept[Path(scan.path)] = store.path(row["input_sha256"])
            else:
                log.warning("left out: %s", row["error"])
    for picture in pictures:
        try:
            kept[picture] = store.save_picture(picture)
        except InputError as error:
            log.warning("left out: %s", error)
    return kept


def is_picture(path: Path) -> bool:
    """Whether a file's ending is that of a 2-D image."""
    return path.suffix.lower() in PICTURE_ENDINGS


def picture_as_hu(path: Path) -> NDArray[np.int16]:
    """A grey picture of a slice as (1, 224, 224) HU: black is −1024, white 600.

    Such pictures do not say their window. The whole range of the method's is as good a guess as any, and leaves room
    for the shifts that training draws.

    Raises
    ------
    InputError : as `read_picture` does
    """
    grey = read_picture(path).grey * 255  # kept slices of 8-bit pictures were made of 0 … 255: so they stay the same
    square = F.interpolate(
        torch.tensor(grey)[None, None], (SIZE, SIZE), mode="bilinear", align_corners=False, antialias=True
    )
    low, high = WINDOW_HU
    return (low + square[0].numpy() / 255 * (high - low)).round().astype(np.int16)


def lung_file(file: Path) -> Path:
    """Where the lung masks of a file of slices are."""
    return file.with_suffix(".lung.npy")


@lru_cache(maxsize=1024)
def mapped(file: Path) -> NDArray:
    """The array of a file, memory-mapped."""
    return np.load(file, mmap_mode="r", allow_pickle=False)


def write_array(path: Path, array: NDArray) -> None:
    """Write an array at once."""
    with replacing(path) as file:
        np.save(file, array)
