"""The lung-segmentation U-Net, "R231".

Ronneberger et al. 2015, arXiv:1505.04597 (the architecture); Hofmanninger et al. 2020, doi:10.1186/s41747-020-00173-2
(trained on 231 cases: the published weights). Module names follow the published state dict, so that it loads strictly;
its ``residual_*`` tensors belong to a variant that is never run and are the only keys left out.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class BatchNorm(nn.BatchNorm2d):
    """Batch normalisation that changes its input in place during inference on a CPU.

    There, most of its time would go into fresh memory for the copy.
    """

    def forward(self, x: Tensor) -> Tensor:
        if self.training or not torch.is_inference_mode_enabled() or x.device.type != "cpu" or torch.jit.is_tracing():
            return super().forward(x)
        assert self.running_mean is not None
        assert self.running_var is not None
        scale = self.weight * torch.rsqrt(self.running_var + self.eps)
        shift = self.bias - self.running_mean * scale
        return torch.addcmul(shift[:, None, None], x, scale[:, None, None], out=x)


def conv_block(channels_in: int, channels_out: int) -> nn.Sequential:
    """Two of [3×3 convolution, ReLU, BatchNorm] at one resolution level."""
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, kernel_size=3, padding=1),
        nn.ReLU(inplace=True),
        BatchNorm(channels_out),
        nn.Conv2d(channels_out, channels_out, kernel_size=3, padding=1),
        nn.ReLU(inplace=True),
        BatchNorm(channels_out),
    )


class DownLevel(nn.Module):
    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.block = conv_block(channels_in, channels_out)

    def forward(self, x: Tensor) -> Tensor:
        return self.block(x)


class UpLevel(nn.Module):
    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.up = nn.Sequential(
            nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False),
            nn.Conv2d(channels_in, channels_out, kernel_size=1),
        )
        self.conv_block = DownLevel(channels_in, channels_out)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        # A 1×1 convolution commutes with bilinear interpolation (both are linear and the interpolation weights sum
        # to one), so it runs first, on a quarter of the pixels. Parameter names are unchanged.
        upsample, project = self.up
        return self.conv_block(torch.cat([upsample(project(x)), skip], dim=1))


class UNet(nn.Module):
    """2-D U-Net with `depth` levels and ``width · 2**level`` channels on each.

    Parameters
    ----------
    classes : number of output classes; R231 has 3: background, right lung, left lung
    depth : number of resolution levels; height and width of the input must be multiples of ``2**(depth - 1)``
    width : channels of the first level (R231: 64)
    """

    def __init__(self, classes: int = 3, depth: int = 5, width: int = 64) -> None:
        super().__init__()
        channels = [width * 2**level for level in range(depth)]
        self.down_path = nn.ModuleList(
            DownLevel(below, here) for below, here in zip([1, *channels[:-1]], channels, strict=True)
        )
        self.up_path = nn.ModuleList(
            UpLevel(below, here) for below, here in zip(channels[:0:-1], channels[-2::-1], strict=True)
        )
        self.last = nn.Conv2d(width, classes, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        """Class logits (B, classes, H, W) of axial slices (B, 1, H, W) scaled to [0, 1]."""
        skips = []
        for level, down in enumerate(self.down_path):
            x = down(F.avg_pool2d(x, 2) if level else x)
            skips.append(x)
        for up, skip in zip(self.up_path, skips[-2::-1], strict=True):
            x = up(x, skip)
        return self.last(x)


def without_unused_keys(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The published state dict without the tensors that never run: every ``residual_*`` module."""
    return {key: tensor for key, tensor in state_dict.items() if ".residual_" not in key}
