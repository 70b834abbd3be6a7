"""The slices of one CT series: what each of them says of itself, and whether they form one regular volume.

Terms as in DICOM PS3.3, C.7.6.2 (Image Plane): a slice has the position of its first voxel and the directions of its
rows and columns, in mm, in LPS; their cross product is the normal along which slices are ordered. What a slice says of
its stored numbers (C.7.6.3, C.8.2.1, C.11.1) must be the same in all of them: a series in which one slice is rescaled
otherwise, or not at all, is read 1024 HU off there without anyone noticing.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from balaitous.ct.plausibility import DIRECTION_TOLERANCE
from balaitous.errors import InputError
from balaitous.reading.dicom.studies import ORIGIN_KEYWORDS, Origin, origin_of
from balaitous.reading.limits import SIZE_VARIABLE, maximum_voxels
from balaitous.reading.patient import Patient, from_header

AXIAL_COSINE = math.cos(math.radians(30))  # a slice counts as axial when its normal is within 30° of the body's axis
SPACING_TOLERANCE_MM = 1e-3  # of the pixel spacing between the slices of a series
SAME_POSITION_MM = 1e-2  # two slices nearer than this lie at the same place
STEP_TOLERANCE = 0.25  # of the usual step between slices: positions are often rounded to 0.1 mm
TILT_TOLERANCE_MM = 1.0  # sideways drift of the slices' first voxels over the whole series

GEOMETRY = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "Rows", "Columns")
DECIMALS = ("RescaleIntercept", "RescaleSlope")
TEXTS = ("RescaleType", "PhotometricInterpretation", "FrameOfReferenceUID")
WHOLE_NUMBERS = ("PixelRepresentation", "SamplesPerPixel", "BitsAllocated", "BitsStored", "HighBit")
PADDING = ("PixelPaddingValue", "PixelPaddingRangeLimit")
MODALITY_LUT = "ModalityLUTSequence"
SAME_IN_ALL = (*DECIMALS, *TEXTS, *WHOLE_NUMBERS, *PADDING, MODALITY_LUT)
SLICE_NOTES = ("ConvolutionKernel", "SliceThickness")  # by which people tell the series of one scan apart
SLICE_KEYWORDS = (*GEOMETRY, *SAME_IN_ALL, *ORIGIN_KEYWORDS, "PatientAge", "PatientSex", "SOPInstanceUID")
MAXIMUM_KERNEL_LENGTH = 32  # two of DICOM's short strings
HOUNSFIELD_TYPES = ("HU", "HU_MOD", "US")  # PS3.3, C.11.1.1.2; US: unspecified, as old CTs say

Value = float | int | str | None


@dataclass(frozen=True)
class Slice:
    """What one slice says of itself.

    Attributes
    ----------
    file : that holds it
    frame : of a file with several, from 0; None where it is the only one
    position_mm : (3,), of the first voxel
    directions : (2, 3): along a row, along a column
    spacing_mm : between rows, between columns
    shape : rows, columns
    origin : the patient, study and series it belongs to, to be compared
    values : what must be the same in all slices of a series, by DICOM's keyword; None where nothing is said
    kernel, thickness_mm : of the reconstruction; "" and None where nothing is said
    parts : of a frame: which stack, phase and so on it belongs to, by people's word for it
    """

    file: Path
    frame: int | None
    series_uid: str
    instance_uid: str
    position_mm: np.ndarray
    directions: np.ndarray
    spacing_mm: tuple[float, float]
    shape: tuple[int, int]
    values: Mapping[str, Value]
    patient: Patient
    origin: Origin
    kernel: str = ""
    thickness_mm: float | None = None
    parts: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """How messages call it; frames are counted from 1, as DICOM does."""
        return self.file.name if self.frame is None else f"{self.file.name}, frame {self.frame + 1}"

    @property
    def normal(self) -> np.ndarray:
        return np.cross(*self.directions)

    @property
    def axial(self) -> bool:
        return bool(abs(self.normal[2]) >= AXIAL_COSINE)


def has_geometry(header: Dataset) -> bool:
    """Whether a header says where its slice lies, in which direction, and of what size it is."""
    return all(header.get(keyword) for keyword in GEOMETRY)


def slice_of(file: Path, header: Dataset, frame: int | None = None, parts: Mapping[str, str] | None = None) -> Slice:
    """The slice that a header with `SLICE_KEYWORDS` and `SLICE_NOTES` tells of.

    Raises
    ------
    ValueError, TypeError : what should be numbers is not
    """
    position, directions, spacing = (
        np.array(header[keyword].value, dtype=float)
        for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing")
    )
    values = {keyword: _value(header, keyword) for keyword in SAME_IN_ALL}
    values["RescaleType"] = values["RescaleType"] or "HU"  # which is what silence means (PS3.3, C.8.2.1)
    numbers = [*position, *directions, *spacing, *(values[key] for key in DECIMALS if values[key] is not None)]
    if not np.isfinite(np.array(numbers, dtype=float)).all():
        raise ValueError(f"not all numbers in {', '.join(map(str, numbers))}")
    return Slice(
        file=file,
        frame=frame,
        series_uid=str(header.get("SeriesInstanceUID") or ""),
        instance_uid=str(header.get("SOPInstanceUID") or file),
        position_mm=position.reshape(3),
        directions=directions.reshape(2, 3),
        spacing_mm=(float(spacing[0]), float(spacing[1])),
        shape=(int(header.Rows), int(header.Columns)),
        values=values,
        patient=from_header(header.get("PatientAge"), header.get("PatientSex"), "dicom"),
        origin=origin_of(header),
        kernel=_kernel(header),
        thickness_mm=_thickness_mm(header),
        parts=parts or {},
    )


def _kernel(header: Dataset) -> str:
    """The name of the reconstruction's kernel, which may have several parts."""
    value = header.get("ConvolutionKernel") or ""
    text = "/".join(map(str, value)) if isinstance(value, MultiValue) else str(value)
    return "".join(each for each in text if each.isprintable()).strip()[:MAXIMUM_KERNEL_LENGTH]


