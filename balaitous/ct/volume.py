"""A chest CT as a volume in Hounsfield units: read, orient, resample, write.

Of the package only this, `balaitous.ct.image_file` and `balaitous.reading.itk` import SimpleITK.

SimpleITK's axes are (x, y, z), NumPy's (Z, Y, X); both point to the patient's left, posterior and superior (LPS) once
a volume is read. Any stored orientation gets there without loss, by exchanging and reversing axes; an oblique volume
takes the nearest axes and keeps its own directions.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import permutations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import SimpleITK as sitk

from balaitous.ct.dicom import select_series
from balaitous.ct.dicom_pixels import read_hounsfield
from balaitous.ct.enhanced import is_enhanced
from balaitous.ct.grid import Grid, StoredOrder, Triple
from balaitous.ct.image_file import read_image_file
from balaitous.ct.plausibility import FLOOR_HU, check_hounsfield, check_volume
from balaitous.ct.slices import Slice
from balaitous.errors import InputError, MaskError, one_line
from balaitous.reading.archive import unpacked
from balaitous.reading.headers import IMAGE_ENDINGS, scan_name
from balaitous.reading.integrity import check_is_data
from balaitous.reading.limits import maximum_voxels
from balaitous.reading.patient import Patient, format_age, format_sex, read_sidecar

SPACING_MM = (1.5, 1.5, 5.0)  # x, y, z: what the published networks were trained on
GRID_TOLERANCE = 0.1  # of the smallest spacing: headers round; a mask further off was made on another grid


@dataclass(frozen=True)
class CT:
    """One chest CT in LPS.

    Attributes
    ----------
    hu : (Z, Y, X), Hounsfield units ≥ −1024; int16 where the source is integral, else float32
    grid : where the voxels lie
    name : name of the file or the series folder, without endings: the PatientID of tables
    path : where it was read from; "" for one from memory
    series_uid : SeriesInstanceUID, DICOM only
    series : what was read of a DICOM folder: kernel, slice thickness, number of slices
    other_series : the same of the CT series that were there and not read, with their UIDs
    patient : what header and side-car say of age and sex
    stored : the order of the voxels in the file, which `resample` goes back to
    doubts : what its header leaves open or says in two ways, and how it was taken

    Raises
    ------
    ValueError : the voxels are not of the grid's shape
    """

    hu: np.ndarray
    grid: Grid
    name: str
    path: str = ""
    series_uid: str | None = None
    patient: Patient = field(default_factory=Patient)
    stored: StoredOrder = field(default_factory=StoredOrder)
    series: str | None = None
    other_series: str | None = None
    doubts: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.hu.shape != self.grid.shape:
            raise ValueError(f"hu must have the grid's shape {self.grid.shape}. Got {self.hu.shape} instead.")


class Placed(NamedTuple):
    """Where voxels lie as they are stored, in the order of SimpleITK: size, spacing, origin, direction cosines."""

    size: tuple[int, ...]
    spacing_mm: Triple
    origin_mm: Triple
    direction: tuple[float, ...]


def read_ct(path: str | os.PathLike[str], *, series: str | None = None) -> CT:
    """Read a chest CT.

    Parameters
    ----------
    path : an image file (`IMAGE_ENDINGS`), a folder with a DICOM series, a zip of such a folder, or an Enhanced CT file
    series : SeriesInstanceUID to read from a folder or zip; None: the series with the most axial slices

    Raises
    ------
    InputError
        There is nothing to read, it is damaged, or it is not a volume in Hounsfield units.
    """
    path = Path(path)
    name = path.name.lower()
    try:
        if not path.exists():
            raise InputError("expected an image file, a DICOM folder or a zip of one, found nothing; check the path")
        if path.is_dir():
            return _read_series(path, path, series)
        if name.endswith(".zip"):
            check_is_data(path)
            with unpacked(path) as folder:
                return _read_series(folder, path, series)
        if not name.endswith(IMAGE_ENDINGS):
            if is_enhanced(path):
                return _read_series(path, path, series)
            what = (
                "a single DICOM file; give its folder" if name.endswith(".dcm") else f"{path.suffix or 'no ending'!r}"
            )
            raise InputError(f"expected {', '.join(IMAGE_ENDINGS)}, a DICOM folder or a .zip of one, found {what}")
        if series is not None:
            raise InputError(f"expected a DICOM folder or zip to choose series {series} from, found an image file")
        return _read_file(path)
    except InputError as error:
        raise InputError(one_line(f"{path}: {error}")) from error
    except OSError as error:
        reason = "access is denied" if isinstance(error, PermissionError) else error.strerror or type(error).__name__
        message = f"{path}: expected a readable file, {reason}; check its name, its permissions and the disk"
        raise InputError(one_line(message)) from error


def resample(ct: CT, spacing_mm: Triple = SPACING_MM) -> CT:
    """Resample to another spacing with trilinear interpolation.

    The new grid has ⌊n·s/s'⌋ voxels along an axis of n voxels of spacing s, keeps the first *stored* voxel and the
    pixel type (integers are truncated) and holds 0 outside the old grid. That is what the published package does before
    it orients the image; so where an axis was reversed on reading, the grids share the last voxel, not the first.

    Raises
    ------
    InputError
        The volume is thinner than one new voxel.
    """
    hu, grid, order = _resampled(ct.hu, ct, spacing_mm)
    if hu is ct.hu:
        return ct
    return replace(ct, hu=hu, grid=grid, stored=order)


def resample_on(ct: CT, array: np.ndarray, spacing_mm: Triple = SPACING_MM) -> np.ndarray:
    """Resample an array (Z, Y, X) on the grid of a CT, such as a mask, as `resample` does the CT.

    Raises
    ------
    InputError : as `resample`
    """
    return _resampled(array, ct, spacing_mm)[0]


def _resampled(array: np.ndarray, ct: CT, spacing_mm: Triple) -> tuple[np.ndarray, Grid, StoredOrder]:
    size, old_spacing_mm = ct.grid.shape[::-1], ct.grid.spacing_mm
    new_size = [int(n * old / new) for n, old, new in zip(size, old_spacing_mm, spacing_mm, strict=True)]
    if min(new_size) < 1 or math.prod(new_size) > maximum_voxels():
        extent = " × ".join(f"{each:.4g}" for each in ct.grid.extent_mm)
        raise InputError(f"{ct.path}: expected a chest, found {extent} mm; give a whole CT with its spacing in mm")
    if tuple(new_size) == size and tuple(spacing_mm) == old_spacing_mm:
        return array, ct.grid, ct.stored
    stored = _stored_image(array, ct.grid, ct.stored)
    resampled = sitk.Resample(
        stored,
        _in_stored_order(new_size, ct.stored.axes),
        sitk.Transform(),
        sitk.sitkLinear,
        stored.GetOrigin(),
        _in_stored_order(spacing_mm, ct.stored.axes),
        stored.GetDirection(),
        0.0,
        stored.GetPixelID(),
    )
    return _oriented(_placed_as(resampled), sitk.GetArrayFromImage(resampled))


def read_labels(path: str | os.PathLike[str], ct: CT) -> np.ndarray:
    """Labels on the grid of a CT, such as a lung mask; `read_ct` refuses these, they hold no Hounsfield units.

    Parameters
    ----------
    path : an image file (`IMAGE_ENDINGS`)
    ct : as it was read, not resampled

    Returns
    -------
    (Z, Y, X) in LPS, the values as they are stored

    Raises
    ------
    MaskError
        It cannot be read, or a voxel of it is not where the same voxel of the CT is.
    """
    path = Path(path)
    try:
        if not path.is_file():
            raise InputError("found no such file; check the path")
        image, *_ = read_image_file(path)
    except InputError as error:
        raise MaskError(f"{path}: expected the mask of {ct.path}: {error}") from error
    labels, grid, _ = _oriented(_placed_as(image), sitk.GetArrayFromImage(image))
    found = str(grid)
    if grid.shape == ct.grid.shape:
        apart_mm = grid.apart_mm(ct.grid)
        if apart_mm <= GRID_TOLERANCE * min(ct.grid.spacing_mm):
            return labels
        found += f", a corner of it {apart_mm:.3g} mm away"
    raise MaskError(
        f"{path}: expected a mask on the grid of {ct.path} ({ct.grid}), found {found}. Resample it to its CT "
        "(nearest neighbour), and check origin and direction."
    )


def write_mha(path: str | os.PathLike[str], ct: CT) -> None:
    """Write a CT, in LPS, as zlib-compressed MetaImage with ``PatientAge`` (whole years) and ``PatientSex``."""
    patient = {}
    if ct.patient.age_years is not None:
        patient["PatientAge"] = format_age(ct.patient.age_years)
    if ct.patient.sex is not None:
        patient["PatientSex"] = format_sex(ct.patient.sex)
    write_volume(path, ct.hu, ct.grid, patient)


def write_volume(
    path: str | os.PathLike[str], array: np.ndarray, grid: Grid, header: Mapping[str, str] | None = None
) -> None:
    """Write voxels, such as a mask on the grid of its CT, as a compressed image file.

    Parameters
    ----------
    path : its ending, one of `IMAGE_ENDINGS`, tells the format
    array : (Z, Y, X), of the grid's shape; bool is written as 0 and 1
    header : what the format's header says besides

    Raises
    ------
    ValueError : the voxels are not of the grid's shape
    """
    if array.shape != grid.shape:
        raise ValueError(f"array must have the grid's shape {grid.shape}. Got {array.shape} instead.")
    image = sitk.GetImageFromArray(np.ascontiguousarray(array.astype(np.uint8) if array.dtype == bool else array))
    image.SetSpacing(grid.spacing_mm)
    image.SetOrigin(grid.origin_mm)
    image.SetDirection(grid.direction)
    for key, value in (header or {}).items():
        image.SetMetaData(key, value)
    sitk.WriteImage(image, os.fspath(path), useCompression=True)


def _read_series(folder: Path, path: Path, uid: str | None) -> CT:
    chosen = select_series(folder, uid)
    stored, padded = read_hounsfield(chosen.slices)
    placed = _placed(chosen.slices)
    check_volume(*placed)
    hu, grid, order = _oriented(placed, stored)
    return CT(
        hu,
        grid,
        scan_name(path),
        os.fspath(path),
        chosen.uid or None,
        _with_sidecar(path, chosen.patient),
        order,
        chosen.told + ", padding read as air" * padded,
        chosen.others or None,
    )


def _placed(slices: Sequence[Slice]) -> Placed:
    """Where the voxels of a series lie; the step between slices is the mean one, rows turn at right angles."""
    first, last = slices[0], slices[-1]
    x, y, z = first.position_mm.tolist()
    between_rows_mm, between_columns_mm = first.spacing_mm
    normal = _unit(np.cross(*first.directions))
    row = _unit(np.cross(first.directions[1], normal))
    return Placed(
        (first.shape[1], first.shape[0], len(slices)),
        (between_columns_mm, between_rows_mm, _length(last.position_mm - first.position_mm) / (len(slices) - 1)),
        (x, y, z),
        tuple(np.column_stack((row, np.cross(normal, row), normal)).ravel().tolist()),
    )


def _length(vector: np.ndarray) -> float:
    """Of three numbers, added in their order: ITK's own digits."""
    x, y, z = vector.tolist()
    return math.sqrt(x * x + y * y + z * z)


