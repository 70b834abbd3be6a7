"""Is it a volume in Hounsfield units? What is not is refused while it is read.

Whether it is fit for an answer is asked later, by `balaitous.ct.quality`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from balaitous.errors import InputError
from balaitous.reading.limits import SIZE_VARIABLE, maximum_voxels
from balaitous.reading.nifti import shear_degrees

MINIMUM_EXTENT_MM = 1.0  # less, and spacings are not in mm
MAXIMUM_EXTENT_MM = 3000.0  # longer than any scanner table
MAXIMUM_LITRES = 3000.0  # a bore of 1 m × 1 m over that length; resampled, some 500 MB
DIRECTION_TOLERANCE = 1e-2  # of direction cosines: 0.6°; some writers round them to three digits
FLOOR_HU = -1024  # air on the 12-bit scale of CT; scanners pad outside the field of view with anything below
CEILING_HU = np.iinfo(np.int16).max  # metal reaches some 30,000 HU on an extended scale
EIGHT_BITS, STORED_BITS = 255, 8191  # stored values of CT have 12 or 13 bits, those of pictures 8 or 16
NORMALISED = 20  # no image cut to a window that anyone looks at; 0…1, −1…1, standard deviations, HU / 1000
AIR_BELOW_HU = -200  # a chest CT has air, near −1000 HU, in and around the patient; fat ends at −150


def check_volume(
    size: Sequence[int],
    spacing_mm: Sequence[float],
    origin_mm: Sequence[float],
    direction: Sequence[float] | np.ndarray,
) -> None:
    """Refuse what is no 3-D grid of a patient's size.

    Parameters
    ----------
    size, spacing_mm, origin_mm : a number an axis; a fourth axis is accepted with size 1
    direction : direction cosines as a matrix or row by row, column k the direction of axis k
    """
    shape, dimensions = " × ".join(map(str, size)), len(size)
    if dimensions != 3 and not (dimensions == 4 and size[3] == 1):
        raise InputError(f"expected a 3-D volume, found a {dimensions}-D image ({shape}); give one volume")
    if min(size[:3]) < 2:
        raise InputError(f"expected a volume, found one slice ({shape}); give the whole series")
    if math.prod(size) > maximum_voxels():
        raise InputError(
            f"expected at most {maximum_voxels():,.0f} voxels, its header declares {shape}; is it damaged? If not, "
            f"raise {SIZE_VARIABLE}"
        )
    extent_mm = [n * step for n, step in zip(size[:3], spacing_mm[:3], strict=True)]
    in_range = all(MINIMUM_EXTENT_MM <= each <= MAXIMUM_EXTENT_MM for each in extent_mm)
    if not in_range or math.prod(extent_mm) > MAXIMUM_LITRES * 1e6:
        raise InputError(f"expected voxel sizes in mm, found {spacing_mm} for {shape} voxels; correct the spacing")
    if not all(map(math.isfinite, origin_mm)):
        raise InputError(f"expected a place in mm, found the origin {origin_mm}; write the image again")
    cosines = np.reshape(direction, (dimensions, dimensions))[:3, :3]
    if not np.abs(cosines.T @ cosines - np.eye(3)).max() <= DIRECTION_TOLERANCE:  # NaN is not either
        raise InputError(
            f"expected axes at right angles, found {_skewed(cosines)}; resample to a rectangular grid first (3D Slicer "
            "and SimpleITK do; dcm2niix corrects a gantry tilt)"
        )


def _skewed(cosines: np.ndarray) -> str:
    """How axes are not at right angles: by which angle, if they are axes at all."""
    lengths = np.linalg.norm(cosines, axis=0)
    if not np.abs(lengths - 1).max() <= DIRECTION_TOLERANCE:
        return f"directions {cosines.tolist()}, which are no directions"
    shear = shear_degrees(cosines / lengths)
    return f"a shear of {shear:.2g}° (a gantry tilt, or a registration with shear)"


def check_hounsfield(low: float, high: float, *, integral: bool) -> None:
    """Refuse what is not in Hounsfield units, by its smallest and largest value, with what it looks like.

    Parameters
    ----------
    low, high : of all voxels; NaN if one is
    integral : whether they are whole numbers by their type

    Raises
    ------
    InputError : these are none
    """
    if not (math.isfinite(low) and math.isfinite(high)):
        raise InputError(
            f"expected a number in every voxel, found NaN or infinity; write the image again without them ({FLOOR_HU} "
            "where nothing was measured)"
        )
    found = f"whole numbers from {low:g} to {high:g}" if integral else f"{low:g} to {high:g}"
    if low == high:
        raise InputError(f"expected a chest CT, found nothing but {low:g} in it; give the image itself")
    if high <= FLOOR_HU:
        raise InputError(
            f"expected a chest CT, found nothing but {low:g} to {high:g} in it, no denser than air; give the image "
            "itself, in Hounsfield units"
        )
    if low >= AIR_BELOW_HU or high > CEILING_HU:
        raise InputError(
            f"expected Hounsfield units (air near −1000, at most {CEILING_HU}), found {found}: "
            f"{_looks_like(low, high, integral)}"
        )


def _looks_like(low: float, high: float, integral: bool) -> str:
    """What numbers that are no Hounsfield units seem to be, and what to do."""
    if low < AIR_BELOW_HU:
        return (
            "the highest may be padding (63536 is −2000 without its sign) or no CT's; set padding to "
            f"{FLOOR_HU}, and give the CT in Hounsfield units"
        )
    if integral and low >= 0 and high <= EIGHT_BITS:
        return "this looks like a label mask or an 8-bit picture; give the CT itself"
    if max(-low, high) <= NORMALISED:
        return "this looks like an image that was normalised; give the CT as it was before"
    if low < 0:
        return "without air it looks like a CT cut to a display window, or another image; give the CT as it was before"
    if high <= EIGHT_BITS:
        return "this looks like an 8-bit picture or a display window; give the CT as it was before"
    if high <= STORED_BITS:
        return "this looks like a scanner's stored values; apply the rescale slope and intercept (often: subtract 1024)"
    return "this looks like a 16-bit picture or stored values; apply the rescale slope and intercept"
