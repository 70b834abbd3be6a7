"""The steps without a network: 3 before the lung U-Net, and 5 to 8 between the U-Net and the encoders.

They import no PyTorch, so that they can run in small processes of their own, beside the one that runs the networks.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from balaitous.checks import Check, refuse
from balaitous.ct.lungs import BodyCrops, body_crops, volume_labels
from balaitous.ct.quality import check_lungs, check_scan
from balaitous.ct.volume import CT, SPACING_MM, read_ct, resample
from balaitous.errors import NoLungError
from balaitous.memory import memory_errors
from balaitous.reading.fingerprint import content_sha256
from balaitous.severity.crops import crop_to_lungs

EXPECTED = "a whole chest CT"
VOXEL_LITRES = float(np.prod(SPACING_MM)) / 1e6


@dataclass(frozen=True)
class Prepared:
    """A scan, ready for the lung U-Net.

    Attributes
    ----------
    ct : resampled
    input_sha256 : of the scan's files; None for a CT from memory
    spacing_mm, slices, hu_range : of the scan as read; x, y, z; (least, largest)
    body : of `ct`, what the U-Net sees
    checks : of the scan as read
    seconds : wall-clock time of each stage
    """

    ct: CT
    input_sha256: str | None
    spacing_mm: tuple[float, float, float]
    slices: int
    hu_range: tuple[float, float]
    body: BodyCrops
    checks: tuple[Check, ...]
    seconds: Mapping[str, float]


@dataclass(frozen=True)
class LungView:
    """What the encoders look at.

    Attributes
    ----------
    image : (Z, 224, 224) in HU, LPS order flipped along Y
    mask : (Z, 224, 224), the lung in `image`
    volume_litres : of the whole cleaned lung mask
    checks : of the scan as read, and of the lungs
    seconds : wall-clock time it took
    """

    image: NDArray
    mask: NDArray[np.bool_]
    volume_litres: float
    checks: tuple[Check, ...]
    seconds: float


def prepare(scan: str | Path | CT, series: str | None = None, strict: bool = False) -> Prepared:
    """Read, check and resample a scan, and cut out the body in every slice.

    Parameters
    ----------
    scan : an image file, a DICOM folder or zip, or a CT that `read_ct` returned
    series : SeriesInstanceUID, for a DICOM folder with several
    strict : refuse it also where a check warns

    Raises
    ------
    InputError : if the scan cannot be used; QualityError if a check says so
    MemoryError : if the memory does not hold it
    """
    with memory_errors():
        start = time.perf_counter()
        ct, fingerprint = (scan, None) if isinstance(scan, CT) else (read_ct(scan, series=series), content_sha256(scan))
        spacing_mm, slices, hu_range = ct.grid.spacing_mm, len(ct.hu), (ct.hu.min().item(), ct.hu.max().item())
        checks = check_scan(ct)
        refuse(ct.path or ct.name, EXPECTED, checks, strict)
        read = time.perf_counter()
        del scan  # the native volume is the largest thing in memory: let it go once it is resampled
        ct = resample(ct, SPACING_MM)  # step 3
        resampled = time.perf_counter()
        body = body_crops(ct.hu)
        cropped = time.perf_counter()
    seconds = {"read": read - start, "resample": resampled - read, "body_crops": cropped - resampled}
    return Prepared(ct, fingerprint, spacing_mm, slices, hu_range, body, checks, seconds)


def view_lungs(prepared: Prepared, crop_labels: NDArray[np.uint8], strict: bool = False) -> LungView:
    """The slices and the lung mask that the encoders see (steps 4, from the U-Net's labels on, to 8), checked.

    Parameters
    ----------
    crop_labels : (Z, 256, 256), the U-Net's, of the crops
    strict : refuse the scan also where a check warns

    Raises
    ------
    NoLungError : if no lung, or too little of it, is found
    QualityError : if a check says that these are no lungs to answer for
    """
    start = time.perf_counter()
    ct = prepared.ct
    labels = volume_labels(crop_labels, prepared.body)
    try:
        image, mask, lung_voxels = crop_to_lungs(*upright(ct, labels))
    except NoLungError as error:
        low, high = prepared.hu_range
        what = f"{ct.name} ({prepared.slices} slices, {low:g}…{high:g} HU)"
        raise NoLungError(f"{error} in {what}. Is it a chest CT in Hounsfield units?") from None
    litres = lung_voxels * VOXEL_LITRES
    checks = (*prepared.checks, *check_lungs(ct, labels, litres))
    refuse(ct.path or ct.name, EXPECTED, checks, strict)
    return LungView(image, mask, litres, checks, time.perf_counter() - start)


def upright(ct: CT, labels: NDArray[np.uint8]) -> tuple[NDArray, NDArray[np.uint8]]:
    """Volume and labels flipped along Y (step 5), as views.

    The published package never re-orients the image, it only turns the stored array upside down. A scan that was stored
    back to front in Y is then already the right way up, and cropping and padding fall on the same voxels as there.
    """
    if ct.stored.reversed[1]:
        return ct.hu, labels
    return ct.hu[:, ::-1], labels[:, ::-1]