def _unit(vector: np.ndarray) -> np.ndarray:
    return vector * (1 / _length(vector))


def _read_file(path: Path) -> CT:
    image, stored_patient, doubts = read_image_file(path)
    patient = _with_sidecar(path, stored_patient)
    hu, grid, order = _oriented(_placed_as(image), _hounsfield(image))
    return CT(hu, grid, scan_name(path), os.fspath(path), None, patient, order, doubts=doubts)


def _with_sidecar(path: Path, patient: Patient) -> Patient:
    """What a header tells of the patient, filled up with what the side-car of a scan does."""
    sidecar = Path(os.path.abspath(path)).parent / f"{scan_name(path)}.json"
    return patient.filled_from(read_sidecar(sidecar)) if sidecar.is_file() else patient


def _hounsfield(image: sitk.Image) -> np.ndarray:
    """Stored voxels in their stored order as int16 or float32, padding clamped, once they can be Hounsfield units."""
    stored = sitk.GetArrayViewFromImage(image)
    integral = np.issubdtype(stored.dtype, np.integer)
    check_hounsfield(float(stored.min()), float(stored.max()), integral=integral)
    kind: type[np.number] = np.int16 if integral else np.float32
    # One pass into the array that stays: a copy of a thin-slice CT is half a gigabyte.
    return np.maximum(stored, kind(FLOOR_HU), out=np.empty(stored.shape, kind), casting="unsafe")


