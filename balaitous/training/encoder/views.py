"""Views of CT slices for self-distillation: crops of several sizes, as another scanner might have shown them.

What an encoder should not care about is drawn at random: which part of the slice is seen, up and down (the method
averages over both), a neighbouring slice instead of this one, brightness, contrast, noise and sharpness of the scanner.
Left and right stay where they are: the heart is on the left. Everything is drawn in HU, before the window cuts it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms.v2.functional import gaussian_blur, resized_crop

from balaitous.training.encoder.slices import Slices

PIVOT_HU = -600.0  # between air and tissue: where a change of contrast changes nothing
AIR_BELOW_HU = -1000  # what lung never is in the mean, and what surrounds it in the lung view always is
TRIES = 20  # for a view with tissue enough; the last one is taken as it is
SPARSE = 4  # every fourth pixel tells how much there is
FLIP_SHARE, BLUR_SHARE = 0.5, 0.3  # of the views


@dataclass(frozen=True)
class ViewSettings:
    """How views are drawn.

    Attributes
    ----------
    global_size, local_size : pixels of the square views, large and small
    local_views : small views of each slice, besides the two large ones
    global_scale, local_scale : share of the slice's area that a view shows, least and most
    ratio : width to height of what a view shows, at most; at least its inverse
    least_tissue : share of a view that is not air; what surrounds body or lung has nothing in common with them
    shift_hu, gain, noise_hu : standard deviations of a shift, of the logarithm of a factor, and of what noise has
    blur_pixels : standard deviation of a blur, at most
    """

    global_size: int = 224
    local_size: int = 96
    local_views: int = 8
    global_scale: tuple[float, float] = (0.4, 1.0)
    local_scale: tuple[float, float] = (0.05, 0.4)
    ratio: float = 4 / 3
    least_tissue: float = 0.3
    shift_hu: float = 25.0
    gain: float = 0.05
    noise_hu: float = 25.0
    blur_pixels: float = 1.5


class Views(Dataset[tuple[Tensor, Tensor]]):
    """Views of every slice, drawn from the seed, the epoch and the slice: the same whoever loads them, and when."""

    def __init__(self, slices: Slices, how: ViewSettings, seed: int) -> None:
        self.slices, self.how, self.seed, self.epoch = slices, how, seed, 0

    def __len__(self) -> int:
        return len(self.slices)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Large (2, Y, X) and small (n, Y, X) views of a slice, in HU; the second large one may be of a neighbour."""
        seed = np.random.SeedSequence((self.seed, self.epoch, index)).generate_state(1, np.uint64)[0]
        rng = torch.Generator().manual_seed(int(seed >> np.uint64(1)))
        how = self.how
        step = int(torch.randint(-1, 2, (), generator=rng))
        this, other = (torch.from_numpy(self.slices[each]) for each in (index, self.slices.neighbour(index, step)))
        large = [draw_view(each, how.global_size, how.global_scale, how, rng) for each in (this, other)]
        small = [draw_view(this, how.local_size, how.local_scale, how, rng) for _ in range(how.local_views)]
        return torch.stack(large), torch.stack(small) if small else torch.empty(0, 1, 1)


def draw_view(
    slice_hu: Tensor, size: int, scale: tuple[float, float], how: ViewSettings, rng: torch.Generator
) -> Tensor:
    """One view (size, size) in HU of a slice (Y, X) in HU."""
    view = crop(slice_hu, size, scale, how, rng)
    if uniform(rng) < FLIP_SHARE:
        view = view.flip(0)
    if uniform(rng) < BLUR_SHARE:
        view = gaussian_blur(view[None], kernel_size=[5, 5], sigma=[0.1 + how.blur_pixels * uniform(rng)])[0]
    view = PIVOT_HU + math.exp(how.gain * normal(rng)) * (view - PIVOT_HU) + how.shift_hu * normal(rng)
    return view + abs(how.noise_hu * normal(rng)) * torch.randn(view.shape, generator=rng)


def crop(slice_hu: Tensor, size: int, scale: tuple[float, float], how: ViewSettings, rng: torch.Generator) -> Tensor:
    """A random part of a slice, resized to (size, size); if it may be, one that shows more than air."""
    height, width = slice_hu.shape
    for _ in range(TRIES):
        area = (scale[0] + (scale[1] - scale[0]) * uniform(rng)) * height * width
        stretch = math.exp(math.log(how.ratio) * (2 * uniform(rng) - 1))
        tall = min(max(round(math.sqrt(area / stretch)), 1), height)
        wide = min(max(round(math.sqrt(area * stretch)), 1), width)
        top, left = int(uniform(rng) * (height - tall + 1)), int(uniform(rng) * (width - wide + 1))
        part = slice_hu[top : top + tall, left : left + wide]
        if (part[::SPARSE, ::SPARSE] > AIR_BELOW_HU).float().mean() >= how.least_tissue:
            break
    return resized_crop(slice_hu.float()[None], top, left, tall, wide, [size, size], antialias=True)[0]


def uniform(rng: torch.Generator) -> float:
    """A number of [0, 1)."""
    return float(torch.rand((), generator=rng))


def normal(rng: torch.Generator) -> float:
    """A number of the standard normal distribution."""
    return float(torch.randn((), generator=rng))
