"""Augment axial slices for the lung U-Net as other scanners, kernels and patients would vary them."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from balaitous.ct.lungs import AIR_HU, LEFT, RIGHT, WINDOW_HU, body_box
from balaitous.training.lungs.cases import LungCase


def draw_slice(case: LungCase, rng: np.random.Generator, grid: int) -> tuple[Tensor, Tensor]:
    """One augmented axial slice at the network's input.

    Returns
    -------
    image, labels
        (1, grid, grid) float32 in [0, 1]; (grid, grid) int64 of 0, 1, 2, 255
    """
    with_lung = np.flatnonzero(((case.labels == RIGHT) | (case.labels == LEFT)).any(axis=(1, 2)))
    low, high = with_lung[0], with_lung[-1]
    where = rng.random()
    if where < 0.2:  # the ends are few and hard
        k = min(max(int(rng.choice([low, high]) + rng.integers(-4, 5)), 0), len(case.hu) - 1)
    else:  # neck and belly hold air that is no lung
        k = int(rng.integers(len(case.hu)) if where < 0.4 else rng.integers(low, high + 1))
    hu, labels = case.hu[k].astype(np.float32), case.labels[k]

    if rng.random() < 0.12:
        hu, labels = narrow_view(hu, labels, rng)
    rows, columns = body_box(hu) if rng.random() < 0.93 else (slice(0, hu.shape[0]), slice(0, hu.shape[1]))
    image, target = augment_geometry(
        torch.from_numpy(hu), torch.from_numpy(labels.astype(np.float32)), (rows, columns), rng, grid
    )
    return augment_intensity(image, rng), target


def narrow_view(
    hu: NDArray[np.float32], labels: NDArray[np.uint8], rng: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Cut a slice (Y, X) to a circular field of view that just holds the lungs, or just does not."""
    lung = np.argwhere((labels == RIGHT) | (labels == LEFT))
    if len(lung) == 0:
        return hu, labels
    low, high = lung.min(axis=0), lung.max(axis=0)
    y, x = (low + high) / 2 + rng.normal(0, 4, 2)
    radius = max(float(np.linalg.norm(high - low)) / 2 * rng.uniform(0.8, 1.1), 30)
    rows, columns = np.ogrid[: hu.shape[0], : hu.shape[1]]
    outside = np.square(rows - y) + np.square(columns - x) > radius**2
    return np.where(outside, np.float32(AIR_HU), hu), np.where(outside, 0, labels).astype(np.uint8)


def augment_geometry(
    hu: Tensor, labels: Tensor, box: tuple[slice, slice], rng: np.random.Generator, grid: int, strength: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Resize the box of a slice to the grid while it is jittered, rotated, scaled and, half the time, mirrored.

    A mirror image swaps right and left, so labels 1 and 2 change places. With `strength` 0 nothing is random and the
    result is the method's own resize.

    Parameters
    ----------
    hu, labels : (Y, X) float32
    box : rows, columns of the body

    Returns
    -------
    (1, grid, grid) HU; (grid, grid) int64 labels
    """
    rows, columns = box
    half_y, half_x = (rows.stop - 1 - rows.start) / 2, (columns.stop - 1 - columns.start) / 2
    angle = math.radians(8) * strength * rng.normal()
    scale_y, scale_x = 1 + strength * 0.08 * rng.normal(size=2)
    shift_y, shift_x = strength * 0.05 * rng.normal(size=2)
    mirrored = strength > 0 and rng.random() < 0.5
    if mirrored:
        scale_x = -scale_x
    # Output coordinates in [−1, 1] → voxel offsets from the box's centre; rotation is done in voxels, so it is rigid.
    steps = torch.linspace(-1, 1, grid)
    v, u = torch.meshgrid(steps, steps, indexing="ij")
    y, x = (v * scale_y + shift_y) * half_y, (u * scale_x + shift_x) * half_x
    cos, sin = math.cos(angle), math.sin(angle)
    y, x = cos * y - sin * x + rows.start + half_y, sin * y + cos * x + columns.start + half_x
    height, width = hu.shape
    at = torch.stack([2 * x / (width - 1) - 1, 2 * y / (height - 1) - 1], dim=-1)[None]
    # grid_sample reads 0 outside the image: shift HU so that 0 is air.
    image = F.grid_sample((hu - AIR_HU)[None, None], at, mode="bilinear", align_corners=True)[0] + AIR_HU
    target = F.grid_sample(labels[None, None], at, mode="nearest", align_corners=True)[0, 0].long()
    return image, swap_sides(target) if mirrored else target


def swap_sides(labels: Tensor) -> Tensor:
    """Labels of the mirror image: right becomes left; background and unknown stay."""
    return torch.where((labels == RIGHT) | (labels == LEFT), RIGHT + LEFT - labels, labels)


def augment_intensity(hu: Tensor, rng: np.random.Generator) -> Tensor:
    """Scanner variety: kernel (blur, or sharpening with its ringing), noise, calibration; HU in, [0, 1] out.

    Parameters
    ----------
    hu : (1, H, W)
    """
    image = hu[None]
    if rng.random() < 0.3:  # low resolution
        small = max(int(hu.shape[-1] * rng.uniform(0.35, 0.8)), 16)
        image = F.interpolate(image, size=(small, small), mode="bilinear", align_corners=True)
        image = F.interpolate(image, size=hu.shape[-2:], mode="bicubic", align_corners=True)
    if rng.random() < 0.35:  # positive: sharpen, with overshoot at borders; negative: blur
        smooth = F.avg_pool2d(image, 3, stride=1, padding=1, count_include_pad=False)
        image = image + rng.uniform(-0.8, 1.2) * (image - smooth)
    if rng.random() < 0.6:
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        noise = torch.randn(image.shape, generator=generator)
        if rng.random() < 0.5:
            noise = F.avg_pool2d(noise, 3, stride=1, padding=1) * 2.5
        image = image + rng.exponential(25) * noise
    if rng.random() < 0.5:
        image = image * rng.normal(1, 0.04) + rng.normal(0, 25)
    low, high = WINDOW_HU
    return (image[0].clamp(low, high) - low) / (high - low)
