"""What a picture, a CT or an array becomes before the network sees it: grey slices, and their checks.

Nothing here imports PyTorch.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from balaitous.checks import Check, check_value, refuse
from balaitous.ct.quality import check_scan
from balaitous.ct.volume import CT, read_ct
from balaitous.errors import NoLungError
from balaitous.memory import memory_errors
from balaitous.reading.fingerprint import content_sha256
from balaitous.reading.headers import IMAGE_ENDINGS
from balaitous.reading.patient import Patient
from balaitous.reading.pictures import Picture, read_picture
from balaitous.slices.hounsfield import lung_slices, lung_window, stored_hu
from balaitous.slices.limits import CT_CHECKS, LIMITS

EXPECTED_PICTURE, EXPECTED_CT = "a picture of a CT slice", "a chest CT"
IN_MEMORY = "array"  # the name of a slice that no file holds


@dataclass(frozen=True)
class PreparedSlices:
    """What the network is to see.

    Attributes
    ----------
    name, path : of the item; "" for one from memory
    input_sha256 : of its files; None for one from memory
    kind : "picture" or "ct"
    slices : each (Y, X) float32 in [0, 1], black to white
    indices : of the slices in the CT, counted from the feet; (0,) of a picture
    z_mm : of the slices, LPS; NaN of a picture
    slices_in_item : of the CT as it was read; 1 of a picture
    spacing_mm : x, y: between the centres of a slice's pixels; None of a picture that does not tell
    converted : what was done to get grey of what is stored
    checks : of the item
    seconds : wall-clock time of reading and preparing
    """

    name: str
    path: str
    input_sha256: str | None
    kind: str
    slices: tuple[NDArray[np.float32], ...]
    indices: tuple[int, ...]
    z_mm: tuple[float, ...]
    slices_in_item: int
    spacing_mm: tuple[float, float] | None
    converted: tuple[str, ...]
    checks: tuple[Check, ...]
    seconds: Mapping[str, float]


def prepare(
    item: str | Path | Picture | CT | NDArray, series: str | None = None, strict: bool = False
) -> PreparedSlices:
    """Read and check what the network is to see.

    Parameters
    ----------
    item : a picture's file, a CT as `read_ct` takes it, what `read_picture` or `read_ct` returned, or an array (Y, X)
        of grey in [0, 1]
    series : SeriesInstanceUID, for a DICOM folder or zip with several
    strict : refuse it also where a check warns

    Raises
    ------
    ValueError : an array that is no picture
    InputError : it cannot be used; NoLungError a CT without lungs, QualityError if a check fails
    """
    start = time.perf_counter()
    with memory_errors():
        fingerprint = None
        if isinstance(item, str | os.PathLike):
            path, item = item, read_ct(item, series=series) if is_ct(item) else read_picture(item)
            fingerprint = content_sha256(path)  # last: what cannot be read, reading says best
        read = time.perf_counter()
        if isinstance(item, CT):
            prepared = of_ct(item, strict)
        else:
            prepared = of_picture(item if isinstance(item, Picture) else picture_of_array(item), strict)
    seconds = {"read": read - start, "prepare": time.perf_counter() - read}
    return PreparedSlices(**{**vars(prepared), "input_sha256": fingerprint, "seconds": seconds})


def is_ct(path: str | os.PathLike[str]) -> bool:
    """Whether a path is read as a CT: a folder, a zip, or a volume's file; what else there is is a picture's."""
    name = os.fspath(path).lower()
    return os.path.isdir(path) or name.endswith((*IMAGE_ENDINGS, ".zip"))


def picture_of_array(grey: NDArray) -> Picture:
    """An array (Y, X) of grey as a picture.

    Raises
    ------
    ValueError : it is of another shape, or has numbers outside [0, 1]
    """
    grey = np.asarray(grey)
    if grey.ndim != 2 or grey.dtype.kind not in "fiub" or not grey.size:
        raise ValueError(f"array must be grey (Y, X). Got shape {grey.shape} of {grey.dtype} instead.")
    if not (grey.min() >= 0 and grey.max() <= 1):  # NaN is not either
        raise ValueError(
            f"array must be grey in [0, 1], black to white. Got {grey.min():g} … {grey.max():g} instead; a CT slice in "
            "HU becomes that by balaitous.slices.hounsfield.lung_window."
        )
    grey = grey.astype(np.float32)
    return Picture(grey, grey, 0.0, None, IN_MEMORY, "", Patient(), 32, ())


def of_picture(picture: Picture, strict: bool) -> PreparedSlices:
    """A picture as one slice."""
    grey, converted = picture.grey, picture.converted
    hu = stored_hu(picture.values, picture.bits)
    if hu is not None:
        grey = lung_window(hu)
        converted = (
            f"{picture.bits} bit: peaks of air and soft tissue as of HU + 1024, so window level −600, width 1500",
        )
    checks = (
        check_value("smaller_side", min(grey.shape), LIMITS["smaller_side"]),
        check_value("contrast", float(grey.std()), LIMITS["contrast"]),
    )
    refuse(picture.path or picture.name, EXPECTED_PICTURE, checks, strict)
    nowhere = (float("nan"),)
    return PreparedSlices(
        *(picture.name, picture.path, None, "picture", (grey,), (0,), nowhere, 1),
        *(picture.spacing_mm, converted, checks, {}),
    )


def of_ct(ct: CT, strict: bool) -> PreparedSlices:
    """The axial slices of a CT that show lungs, in the lung window."""
    checks = tuple(each for each in check_scan(ct) if each.name in CT_CHECKS)
    refuse(ct.path or ct.name, EXPECTED_CT, checks, strict)
    indices = lung_slices(ct.hu)
    if not len(indices):
        raise NoLungError(
            f"no lung found in {ct.name} ({len(ct.hu)} slices, {ct.hu.min():g}…{ct.hu.max():g} HU). Is it a chest CT "
            "in Hounsfield units?"
        )
    z_mm = tuple(
        ct.grid.origin_mm[2] + float(ct.grid.direction[8] * ct.grid.spacing_mm[2] * index) for index in indices
    )
    said = (f"{len(indices)} of {len(ct.hu)} axial slices show lungs; window level −600, width 1500",)
    return PreparedSlices(
        ct.name,
        ct.path,
        None,
        "ct",
        tuple(lung_window(ct.hu[index]) for index in indices),
        tuple(int(index) for index in indices),
        z_mm,
        len(ct.hu),
        ct.grid.spacing_mm[:2],
        said,
        checks,
        {},
    )