def _thickness_mm(header: Dataset) -> float | None:
    """The slices' thickness; None where it is none: the voxels do not depend on it."""
    try:
        value = float(header.get("SliceThickness") or "nan")
    except (TypeError, ValueError):
        return None
    return value if 0 < value < math.inf else None


def _value(header: Dataset, keyword: str) -> Value:
    """What a header says under a keyword; None for nothing. Padding is told in the range of the stored numbers."""
    value = header.get(keyword)
    if value is None or value == "":
        return None
    if keyword == MODALITY_LUT:
        return "a table"
    if keyword in DECIMALS:
        return float(value)
    if keyword in TEXTS:
        return str(value).strip()
    number = int(value)
    if keyword in PADDING:  # a negative number is often written as an unsigned one
        bits = int(header.get("BitsAllocated") or 16)
        number %= 1 << bits
        if header.get("PixelRepresentation") == 1 and number >= 1 << (bits - 1):
            number -= 1 << bits
    return number


def _check_numbers(each: Slice) -> None:
    """Refuse stored numbers that slope and intercept do not make Hounsfield units of."""
    values, again = each.values, "export the series again in Hounsfield units"
    allocated, stored, high = values["BitsAllocated"], values["BitsStored"], values["HighBit"]
    if values[MODALITY_LUT]:
        raise InputError(f"expected a rescale slope and intercept, {each.name} has a modality LUT; {again}")
    if values["RescaleType"] not in HOUNSFIELD_TYPES:
        raise InputError(
            f"expected Hounsfield units, {each.name} has the RescaleType {values['RescaleType']!r}; {again}"
        )
    if values["RescaleSlope"] == 0:
        raise InputError(f"expected a RescaleSlope, {each.name} has 0; {again}")
    if values["PhotometricInterpretation"] not in {None, "MONOCHROME1", "MONOCHROME2"}:
        raise InputError(
            f"expected grey slices, {each.name} has the PhotometricInterpretation "
            f"{values['PhotometricInterpretation']!r}; {again}"
        )
    if not isinstance(allocated, int) or not isinstance(stored, int):
        return  # missing bits are refused with the pixels
    if not 1 <= stored <= allocated or high not in {None, stored - 1}:
        raise InputError(
            f"expected numbers in the lowest bits of a pixel, {each.name} has {stored} of {allocated} bits, with the "
            f"HighBit {high}; {again}"
        )


def ordered(slices: Sequence[Slice]) -> list[Slice]:
    """Slices by their position along the normal, once they are known to form one regular volume.

    Raises
    ------
    InputError : they do not: it names the slice and what the others have
    """
    first = slices[0]
    if len(slices) < 2:
        raise InputError("expected a volume, found one slice; give the whole series")
    if len(slices) * first.shape[0] * first.shape[1] > maximum_voxels():
        raise InputError(
            f"expected at most {maximum_voxels():,.0f} voxels, found {len(slices)} slices of {first.shape}; keep one "
            f"series only, or raise {SIZE_VARIABLE}"
        )
    _check_one_part(slices)
    _check_same_plane(slices)
    for keyword in SAME_IN_ALL:
        _check_same(keyword, [each.values[keyword] for each in slices], slices)
    _check_numbers(first)
    along = np.array([each.position_mm @ first.normal for each in slices])
    order = np.argsort(along, kind="stable")
    in_order, along = [slices[index] for index in order], along[order]
    _check_steps(in_order, along)
    _check_upright(in_order, along)
    return in_order


