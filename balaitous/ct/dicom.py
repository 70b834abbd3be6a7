"""A DICOM folder: which series is the chest CT, in which order its slices lie, and whether they form a regular volume.

Only headers are read here; `balaitous.ct.volume` reads the pixels. Terms as in DICOM PS3.3, C.7.6.2 (Image Plane):
a slice has the position of its first voxel and the directions of its rows and columns, in mm, in LPS; their cross
product is the normal along which slices are ordered.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
import pydicom.config
from pydicom.dataset import FileDataset
from pydicom.errors import InvalidDicomError
from pydicom.tag import BaseTag, Tag
from pydicom.uid import (
    CTImageStorage,
    EnhancedCTImageStorage,
    LegacyConvertedEnhancedCTImageStorage,
)

from balaitous.ct.plausibility import DIRECTION_TOLERANCE
from balaitous.errors import InputError
from balaitous.reading.dicom_files import read_header
from balaitous.reading.integrity import check_inside, files_below
from balaitous.reading.limits import SIZE_VARIABLE, in_time, maximum_voxels
from balaitous.reading.patient import Patient, from_header
from balaitous.reading.studies import ORIGIN_TAGS, Origin, origin_of, two_apart

HEADER_TAGS: list[BaseTag | int] = [
    Tag(keyword)
    for keyword in (
        *("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "Modality", "ImageType", "PatientAge", "PatientSex"),
        *("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "Rows", "Columns", "SamplesPerPixel"),
        *("NumberOfFrames", "RescaleSlope", "RescaleIntercept"),
    )
] + ORIGIN_TAGS
AXIAL_COSINE = math.cos(math.radians(30))  # a slice counts as axial when its normal is within 30° of the body's axis
SPACING_TOLERANCE_MM = 1e-3  # of the pixel spacing between the slices of a series
SAME_POSITION_MM = 1e-2  # two slices nearer than this lie at the same place
STEP_TOLERANCE = 0.25  # of the usual step between slices: positions are often rounded to 0.1 mm
TILT_TOLERANCE_MM = 1.0  # sideways drift of the slices' first voxels over the whole series


@dataclass(frozen=True)
class Series:
    """One regular CT series.

    Attributes
    ----------
    uid : its SeriesInstanceUID
    files : one file a slice, in the order of growing position along the normal
    shape : rows, columns
    patient : age and sex in its headers
    """

    uid: str
    files: tuple[Path, ...]
    shape: tuple[int, int]
    patient: Patient


@dataclass(frozen=True)
class _Slice:
    file: Path
    series_uid: str
    instance_uid: str
    position_mm: np.ndarray  # (3,), of the first voxel
    directions: np.ndarray  # (2, 3): along a row, along a column
    spacing_mm: tuple[float, float]  # between rows, between columns
    shape: tuple[int, int]  # rows, columns
    patient: Patient
    origin: Origin

    @property
    def normal(self) -> np.ndarray:
        return np.cross(*self.directions)

    @property
    def axial(self) -> bool:
        return bool(abs(self.normal[2]) >= AXIAL_COSINE)


def select_series(folder: Path, uid: str | None = None) -> Series:
    """The CT series with the most axial slices in a folder and its sub-folders, or the one with the given UID.

    Localizers, secondary captures, reports and other objects are left out; a file that is there twice (same SOP
    instance) counts once.

    Raises
    ------
    InputError
        No such series, or its slices do not form a regular volume: mixed sizes, spacings or directions, slices at the
        same position, gaps, a tilted gantry.
    """
    slices, others = _read_headers(folder)
    series: dict[str, list[_Slice]] = defaultdict(list)
    for each in slices:
        series[each.series_uid].append(each)
    axial = {key: sum(each.axial for each in series[key]) for key in sorted(series)}
    listing = "; ".join(f"{key} ({len(series[key])} slices)" for key in axial)
    if uid is not None and uid not in series:
        raise InputError(f"expected series {uid}, found {listing or _listing(others)}; choose one of these")
    if uid is None and not any(axial.values()):
        found = f"no axial one in {listing}; choose one by its UID" if series else f"{_listing(others)}; give a CT"
        raise InputError(f"expected a folder with a CT series in DICOM, found {found}")
    chosen = uid or max(axial, key=lambda key: axial[key])
    _check_one_scan(slices if uid is None else series[uid], folder, listing)
    try:
        ordered = _ordered(series[chosen])
    except InputError as error:
        hint = f" (or choose another series: {listing})" if len(series) > 1 else ""
        raise InputError(f"series {chosen}: {error}{hint}") from error
    return Series(chosen, tuple(each.file for each in ordered), ordered[0].shape, ordered[0].patient)


def _check_one_scan(slices: list[_Slice], folder: Path, listing: str) -> None:
    """Refuse slices that are known to be of several patients or studies: which of them is meant, nobody can tell."""
    if apart := two_apart([each.origin for each in slices]):
        one, other = (slices[place].file.relative_to(folder) for place in apart)
        raise InputError(
            f"expected one study of one patient, found several, such as those of {one} and {other}; give the folder of "
            f"one of them, or choose a series by its UID: {listing}"
        )


def _read_headers(folder: Path) -> tuple[list[_Slice], Counter[str]]:
    """Every CT slice below the folder, and how many files of which other kind lie there."""
    slices: dict[tuple[str, bytes, Origin], _Slice] = {}
    others: Counter[str] = Counter()
    # Odd values in tags we do not use are no concern of ours, and pydicom would warn about them.
    with pydicom.config.disable_value_validation():
        for file in in_time(sorted(in_time(files_below(folder)))):
            check_inside(file, folder)
            try:
                header = read_header(file, HEADER_TAGS)
                kind = _kind(header)
                if kind == "CT slice":
                    each = _slice(file, header)
                    slices.setdefault((each.instance_uid, each.position_mm.tobytes(), each.origin), each)
                else:
                    others[kind] += 1
            except InvalidDicomError:
                others["not DICOM"] += 1
            except PermissionError:
                raise
            except Exception as error:  # pydicom lets a dozen types through for damaged headers
                reason = str(error) or type(error).__name__
                raise InputError(
                    f"expected readable DICOM files, {file.relative_to(folder)} has a damaged header ({reason}); "
                    "export the series again"
                ) from error
    return list(slices.values()), others


def _kind(header: FileDataset) -> str:
    if header.get("SOPClassUID") in {EnhancedCTImageStorage, LegacyConvertedEnhancedCTImageStorage}:
        return "multi-frame CT, to be converted to one file a slice or to NIfTI"
    if header.get("SOPClassUID") != CTImageStorage:
        return f"DICOM of another kind ({header.get('Modality') or 'no modality'})"
    if "LOCALIZER" in (header.get("ImageType") or ()):
        return "localizer"
    if (header.get("NumberOfFrames") or 1) != 1 or (header.get("SamplesPerPixel") or 1) != 1:
        return "CT image with several frames or colours"
    geometry = (
        "SeriesInstanceUID",
        "ImagePositionPatient",
        "ImageOrientationPatient",
        "PixelSpacing",
        "Rows",
        "Columns",
    )
    return "CT slice" if all(header.get(key) for key in geometry) else "CT image without position, direction or spacing"


def _slice(file: Path, header: FileDataset) -> _Slice:
    numbers = [*header.ImagePositionPatient, *header.ImageOrientationPatient, *header.PixelSpacing]
    numbers += [header.get("RescaleSlope") or 1, header.get("RescaleIntercept") or 0]
    if not np.isfinite(np.array(numbers, dtype=float)).all():
        raise ValueError(f"not all numbers in {', '.join(map(str, numbers))}")
    return _Slice(
        file=file,
        series_uid=str(header.SeriesInstanceUID),
        instance_uid=str(header.get("SOPInstanceUID", file)),
        position_mm=np.array(header.ImagePositionPatient, dtype=float).reshape(3),
        directions=np.array(header.ImageOrientationPatient, dtype=float).reshape(2, 3),
        spacing_mm=(float(header.PixelSpacing[0]), float(header.PixelSpacing[1])),
        shape=(int(header.Rows), int(header.Columns)),
        patient=from_header(header.get("PatientAge"), header.get("PatientSex"), "dicom"),
        origin=origin_of(header),
    )


def _listing(kinds: Counter[str]) -> str:
    return "; ".join(f"{count} × {kind}" for kind, count in kinds.most_common()) or "no file"


def _ordered(slices: list[_Slice]) -> list[_Slice]:
    """Slices by their position along the normal, once they are known to form a regular volume."""
    first = slices[0]
    if len(slices) < 2:
        raise InputError("expected a volume, found one slice; give the whole series")
    if len(slices) * first.shape[0] * first.shape[1] > maximum_voxels():
        raise InputError(
            f"expected at most {maximum_voxels():,.0f} voxels, found {len(slices)} slices of {first.shape}; keep one "
            f"series only, or raise {SIZE_VARIABLE}"
        )
    _check_same_plane(slices)
    along = np.array([each.position_mm @ first.normal for each in slices])
    order = np.argsort(along, kind="stable")
    ordered, along = [slices[index] for index in order], along[order]
    _check_steps(ordered, along)
    _check_upright(ordered, along)
    return ordered


def _check_same_plane(slices: list[_Slice]) -> None:
    first = slices[0]
    gram = first.directions @ first.directions.T
    if np.abs(gram - np.eye(2)).max() > DIRECTION_TOLERANCE:
        raise InputError(
            f"expected rows at right angles to columns, found {first.directions.tolist()}; export it again"
        )
    shapes = {each.shape for each in slices}
    if len(shapes) > 1:
        raise InputError(f"expected slices of one size, found {sorted(shapes)}; keep one size only")
    spacings = np.array([each.spacing_mm for each in slices])
    if np.ptp(spacings, axis=0).max() > SPACING_TOLERANCE_MM:
        found = sorted({each.spacing_mm for each in slices})[:3]
        raise InputError(f"expected one pixel spacing, found {found} mm; keep one reconstruction only")
    if not spacings.min() > 0:
        raise InputError(f"expected a pixel spacing in mm, found {first.spacing_mm}; export the series again")
    turned = [each for each in slices if np.abs(each.directions - first.directions).max() > DIRECTION_TOLERANCE]
    if turned:
        raise InputError(
            f"expected slices of one orientation, found {len(slices) - len(turned)} like {first.file.name} and "
            f"{len(turned)} like {turned[0].file.name}; keep one orientation only"
        )


def _check_steps(ordered: list[_Slice], along_mm: np.ndarray) -> None:
    steps = np.diff(along_mm)
    same = np.flatnonzero(steps < SAME_POSITION_MM)
    if same.size:
        raise InputError(
            f"expected one slice a position, found {same.size} of {len(steps)} steps without a move (such as from "
            f"{ordered[same[0]].file.name} to {ordered[same[0] + 1].file.name}); keep one acquisition only"
        )
    usual = float(np.median(steps))
    uneven = np.flatnonzero(np.abs(steps - usual) > STEP_TOLERANCE * usual)
    if uneven.size:
        raise InputError(
            f"expected slices {usual:.2f} mm apart, {ordered[uneven[0]].file.name} and "
            f"{ordered[uneven[0] + 1].file.name} are {steps[uneven[0]]:.2f} mm apart: slices are missing or mixed; "
            "export the series again"
        )


def _check_upright(ordered: list[_Slice], along_mm: np.ndarray) -> None:
    offsets = np.array([each.position_mm - ordered[0].position_mm for each in ordered])
    sideways = np.linalg.norm(offsets - np.outer(along_mm - along_mm[0], ordered[0].normal), axis=1)
    worst = int(sideways.argmax())
    if sideways[worst] > TILT_TOLERANCE_MM:
        angle = math.degrees(math.atan2(sideways[worst], along_mm[worst] - along_mm[0]))
        raise InputError(
            f"expected slices stacked at right angles, they drift by {sideways[worst]:.1f} mm sideways: a gantry tilt "
            f"of {angle:.1f}°; resample to an untilted volume first (for example with dcm2niix)"
        )
