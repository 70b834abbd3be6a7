"""Label the lungs of a CT: step 4 of the severity method, shared by every model that looks at lungs.

The body is cut out of every axial slice, the U-Net labels the crops, and the labels are made consistent in 3-D
(`balaitous.ct.lungs`). `segment_lungs` goes this way at once; a model that cuts and joins in other processes calls the
three steps that it is made of.

References
----------
Hofmanninger et al. 2020, doi:10.1186/s41747-020-00173-2.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from balaitous.ct.lungs import WINDOW_HU, body_crops, volume_labels
from balaitous.networks.runtime import Chunker, Network, to_device


def segment_lungs(hu: NDArray, lung_unet: Network, chunker: Chunker) -> NDArray[np.uint8]:
    """Label the lungs of a volume.

    Parameters
    ----------
    hu : (Z, Y, X), LPS, in HU

    Returns
    -------
    (Z, Y, X) of 0 background, 1 right lung, 2 left lung
    """
    body = body_crops(hu)
    return volume_labels(label_crops(body.crops, lung_unet, chunker), body)


@torch.inference_mode()
def label_crops(crops: NDArray, lung_unet: Network, chunker: Chunker) -> NDArray[np.uint8]:
    """Labels (Z, 256, 256) of the body crops (Z, 256, 256) in HU: the class of the largest logit."""
    slices = to_device(crops, lung_unet.device)

    def label(chunk: slice) -> Tensor:
        return lung_unet(windowed(slices[chunk])[:, None]).argmax(1).to(torch.uint8)

    return torch.cat(list(chunker.run(len(slices), label))).cpu().numpy()


def windowed(hu: Tensor) -> Tensor:
    """HU → [0, 1] over the window that every network here was trained on, in float32."""
    low, high = WINDOW_HU
    return (hu.float().clamp(low, high) - low) / (high - low)
