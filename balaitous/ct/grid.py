"""Where the voxels of a volume lie: the grid of a CT, and of every mask and map that is made on it.

NumPy's axes are (Z, Y, X). Numbers of single axes are in the order x, y, z, and positions are in mm in LPS, as in
SimpleITK and DICOM.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

Triple = tuple[float, float, float]

STRAIGHT = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)


@dataclass(frozen=True)
class Grid:
    """The grid of a volume in LPS.

    Attributes
    ----------
    shape : voxels (Z, Y, X)
    spacing_mm, origin_mm : x, y, z; the origin is the centre of voxel (0, 0, 0), in LPS
    direction : nine cosines, row by row; column k is the direction of axis k (x, y, z)
    """

    shape: tuple[int, ...]
    spacing_mm: Triple
    origin_mm: Triple = (0.0, 0.0, 0.0)
    direction: tuple[float, ...] = STRAIGHT

    def __str__(self) -> str:
        size, spacing = (" × ".join(f"{each:.4g}" for each in row) for row in (self.shape[::-1], self.spacing_mm))
        return f"{size} voxels of {spacing} mm"

    @property
    def voxel_ml(self) -> float:
        return math.prod(self.spacing_mm) / 1000

    @property
    def extent_mm(self) -> Triple:
        """From edge to edge, along x, y, z."""
        x, y, z = (n * spacing for n, spacing in zip(self.shape[::-1], self.spacing_mm, strict=True))
        return x, y, z

    @property
    def corners_mm(self) -> np.ndarray:
        """Where the first voxel is, and the last one along each axis: (4, 3), LPS."""
        edges = np.reshape(self.direction, (3, 3)) * ((np.array(self.shape[::-1]) - 1) * self.spacing_mm)
        return np.array(self.origin_mm) + np.vstack([np.zeros(3), edges.T])

    def apart_mm(self, other: Grid) -> float:
        """How far the corners of a grid of the same shape are from those of this one, at most."""
        return float(np.linalg.norm(self.corners_mm - other.corners_mm, axis=1).max())


@dataclass(frozen=True)
class StoredOrder:
    """How voxels were stored before they were put in LPS: the published package resamples them in that order.

    Attributes
    ----------
    axes : x, y, z: which stored axis became this one
    reversed : x, y, z: whether the stored voxels were reversed along that axis
    origin_mm : centre of the first stored voxel; None: as the grid has it
    """

    axes: tuple[int, int, int] = (0, 1, 2)
    reversed: tuple[bool, bool, bool] = (False, False, False)
    origin_mm: Triple | None = None