def patient_of(slices: Sequence[Slice]) -> Patient:
    """Age and sex of a series, which some of its slices may leave out.

    Raises
    ------
    InputError : two slices tell another age, or another sex
    """
    patient = Patient()
    for each in slices:
        patient = patient.filled_from(each.patient)
    for keyword, name in (("PatientAge", "age_years"), ("PatientSex", "sex")):
        known = [each for each in slices if getattr(each.patient, name) is not None]
        _check_same(keyword, [getattr(each.patient, name) for each in known], known)
    return patient


def _check_one_part(slices: Sequence[Slice]) -> None:
    """Refuse frames of several stacks, phases and so on."""
    for part in slices[0].parts:
        counts = Counter(each.parts.get(part, "") for each in slices)
        if len(counts) > 1:
            found = ", ".join(f"{name or 'none'} ({count} frames)" for name, count in sorted(counts.items())[:4])
            raise InputError(
                f"expected one {part}, found {len(counts)}: {found}{', …' if len(counts) > 4 else ''}; export one of "
                "them as a series of its own"
            )


def _check_same(keyword: str, values: Sequence[Value], slices: Sequence[Slice]) -> None:
    """Refuse slices of which some say another thing than most."""
    if len(set(values)) <= 1:
        return
    usual, count = Counter(values).most_common(1)[0]
    odd = next(index for index, value in enumerate(values) if value != usual)
    found = "no" if values[odd] is None else "the"
    also = f" ({len(values) - count} slices like it)" if len(values) - count > 1 else ""
    raise InputError(
        f"expected one {keyword} in all slices, {slices[odd].name} has {found} {keyword}"
        f"{'' if values[odd] is None else f' {_told(values[odd])}'}{also}, the others have {_told(usual)}; export the "
        "series again"
    )


def _told(value: Value) -> str:
    if value is None:
        return "none"
    return f"{value:g}" if isinstance(value, float) else str(value)[:64]


def _check_same_plane(slices: Sequence[Slice]) -> None:
    first = slices[0]
    gram = first.directions @ first.directions.T
    if np.abs(gram - np.eye(2)).max() > DIRECTION_TOLERANCE:
        raise InputError(
            f"expected rows at right angles to columns, found {first.directions.tolist()}; export it again"
        )
    shapes = Counter(each.shape for each in slices)
    if len(shapes) > 1:
        odd = next(each for each in slices if each.shape != shapes.most_common(1)[0][0])
        raise InputError(
            f"expected slices of one size, found {sorted(shapes)[:3]} ({odd.name} is unlike most); keep one size only"
        )
    spacings = np.array([each.spacing_mm for each in slices])
    if np.ptp(spacings, axis=0).max() > SPACING_TOLERANCE_MM:
        found = sorted({each.spacing_mm for each in slices})[:3]
        odd = slices[int(np.abs(spacings - np.median(spacings, axis=0)).max(axis=1).argmax())]
        raise InputError(
            f"expected one pixel spacing, found {found} mm ({odd.name} is unlike most); keep one reconstruction only"
        )
    if not spacings.min() > 0:
        raise InputError(f"expected a pixel spacing in mm, found {first.spacing_mm}; export the series again")
    turned = [each for each in slices if np.abs(each.directions - first.directions).max() > DIRECTION_TOLERANCE]
    if turned:
        raise InputError(
            f"expected slices of one orientation, found {len(slices) - len(turned)} like {first.name} and "
            f"{len(turned)} like {turned[0].name}; keep one orientation only"
        )


def _check_steps(in_order: Sequence[Slice], along_mm: np.ndarray) -> None:
    steps = np.diff(along_mm)
    same = np.flatnonzero(steps < SAME_POSITION_MM)
    if same.size:
        raise InputError(
            f"expected one slice a position, found {same.size} of {len(steps)} steps without a move (such as from "
            f"{in_order[same[0]].name} to {in_order[same[0] + 1].name}); keep one acquisition only"
        )
    usual = float(np.median(steps))
    uneven = np.flatnonzero(np.abs(steps - usual) > STEP_TOLERANCE * usual)
    if uneven.size:
        raise InputError(
            f"expected slices {usual:.2f} mm apart, {in_order[uneven[0]].name} and "
            f"{in_order[uneven[0] + 1].name} are {steps[uneven[0]]:.2f} mm apart: slices are missing or mixed; "
            "export the series again"
        )


def _check_upright(in_order: Sequence[Slice], along_mm: np.ndarray) -> None:
    offsets = np.array([each.position_mm - in_order[0].position_mm for each in in_order])
    sideways = np.linalg.norm(offsets - np.outer(along_mm - along_mm[0], in_order[0].normal), axis=1)
    worst = int(sideways.argmax())
    if sideways[worst] > TILT_TOLERANCE_MM:
        angle = math.degrees(math.atan2(sideways[worst], along_mm[worst] - along_mm[0]))
        raise InputError(
            f"expected slices stacked at right angles, they drift by {sideways[worst]:.1f} mm sideways: a gantry tilt "
            f"of {angle:.1f}°; resample to an untilted volume first (for example with dcm2niix)"
        )
