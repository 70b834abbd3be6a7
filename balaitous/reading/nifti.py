"""NIfTI-1 and NIfTI-2 in one file, plain or gzipped: what the header says, and the voxels as they are stored.

ITK's reader is not asked. It makes 0 of NaN, takes pixdim where the sform says another spacing, adds an intercept where
the header wants no rescaling, refuses a sform that was rounded, and reads neither NIfTI-2 nor gzip under ``.nii``.

The sform is taken where it counts (sform_code > 0), else the qform, as nibabel and FSL do. Where neither counts the
axes are those of ITK, 3D Slicer and ITK-SNAP. Positions are turned from NIfTI's RAS to LPS.

References
----------
https://nifti.nimh.nih.gov/pub/dist/src/niftilib/nifti1.h · https://nifti.nimh.nih.gov/pub/dist/doc/nifti2.h
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from balaitous.errors import InputError
from balaitous.reading.integrity import GZIP_MAGIC, StoredVoxels, read_whole

Triple = tuple[float, float, float]

TYPES = {2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4", 1024: "i8", 1280: "u8"}
UNIT_MM = {1: 1000.0, 3: 1e-3}  # metres and microns; 2 is mm, and what is not told is taken for it
UNIT_BITS = 7  # of xyzt_units; the others are those of time
RAS_TO_LPS = np.array([-1.0, -1.0, 1.0])
ROUNDING = 1e-3  # of a sform's numbers, that are written with three digits: in mm, and of longer steps' length
TURNED = 1e-2  # of direction cosines: 0.6°; a qform turned by more says something else than the sform
UNIT_QUATERNION = 1e-3  # by which b² + c² + d² may exceed 1
SHEAR_DEGREES = 0.2  # that rounding to three digits makes; a larger one is told
FLOAT32_ROUNDING = 1e-6  # of cosines that are at right angles
NO_COSINE = 1e-12  # ITK's decompositions print where they meet numbers near the smallest there are


@dataclass(frozen=True)
class _Layout:
    """Where a header has its fields: the byte that each starts at, and its numbers as `struct` names them."""

    length: int
    magic: tuple[int, bytes]
    fields: Mapping[str, tuple[int, str]]

    @property
    def voxels_from(self) -> int:
        """The first byte that voxels can be at: four tell whether extensions follow the header."""
        return self.length + 4


NIFTI_1 = _Layout(
    348,
    (344, b"n+1\0"),
    {
        **{"dim": (40, "8h"), "datatype": (70, "h"), "bitpix": (72, "h"), "pixdim": (76, "8f")},
        **{"vox_offset": (108, "f"), "scl_slope": (112, "f"), "scl_inter": (116, "f"), "xyzt_units": (123, "B")},
        **{"qform_code": (252, "h"), "sform_code": (254, "h"), "quatern": (256, "3f"), "qoffset": (268, "3f")},
        "srow": (280, "12f"),
    },
)
NIFTI_2 = _Layout(
    540,
    (4, b"n+2\0\r\n\x1a\n"),
    {
        **{"datatype": (12, "h"), "bitpix": (14, "h"), "dim": (16, "8q"), "pixdim": (104, "8d")},
        **{"vox_offset": (168, "q"), "scl_slope": (176, "d"), "scl_inter": (184, "d"), "xyzt_units": (500, "i")},
        **{"qform_code": (344, "i"), "sform_code": (348, "i"), "quatern": (352, "3d"), "qoffset": (376, "3d")},
        "srow": (400, "12d"),
    },
)


@dataclass(frozen=True)
class NiftiHeader:
    """What the header of a NIfTI file says.

    Attributes
    ----------
    size : voxels along x, y, z and, where there is more than one volume, further axes
    spacing_mm, origin_mm : x, y, z as they are stored; the centre of the first voxel in LPS
    direction : (3, 3), column k the direction of axis k in LPS, of length 1, at right angles or not
    dtype : of a voxel as it is stored, with its byte order
    scaling : slope and intercept that make the values; None: the stored numbers are the values
    voxels : where they are
    """

    size: tuple[int, ...]
    spacing_mm: Triple
    origin_mm: Triple
    direction: NDArray[np.float64]
    dtype: np.dtype[Any]
    scaling: tuple[float, float] | None
    voxels: StoredVoxels


def locate_nifti(path: Path) -> StoredVoxels:
    """Where the voxels of a NIfTI file are.

    Raises
    ------
    InputError : as `read_nifti_header`
    """
    return read_nifti_header(path).voxels


def read_nifti_header(path: Path) -> NiftiHeader:
    """The header of a NIfTI file, gzipped or not, whatever its ending says of that.

    Raises
    ------
    InputError : it is none, it is one of a pair of files, or it cannot be true
    """
    compressed, header = _header_bytes(path)
    layout, order = _layout_of(header, path.name)
    fields: dict[str, Any] = {}
    for key, (at, kind) in layout.fields.items():
        numbers = struct.unpack_from(order + kind, header, at)
        fields[key] = numbers if len(numbers) > 1 else numbers[0]
    datatype, bits = fields["datatype"], fields["bitpix"]
    dtype = np.dtype(order + TYPES.get(datatype, "V1"))
    if datatype not in TYPES or bits != 8 * dtype.itemsize:
        raise InputError(
            f"expected one number a voxel, found NIfTI datatype {datatype} with {bits} bits (such as RGB, or a damaged "
            "header); give a CT in Hounsfield units"
        )
    spacing_mm, origin_mm, direction, doubts = _geometry(fields)
    offset = fields["vox_offset"]
    if not layout.voxels_from <= offset < math.inf:
        raise InputError(
            f"expected NIfTI voxels from byte {layout.voxels_from} on, found vox_offset {offset:g}; write the file "
            "again"
        )
    voxels = StoredVoxels(path, 0, compressed, header_bytes=int(offset), doubts=doubts)
    return NiftiHeader(_size(fields["dim"]), spacing_mm, origin_mm, direction, dtype, _scaling(fields), voxels)


def read_nifti_voxels(header: NiftiHeader) -> NDArray:
    """The values of a single volume.

    Returns
    -------
    (Z, Y, X) in stored order: the stored numbers in the machine's byte order, or float32 where the header rescales

    Raises
    ------
    InputError : the file is damaged, or does not hold what its header says
    """
    x, y, z = header.size[:3]
    start, count = header.voxels.header_bytes, x * y * z
    content = read_whole(header.voxels, start + count * header.dtype.itemsize)
    stored = np.frombuffer(content, header.dtype, count, start).reshape(z, y, x)
    if header.scaling is None:
        return np.require(stored, header.dtype.newbyteorder("="), ["C", "A"])
    slope, intercept = header.scaling
    values = np.empty(stored.shape, np.float32)
    with np.errstate(over="ignore", invalid="ignore"):  # what becomes infinite is refused by who looks at the values
        for scaled, axial in zip(values, stored, strict=True):
            scaled[...] = axial.astype(np.float64) * slope + intercept
    return values


def nearest_rotation(direction: NDArray[np.float64]) -> NDArray[np.float64]:
    """The axes at right angles that are nearest to some that nearly are (mirrored ones stay mirrored).

    Parameters
    ----------
    direction : (3, 3), direction cosines in columns
    """
    if np.abs(direction.T @ direction - np.eye(3)).max() <= FLOAT32_ROUNDING:
        return direction
    left, _, right = np.linalg.svd(direction)
    return left @ right


def shear_degrees(direction: NDArray[np.float64]) -> float:
    """The largest angle by which two axes miss being at right angles.

    Parameters
    ----------
    direction : (3, 3), direction cosines in columns
    """
    cosines = np.clip(direction.T @ direction, -1, 1)
    return float(np.degrees(np.arcsin(np.abs(cosines[~np.eye(3, dtype=bool)]).max())))


def _header_bytes(path: Path) -> tuple[bool, bytes]:
    """Whether a file is gzipped, and the first bytes of what it holds."""
    with path.open("rb") as file:
        compressed = file.read(2) == GZIP_MAGIC
    try:
        with gzip.open(path) if compressed else path.open("rb") as file:
            return compressed, file.read(NIFTI_2.length)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"expected a gzip file, {path.name} is damaged ({error}); copy it again") from error


def _layout_of(header: bytes, name: str) -> tuple[_Layout, str]:
    """Which NIfTI it is, and its byte order."""
    for layout in (NIFTI_1, NIFTI_2):
        for order in "<>":
            if len(header) < layout.length or header[:4] != struct.pack(f"{order}i", layout.length):
                continue
            at, magic = layout.magic
            if header[at : at + len(magic)] == magic:
                return layout, order
            if layout is NIFTI_1 or header[at : at + 3] == b"ni2":  # the voxels are in another file
                raise InputError(
                    "expected NIfTI in one file (n+1 or n+2), found Analyze or a pair of files; convert it to .nii"
                )
    raise InputError(
        f"expected a NIfTI-1 or NIfTI-2 header, found none; {name} is cut short, or not what its ending says"
    )


def _size(dim: tuple[int, ...]) -> tuple[int, ...]:
    """Voxels along each axis; axes of one voxel behind the third are no axes."""
    if not 1 <= dim[0] <= 7:
        raise InputError(f"expected a 3-D volume, found dim[0] = {dim[0]} in its NIfTI header; write the file again")
    size = dim[1 : dim[0] + 1]
    while len(size) > 3 and size[-1] == 1:
        size = size[:-1]
    return size


def _scaling(fields: Mapping[str, Any]) -> tuple[float, float] | None:
    """Slope and intercept; a slope of 0 says that the stored numbers are the values, whatever the intercept."""
    slope, intercept = fields["scl_slope"], fields["scl_inter"]
    if slope == 0 or (slope, intercept) == (1, 0):
        return None
    if not (math.isfinite(slope) and math.isfinite(intercept)):
        raise InputError(
            f"expected numbers for scl_slope and scl_inter, found {slope:g} and {intercept:g}; set them to 1 and 0, or "
            "to what makes Hounsfield units"
        )
    return slope, intercept


@np.errstate(over="ignore", invalid="ignore")  # what becomes infinite is no size of a chest, and refused as such
def _geometry(fields: Mapping[str, Any]) -> tuple[Triple, Triple, NDArray[np.float64], tuple[str, ...]]:
    """Spacing and origin in mm, directions, and what is doubtful of them."""
    by_sform, by_qform = fields["sform_code"] > 0, fields["qform_code"] > 0
    numbers = fields["pixdim"][1:4]
    numbers += (fields["pixdim"][0], *fields["quatern"], *fields["qoffset"]) if by_qform else ()
    numbers += fields["srow"] if by_sform else ()
    if not all(map(math.isfinite, numbers)):
        raise InputError("expected numbers for voxel sizes, place and directions, found NaN or infinity; correct them")
    unit_mm = UNIT_MM.get(fields["xyzt_units"] & UNIT_BITS, 1.0)
    spacing_mm = np.array(fields["pixdim"][1:4]) * unit_mm
    if not (by_sform or by_qform):
        doubt = (
            "qform_code and sform_code are 0, so it tells no orientation: its axes are taken to point left, to the "
            "back and up, as ITK does, other programs see it mirrored"
        )
        return _triple(spacing_mm), (0.0, 0.0, 0.0), np.eye(3), (doubt,)
    turned = _quaternion_directions(fields) if by_qform else None
    if not by_sform:
        assert turned is not None
        return _triple(spacing_mm), _triple(RAS_TO_LPS * fields["qoffset"] * unit_mm), turned, ()
    rows = np.reshape(fields["srow"], (3, 4))
    lengths = np.array([math.hypot(*column) for column in rows[:, :3].T])
    direction = RAS_TO_LPS[:, None] * (rows[:, :3] / np.where(lengths > 0, lengths, 1.0))
    direction = np.where(np.abs(direction) > NO_COSINE, direction, 0.0)
    lengths, doubts, told = lengths * unit_mm, [], np.abs(spacing_mm)
    apart = np.abs(lengths - told) > ROUNDING * np.maximum(1.0, told)
    if apart.any():
        doubts.append(f"pixdim says {_times(spacing_mm)} mm, the sform {_times(lengths)} mm, which is taken")
    if (shear := shear_degrees(direction)) > SHEAR_DEGREES:
        doubts.append(f"its sform has a shear of {shear:.2g}°, which is straightened: resample to a rectangular grid")
    if turned is not None and np.abs(turned - direction).max() > TURNED:
        doubts.append("the axes of its qform point elsewhere than those of its sform, which are taken")
    # pixdim where it says the same: a sform's numbers are the rounder ones.
    spacing_mm = np.where(apart, lengths, told)
    return _triple(spacing_mm), _triple(RAS_TO_LPS * rows[:, 3] * unit_mm), direction, tuple(doubts)


def _quaternion_directions(fields: Mapping[str, Any]) -> NDArray[np.float64]:
    """(3, 3), column k the direction of axis k in LPS, of the qform: a unit quaternion, and the way of the third."""
    b, c, d = fields["quatern"]
    rest = 1.0 - (b * b + c * c + d * d)
    if rest < -UNIT_QUATERNION:
        raise InputError(
            f"expected a rotation in the qform, found the quaternion {b:g}, {c:g}, {d:g}; write the file again"
        )
    if rest < FLOAT32_ROUNDING:  # a half turn
        length = math.hypot(b, c, d)
        a, b, c, d = 0.0, b / length, c / length, d / length
    else:
        a = math.sqrt(rest)
    rotation = np.array(
        [
            [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
            [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
            [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - c * c - b * b],
        ]
    )
    rotation[:, 2] *= -1.0 if fields["pixdim"][0] < 0 else 1.0
    return np.where(np.abs(rotation) > NO_COSINE, RAS_TO_LPS[:, None] * rotation, 0.0)


def _times(numbers: NDArray[np.float64]) -> str:
    return " × ".join(f"{each:.4g}" for each in numbers)


def _triple(numbers: NDArray[np.float64]) -> Triple:
    x, y, z = (float(each) + 0.0 for each in numbers)
    return x, y, z
