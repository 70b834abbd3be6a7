"""Can this be a chest CT in Hounsfield units? Refusals that never meet a real one.

Whether there is a lung in it is the segmentation's answer, see `balaitous.ct.lungs`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from balaitous.errors import InputError

MAXIMUM_VOXELS = 2**31  # 4 GiB of int16; a 2,000-slice CT of 1,024² pixels. Headers that declare more are wrong
MAXIMUM_EXTENT_MM = 3000.0  # longer than any scanner table
DIRECTION_TOLERANCE = 1e-2  # of direction cosines: 0.6°; some writers round them to three digits
FLOOR_HU = -1024  # air on the 12-bit scale of CT; scanners pad outside the field of view with anything below
CEILING_HU = np.iinfo(np.int16).max  # metal reaches some 30,000 HU on an extended scale
AIR_HU = -200  # a chest CT has air, near −1000 HU, in and around the patient; fat ends at −150


def check_volume(size: Sequence[int], spacing_mm: Sequence[float], direction: Sequence[float] | np.ndarray) -> None:
    """Refuse what is no 3-D grid of a patient's size.

    Parameters
    ----------
    size, spacing_mm : a number an axis; a fourth axis is accepted with size 1
    direction : direction cosines as a matrix or row by row, column k the direction of axis k
    """
    shape, dimensions = " × ".join(map(str, size)), len(size)
    if dimensions != 3 and not (dimensions == 4 and size[3] == 1):
        raise InputError(f"expected a 3-D volume, found a {dimensions}-D image ({shape}); give one volume")
    if min(size[:3]) < 2:
        raise InputError(f"expected a volume, found one slice ({shape}); give the whole series")
    if math.prod(size) > MAXIMUM_VOXELS:
        raise InputError(f"expected at most {MAXIMUM_VOXELS:,} voxels, its header declares {shape}; is it damaged?")
    if not all(step > 0 and n * step <= MAXIMUM_EXTENT_MM for n, step in zip(size[:3], spacing_mm[:3], strict=True)):
        raise InputError(f"expected voxel sizes in mm, found {spacing_mm} for {shape} voxels; correct the spacing")
    cosines = np.reshape(direction, (dimensions, dimensions))[:3, :3]
    if np.abs(cosines.T @ cosines - np.eye(3)).max() > DIRECTION_TOLERANCE:
        raise InputError(
            f"expected axes at right angles, found directions {cosines.tolist()} (a gantry tilt or shear); "
            "resample to a rectangular grid first"
        )


def check_hounsfield(low: float, high: float, *, integral: bool) -> None:
    """Refuse what is not in Hounsfield units, by its smallest and largest value."""
    if not (math.isfinite(low) and math.isfinite(high)):
        raise InputError("expected a number in every voxel, found NaN or infinity; write the image again without them")
    if max(low, FLOOR_HU) >= high:
        raise InputError(f"expected a chest CT, found nothing but {low:g} to {high:g} in it; give the image itself")
    if integral and low >= 0 and high < 256:
        raise InputError(
            f"expected Hounsfield units with air near −1000, found whole numbers from {low:g} to {high:g}: this looks "
            "like a label mask or an 8-bit picture; give the CT itself"
        )
    if low >= AIR_HU or high > CEILING_HU:
        raise InputError(
            f"expected Hounsfield units (air near −1000, at most {CEILING_HU}), found {low:g} to {high:g}; apply the "
            "rescale slope and intercept (often: subtract 1024)"
        )
