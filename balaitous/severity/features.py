"""Features of a scan (steps 9, 10 and 12): class tokens averaged over its slices and over a flip."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from balaitous.networks.lungs import windowed
from balaitous.networks.runtime import Chunker, Network, to_device

# of ImageNet, which every network here was first trained on; R, G, B
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def encoder_input(hu: Tensor) -> Tensor:
    """Axial slices (B, H, W) in HU → what the encoders see: windowed, normalised as ImageNet, (B, 3, H, W)."""
    unit = windowed(hu)
    mean, std = (unit.new_tensor(numbers).view(1, 3, 1, 1) for numbers in (IMAGENET_MEAN, IMAGENET_STD))
    return (unit[:, None] - mean) / std


@torch.inference_mode()
def scan_features(hu: NDArray, encoder: Network, chunker: Chunker) -> NDArray[np.float64]:
    """Mean class token (width,) over the slices of a scan (Z, 224, 224) in HU, and over their flips along Y.

    The scans of a PACS come either way up; the mean over both makes that irrelevant. The sum runs in float64, so that
    neither the order nor the size of the chunks shows in the result, and on the encoder's device, so that nothing waits
    for it until the end.
    """
    slices = to_device(hu, encoder.device)

    def embed(chunk: slice) -> Tensor:
        images = encoder_input(slices[chunk])
        return encoder(torch.cat([images, images.flip(2)])).double().sum(0)

    total: Tensor = sum(chunker.run(len(slices), embed), torch.zeros((), device=encoder.device, dtype=torch.float64))
    return total.cpu().numpy() / (2 * len(slices))