def _placed_as(image: sitk.Image) -> Placed:
    return Placed(image.GetSize(), image.GetSpacing(), image.GetOrigin(), image.GetDirection())


def _oriented(stored: Placed, array: np.ndarray) -> tuple[np.ndarray, Grid, StoredOrder]:
    """`array`, in the order of `stored`, seen in LPS; its grid; and how it was stored."""
    direction = np.reshape(stored.direction, (3, 3))
    i, j, k = max(permutations(range(3)), key=lambda order: sum(abs(direction[n, order[n]]) for n in range(3)))
    axes = (i, j, k)
    direction = direction[:, axes]
    x, y, z = (bool(direction[n, n] < 0) for n in range(3))
    back = (x, y, z)
    size, spacing = np.array(stored.size)[list(axes)], np.array(stored.spacing_mm)[list(axes)]
    origin = np.array(stored.origin_mm) + direction @ (back * (size - 1) * spacing)
    # NumPy's axes count the other way: x is axis 2.
    turned = _reversed_along(array.transpose([2 - axes[n] for n in (2, 1, 0)]), back)
    grid = Grid(
        turned.shape,
        tuple(spacing.tolist()),
        tuple(origin.tolist()),
        tuple((np.where(back, -direction, direction) + 0.0).ravel().tolist()),
    )
    return turned, grid, StoredOrder(axes, back, stored.origin_mm)


