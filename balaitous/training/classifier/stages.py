"""A classifier cut in two: early stages that keep their weights, and late ones that learn."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from balaitous.networks.classifier import Classifier

MOST = 7  # stages that EfficientNets have


class Late(nn.Module):
    """What is left of a classifier once its stem and first blocks have run; it shares their network's weights."""

    def __init__(self, network: Classifier, blocks: int) -> None:
        super().__init__()
        self.network, self.blocks = network, blocks

    def features(self, x: Tensor) -> Tensor:
        """Pooled features (B, width) of what the early stages made, or of images (B, 3, H, W) where there are none."""
        if not self.blocks:
            return self.network.features(x)
        backbone: Any = self.network.backbone
        for block in backbone.blocks[self.blocks :]:
            x = block(x)
        maps = self.network.maps(backbone.bn2(backbone.conv_head(x)))
        return backbone.forward_head(maps, pre_logits=True)

    def learning(self) -> list[nn.Module]:
        """The parts of the backbone that learn."""
        backbone: Any = self.network.backbone
        return [*backbone.blocks[self.blocks :], backbone.conv_head, backbone.bn2] if self.blocks else [backbone]


def early_stages(network: Classifier, blocks: int) -> nn.Module:
    """Stem and first blocks, images (B, 3, H, W) in, feature maps out.

    Raises
    ------
    ValueError : the backbone has no such blocks
    """
    backbone: Any = network.backbone
    parts = ("conv_stem", "bn1", "blocks", "conv_head", "bn2")
    if not all(hasattr(backbone, part) for part in parts) or not 0 < blocks <= len(backbone.blocks):
        raise ValueError(
            f"frozen_blocks must be 0, or up to {MOST} of an EfficientNet. Got {blocks} of {type(backbone).__name__}."
        )
    return nn.Sequential(backbone.conv_stem, backbone.bn1, *backbone.blocks[:blocks])


@torch.no_grad()
def pooled(late: Late, inputs: Tensor, batch: int) -> Tensor:
    """Pooled features (N, width) of all inputs, some at a time."""
    return torch.cat([late.features(inputs[begin : begin + batch].float()) for begin in range(0, len(inputs), batch)])
