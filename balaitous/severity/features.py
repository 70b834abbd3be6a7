"""Features of a scan (steps 9, 10, 12): class tokens of its axial slices, averaged over slices and over a flip."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from balaitous.ct.lungs import WINDOW_HU
from balaitous.networks.runtime import Chunker
from balaitous.networks.vit import ClassTokenEncoder

# of ImageNet, which every network here was first trained on; R, G, B
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def encoder_input(hu: Tensor) -> Tensor:
    """Axial slices (B, H, W) in HU → what the encoders see: windowed, normalised as ImageNet, (B, 3, H, W)."""
    low, high = WINDOW_HU
    unit = (hu.float().clamp(low, high) - low) / (high - low)
    mean, std = (unit.new_tensor(numbers).view(1, 3, 1, 1) for numbers in (IMAGENET_MEAN, IMAGENET_STD))
    return (unit[:, None] - mean) / std


@torch.inference_mode()
def scan_features(hu: NDArray, encoder: ClassTokenEncoder, chunker: Chunker) -> NDArray[np.float64]:
    """Mean class token (width,) over the slices of a scan (Z, 224, 224) in HU, and over their flips along Y.

    The scans of a PACS come either way up; the mean over both makes that irrelevant. The sum runs in float64, so that
    neither the order nor the size of the chunks shows in the result.
    """
    weight = encoder.pos_embed
    hu = np.ascontiguousarray(hu)

    def embed(chunk: slice) -> NDArray[np.float64]:
        images = encoder_input(torch.from_numpy(hu[chunk]).to(weight.device)).to(weight.dtype)
        both = torch.cat([images, images.flip(2)])
        return encoder(both).double().sum(0).cpu().numpy()

    return sum(chunker.run(len(hu), embed), np.zeros(encoder.width)) / (2 * len(hu))
