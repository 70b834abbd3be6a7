"""Images of random HU, written by SimpleITK, and what must come of reading them."""

from __future__ import annotations

import os
from itertools import permutations, product
from pathlib import Path

import pytest
import SimpleITK as sitk

from balaitous.ct.grid import Grid
from balaitous.ct.volume import CT, read_ct
from balaitous.errors import InputError
from helpers.dicom import hu_volume

HU = hu_volume()
SPACING_MM, ORIGIN_MM = (0.7, 0.8, 2.5), (-123.4, 17.9, -301.7)
ORIENTATIONS = ["".join(letters) for axes in permutations(("LR", "PA", "SI")) for letters in product(*axes)]


def image_of(hu=HU, orientation="LPS", spacing_mm=SPACING_MM, origin_mm=ORIGIN_MM) -> sitk.Image:
    """SimpleITK image of LPS voxels, stored in another orientation (the letters say where the axes point)."""
    image = sitk.GetImageFromArray(hu)
    image.SetSpacing(spacing_mm)
    image.SetOrigin(origin_mm)
    return sitk.DICOMOrient(image, orientation)


def written(image, path, compressed=True) -> Path:
    """The file, now with the image in it."""
    sitk.WriteImage(image, os.fspath(path), useCompression=compressed)
    return path


def in_stored_order(values, orientation) -> tuple:
    """Values of x, y and z in the order of the stored axes."""
    return tuple(
        values[next(k for k, pair in enumerate(("LR", "PA", "SI")) if letter in pair)] for letter in orientation
    )


def ct_of(hu, spacing_mm=SPACING_MM) -> CT:
    """As `read_ct` gives it of a file in LPS."""
    return CT(hu, Grid(hu.shape, spacing_mm, ORIGIN_MM), "scan", "scan.mha")


def refused(path, reason, **arguments) -> None:
    """Reading ends in one line that starts with the path and matches `reason`."""
    with pytest.raises(InputError, match=reason) as caught:
        read_ct(path, **arguments)
    message = str(caught.value)
    assert message.startswith(tuple(f"{path}: {what} " for what in ("expected", "series", "side-car"))), message
    assert message.isprintable(), message
    assert len(message) < 500, message
