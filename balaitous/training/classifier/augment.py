"""Augmented pictures: what another scanner, viewer or figure would have made of the same slice.

Steps have names and an order; each draws from the generator that it is given, so that the same seed draws the same.
Pictures are (B, H, W) grey in [0, 1].
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class AugmentSettings:
    """How strongly each step changes a picture; 0 leaves a step out.

    Attributes
    ----------
    flip : share of the pictures that are mirrored, left for right
    zoom : from, to: factors by which a picture is made larger; (1, 1) leaves it
    stretch : standard deviation of the logarithm of its width over its height
    rotate_degrees, shear_degrees : standard deviation; largest angle
    shift : standard deviation, as a share of the side
    gamma, contrast, brightness : standard deviations: of the logarithm of an exponent, of a factor, of a summand
    noise : largest standard deviation of what is added to each pixel
    """

    flip: float = 0.5
    zoom: tuple[float, float] = (1.0, 1.0)
    stretch: float = 0.0
    rotate_degrees: float = 0.0
    shear_degrees: float = 0.0
    shift: float = 0.0
    gamma: float = 0.0
    contrast: float = 0.0
    brightness: float = 0.0
    noise: float = 0.0


def augment(pictures: Tensor, how: AugmentSettings, rng: np.random.Generator) -> Tensor:
    """Every step of `STEPS` in its order; pictures (B, H, W) in [0, 1] in and out."""
    for step in STEPS.values():
        pictures = step(pictures, how, rng)
    return pictures


def flip(pictures: Tensor, how: AugmentSettings, rng: np.random.Generator) -> Tensor:
    """Left for right, of a share of the pictures."""
    mirrored = torch.from_numpy(rng.random(len(pictures)) < how.flip)
    return torch.where(mirrored[:, None, None], pictures.flip(-1), pictures)


def geometry(pictures: Tensor, how: AugmentSettings, rng: np.random.Generator) -> Tensor:
    """Zoom, stretch, rotation, shear and shift at once, about the middle; what lies outside is black."""
    count = len(pictures)
    zoom = rng.uniform(*how.zoom, size=count)
    stretch = np.exp(how.stretch * rng.normal(size=count) / 2)
    angle = np.deg2rad(how.rotate_degrees) * rng.normal(size=count)
    shear = np.tan(math.radians(how.shear_degrees) * rng.uniform(-1, 1, size=count))
    shift = 2 * how.shift * rng.normal(size=(count, 2))
    if how.zoom == (1, 1) and not (how.stretch or how.rotate_degrees or how.shear_degrees or how.shift):
        return pictures
    cos, sin = np.cos(angle), np.sin(angle)
    x, y = 1 / (zoom * stretch), stretch / zoom
    rows = [[x * cos, x * (shear * cos - sin), shift[:, 0]], [y * sin, y * (shear * sin + cos), shift[:, 1]]]
    theta = torch.from_numpy(np.array(rows)).float().permute(2, 0, 1)
    grid = F.affine_grid(theta, [count, 1, *pictures.shape[-2:]], align_corners=False)
    return F.grid_sample(pictures[:, None], grid, mode="bilinear", align_corners=False)[:, 0]


def grey_levels(pictures: Tensor, how: AugmentSettings, rng: np.random.Generator) -> Tensor:
    """Another gamma, contrast and brightness: other windows and viewers."""
    gamma, contrast, brightness = (
        torch.from_numpy(scale * rng.normal(size=(len(pictures), 1, 1))).float()
        for scale in (how.gamma, how.contrast, how.brightness)
    )
    if not (how.gamma or how.contrast or how.brightness):
        return pictures
    changed = pictures.clamp(0, 1) ** gamma.exp()
    return ((changed - 0.5) * (1 + contrast) + 0.5 + brightness).clamp(0, 1)


def noise(pictures: Tensor, how: AugmentSettings, rng: np.random.Generator) -> Tensor:
    """What a lower dose, or a JPEG, adds."""
    seed = int(rng.integers(2**62))
    strength = torch.from_numpy(how.noise * rng.random((len(pictures), 1, 1))).float()
    if not how.noise:
        return pictures
    drawn = torch.randn(pictures.shape, generator=torch.Generator().manual_seed(seed))
    return (pictures + strength * drawn).clamp(0, 1)


STEPS: Mapping[str, Callable[[Tensor, AugmentSettings, np.random.Generator], Tensor]] = {
    "flip": flip,
    "geometry": geometry,
    "grey levels": grey_levels,
    "noise": noise,
}