def _stored_image(array: np.ndarray, grid: Grid, order: StoredOrder) -> sitk.Image:
    """Inverse of `_oriented`: voxels and geometry as they were stored."""
    columns = np.reshape(grid.direction, (3, 3)) * np.where(order.reversed, -1.0, 1.0)
    first_voxel = np.array(order.reversed) * (np.array(grid.shape[::-1]) - 1) * grid.spacing_mm
    places = np.argsort(order.axes)
    stored = _reversed_along(array, order.reversed).transpose([2 - places[k] for k in (2, 1, 0)])
    image = sitk.GetImageFromArray(np.ascontiguousarray(stored))
    image.SetSpacing(_in_stored_order(grid.spacing_mm, order.axes))
    image.SetOrigin(order.origin_mm or tuple(np.array(grid.origin_mm) - columns @ first_voxel))
    image.SetDirection(columns[:, places].ravel().tolist())
    return image


def _reversed_along(array: np.ndarray, axes: Sequence[bool]) -> np.ndarray:
    """View of `array` (Z, Y, X) reversed along the given axes (x, y, z)."""
    return array[tuple(slice(None, None, -1 if each else None) for each in axes[::-1])]


def _in_stored_order(values: Any, stored_axes: tuple[int, int, int]) -> list:
    """Values for x, y, z as a list for the stored axes."""
    return [values[k] for k in np.argsort(stored_axes)]
