"""Is this a chest CT that can be answered for? Every limit that a scan is held against, with its reason.

What is no volume in Hounsfield units is refused while it is read (`check_volume`, `check_hounsfield`). What was read is
measured by `balaitous.ct.quality` and judged here against `LIMITS`: ``fail`` is where the method cannot answer, and is
refused; ``warn`` is where its answer deserves a second look, and is recorded with it.

References
----------
[EUR] European Guidelines on Quality Criteria for Computed Tomography, EUR 16262 (1999).
[Cressoni] Limits of normality of quantitative thoracic CT analysis, 2013, doi:10.1186/cc12738.
[Cheng] Normal lung attenuation distribution and lung volume on CT, 2019, doi:10.2147/COPD.S187596.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from balaitous.errors import InputError, QualityError
from balaitous.reading.limits import SIZE_VARIABLE, maximum_voxels

Status = Literal["ok", "warn", "fail"]
Range = tuple[float, float]

MAXIMUM_EXTENT_MM = 3000.0  # longer than any scanner table
MAXIMUM_LITRES = 3000.0  # a bore of 1 m × 1 m over that length; resampled, some 500 MB
DIRECTION_TOLERANCE = 1e-2  # of direction cosines: 0.6°; some writers round them to three digits
FLOOR_HU = -1024  # air on the 12-bit scale of CT; scanners pad outside the field of view with anything below
CEILING_HU = np.iinfo(np.int16).max  # metal reaches some 30,000 HU on an extended scale
AIR_HU = -200  # a chest CT has air, near −1000 HU, in and around the patient; fat ends at −150


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
    if not all(0 < each <= MAXIMUM_EXTENT_MM for each in extent_mm) or math.prod(extent_mm) > MAXIMUM_LITRES * 1e6:
        raise InputError(f"expected voxel sizes in mm, found {spacing_mm} for {shape} voxels; correct the spacing")
    if not all(map(math.isfinite, origin_mm)):
        raise InputError(f"expected a place in mm, found the origin {origin_mm}; write the image again")
    cosines = np.reshape(direction, (dimensions, dimensions))[:3, :3]
    if not np.abs(cosines.T @ cosines - np.eye(3)).max() <= DIRECTION_TOLERANCE:  # NaN is not either
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


# --- what was read ----------------------------------------------------------------------------------------------------

ANY = math.inf
DIGITS = 4  # of a measured value that are kept


@dataclass(frozen=True)
class Limits:
    """What a measured value is held against.

    Attributes
    ----------
    subject, unit : what the value is, for a reader; the unit is "" for a ratio or a count
    ok : (least, largest) value of a chest CT as it should be
    usable : (least, largest) value that the method can answer for: a warning inside, a failure outside
    low, high : what a value below or above `ok` means, and what to do
    missing : the status where nothing could be measured
    """

    subject: str
    unit: str
    ok: Range
    usable: Range = (-ANY, ANY)
    low: str = ""
    high: str = ""
    missing: Status = "ok"


@dataclass(frozen=True)
class Check:
    """One check of a scan.

    Attributes
    ----------
    name : a key of `LIMITS`
    status : "ok", "warn" or "fail"
    value, unit : what was measured; None where that was not possible
    message : what was found, what was expected, and what to do, in one line
    """

    name: str
    status: Status
    value: float | None
    unit: str
    message: str


NOT_HU = "these are not Hounsfield units; apply the rescale slope and intercept (often: subtract 1024)"
LOOK = "look whether these are the lungs"
# "Real" is what the scans of docs/quality_checks.md have.
LIMITS: Mapping[str, Limits] = {
    # 30 slices of 5 mm are 150 mm, and lungs are 200 to 300 mm high.
    "slices": Limits("axial slices", "", (30, ANY), low="few for a whole chest; give the whole series"),
    # Under 180 mm no adult's lungs are whole; over 700 mm the bowel's gas takes part in the search for lungs.
    "coverage": Limits(
        "length of the scan",
        "mm",
        (180, 700),
        low="short for whole lungs; give the whole chest with its spacing in mm",
        high="more than a chest; cut it to the chest, with its spacing in mm",
    ),
    # A chest is some 200 mm deep and 350 mm wide; scanners reconstruct up to 700 mm, some 800 mm.
    "field_of_view": Limits(
        "field of view, its narrower side",
        "mm",
        (200, 800),
        low="narrow for an adult's chest; give the whole field of view with its spacing in mm",
        high="wider than scanners reconstruct; correct the pixel spacing",
    ),
    # The networks see 1.5 mm. 2.75 mm is the widest field, 700 mm, on a matrix of 256×256: no scanner has more.
    "pixel_spacing": Limits("pixel spacing", "mm", (0, 2.75), high="low resolution; give the scan as reconstructed"),
    # The networks see 5 mm. [EUR] has up to 10 mm for a chest, and 10 to 20 mm between the slices of an old-style
    # HRCT: there three of four slices that the networks see are blends of two places. 1 % is left to rounding.
    "slice_spacing": Limits(
        "distance between slices",
        "mm",
        (0, 5.05),
        (0, 20.2),
        high="small opacities may lie between slices; give a thinner reconstruction",
    ),
    # Neighbours are more alike than slices 10 mm apart. Real: 0.30 to 0.67; in random order: 0.87 to 1.1.
    "slice_order": Limits(
        "difference of neighbouring slices, over that of slices 10 mm apart",
        "",
        (0, 0.8),
        high="the slices are not in their order, or noise hides the anatomy; look at the scan from the side",
    ),
    # Real: 1.04 to 1.20; with 20 mm missing: 1.3 to 5. Phantoms, which have sudden shapes, reach 2.
    "slice_jump": Limits(
        "largest difference of neighbouring slices, over that of the slices around them",
        "",
        (0, 1.5),
        high="slices are missing there, or the patient moved; look at the scan from the side",
    ),
    # Air is −1000 HU by definition, −1024 where it is clipped. In a narrow field of view lung (−850) may be the peak.
    "air_peak": Limits("peak of air", "HU", (-1050, -800), (-1100, -600), NOT_HU, NOT_HU, "fail"),
    # Muscle is near 50 HU, fat near −100 HU; either may be the peak, and in noise they merge.
    "soft_tissue_peak": Limits("peak of soft tissue", "HU", (-130, 90), (-160, 150), NOT_HU, NOT_HU, "fail"),
    # Bone and contrast agent are a few per cent. Where 1024 was not subtracted, all soft tissue is above 300 HU.
    "dense_share": Limits(
        "share of the body above 300 HU",
        "%",
        (0.3, 15),
        (0, 30),
        low="hardly any bone; give the chest without a display window applied",
        high=NOT_HU,
    ),
    # Supine, on CT: 4.1 ± 1.2 l [Cressoni], 4.7 ± 1.2 l [Cheng]. Breathing out and pneumonia halve it, emphysema adds;
    # the severest, who matter most here, keep some tenths of a litre of air. Blobs found by mistake have millilitres.
    "lung_volume": Limits("lung volume", "l", (1.5, 10), (0.2, 14), f"little lung found; {LOOK}", f"too much; {LOOK}"),
    # −820 HU breathed in, −950 in emphysema, −500 in severe pneumonia. Air alone and tissue alone are no lung.
    "lung_density": Limits(
        "mean of the lungs", "HU", (-930, -500), (-980, -150), f"nothing but air; {LOOK}", f"dense lungs; {LOOK}"
    ),
    # Lung lies in soft tissue, some 850 HU denser, 400 in severe pneumonia. What is found in noise is as dense as what
    # is around it.
    "lung_contrast": Limits(
        "median between and around the lungs, less that of the lungs",
        "HU",
        (400, ANY),
        (150, ANY),
        low=f"hardly denser than the lungs; {LOOK}",
    ),
    # The left lung has some 47 %. Under a tenth: collapsed, removed, drowned, or not recognised.
    "smaller_lung": Limits(
        "the smaller lung's share of the air-filled lung",
        "%",
        (10, 50),
        low="one lung may be missing; look at the scan",
    ),
    # Lungs end in a point at the top and in a narrow rim at the base: a large section there is a cut.
    "lung_base": Limits(
        "lung in the lowest slice, over its largest section",
        "%",
        (0, 5),
        high="the base may be cut off; give the whole chest",
    ),
    "lung_top": Limits(
        "lung in the highest slice, over its largest section",
        "%",
        (0, 5),
        high="the top may be cut off; give the whole chest",
    ),
    "lung_edge": Limits(
        "slices with lung within 5 mm of the edge of the image",
        "%",
        (0, 5),
        high="the field of view cuts the lungs; give a wider one",
    ),
    # Blood is near 40 HU, with contrast agent 150 to 400.
    "mediastinum": Limits(
        "median of the heart and great vessels",
        "HU",
        (0, 100),
        high="contrast agent; prefer a native scan of the same patient",
    ),
    # Bone ends near 2000 HU. A port or pacemaker has some ml, a wire in the sternum less than one.
    "metal": Limits("metal, above 2500 HU", "ml", (0, 1), high="streaks may cross the lungs; look at the scan"),
}


def judge(name: str, value: float | None) -> Check:
    """The check of a measured value; the same value, the same check."""
    limits = LIMITS[name]
    if value is None or math.isnan(value):
        told = f"; {limits.low}" if limits.missing != "ok" else ""
        return Check(name, limits.missing, None, limits.unit, f"{limits.subject}: not to be found{told}")
    value = float(f"{value:.{DIGITS}g}")
    low, high = limits.ok
    found = f"{limits.subject}: {value:g} {limits.unit}".rstrip()
    if low <= value <= high:
        return Check(name, "ok", value, limits.unit, found)
    status: Status = "warn" if limits.usable[0] <= value <= limits.usable[1] else "fail"
    expected = (
        f"expected at least {low:g}: {limits.low}" if value < low else f"expected at most {high:g}: {limits.high}"
    )
    return Check(name, status, value, limits.unit, f"{found}, {expected}")


def verdict(checks: Iterable[Check]) -> dict[str, Any]:
    """What is recorded of checks: ``quality`` (the worst status; None without any), ``quality_notes``, ``checks``."""
    checks = list(checks)
    worse = [each for status in ("fail", "warn") for each in checks if each.status == status]
    return {
        "quality": worse[0].status if worse else "ok" if checks else None,
        "quality_notes": "; ".join(each.message for each in worse) or None,
        "checks": [asdict(each) for each in checks],
    }


def refuse(name: str, checks: Sequence[Check], strict: bool = False) -> None:
    """Refuse the scan of this name if it failed a check; with `strict`, also if one warned.

    Raises
    ------
    QualityError : with every check, and what was found in one line
    """
    record = verdict(checks)
    if record["quality"] == "fail" or (strict and record["quality"] == "warn"):
        why = " (warnings, which strict checks refuse)" if record["quality"] == "warn" else ""
        raise QualityError(f"{name}: expected a whole chest CT, found {record['quality_notes']}{why}", checks)
