"""A backbone of timm with one linear layer to named outputs, for 2-D pictures."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

MAPS = "maps"  # the module of a `Classifier` that gives the last feature maps
CHANNELS = 3  # that every backbone was pre-trained with; a grey picture is given three times


class Classifier(nn.Module):
    """Pooled features of a backbone, and one linear layer to a logit for each output.

    What the layer's outputs are called stands in the bundle's record of the network.

    Parameters
    ----------
    timm_name : an architecture of timm, such as ``tf_efficientnet_lite0``, ``densenet169`` or ``vgg16``
    outputs : how many
    """

    def __init__(self, timm_name: str, outputs: int) -> None:
        super().__init__()
        import timm  # here and not above: it takes two seconds

        backbone: Any = timm.create_model(timm_name, pretrained=False, num_classes=0)
        self.backbone: Any = backbone
        self.maps = nn.Identity()  # sees the last feature maps, before they are pooled: what `grad_cam` asks for
        self.head = nn.Linear(backbone.head_hidden_size, outputs)

    def features(self, images: Tensor) -> Tensor:
        """Pooled features (B, width) of images (B, 3, H, W)."""
        maps = self.maps(self.backbone.forward_features(images))
        return self.backbone.forward_head(maps, pre_logits=True)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, outputs) of images (B, 3, H, W)."""
        return self.head(self.features(images))


def resized(grey: NDArray, size: tuple[int, int]) -> Tensor:
    """A picture (Y, X) of any size at the network's (rows, columns), float32; its sides need not keep their ratio.

    Bilinear; where it becomes smaller, every pixel counts (antialiased).
    """
    picture = torch.from_numpy(grey).float()[None, None]
    return F.interpolate(picture, size=size, mode="bilinear", align_corners=False, antialias=True)[0, 0]


def standardised(grey: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """Grey pictures (B, H, W) in [0, 1] as the three channels (B, 3, H, W) that a backbone sees."""
    images = grey[:, None].expand(-1, CHANNELS, -1, -1)
    return (images - grey.new_tensor(mean)[:, None, None]) / grey.new_tensor(std)[:, None, None]
