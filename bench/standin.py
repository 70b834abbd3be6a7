"""Stand-ins for the three published network files, in their layout and size: for agreement, time and memory.

The lung U-Net is that of the committed bundle "mini" between channels of zeros, so it segments lungs just as well and
costs as much as R231; the two ViT-L have seeded random weights, so their features and probabilities mean nothing.
"""

from __future__ import annotations

from pathlib import Path

import timm
import torch
from torch import Tensor

from balaitous.networks.unet import UNet
from balaitous.weights.bundle import open_bundle
from balaitous.weights.search import find_bundle

UNET_FILE, FULL_FILE, LUNG_FILE = "unet_r231-d5d2fc3d.pth", "vitl_16_ct.pth", "vitl_16_pt22k.pth"
SPREAD = 0.04  # standard deviation of random weights: wide enough that features differ from scan to scan


def make_standins(folder: Path, seed: int = 1) -> Path:
    """Write the three files into a folder, unless they are there; returns the folder."""
    if not (folder / LUNG_FILE).exists():
        folder.mkdir(parents=True, exist_ok=True)
        torch.save(published_unet(), folder / UNET_FILE)
        torch.save(random_vit_large(seed), folder / FULL_FILE)
        torch.save({"state_dict": random_vit_large(seed + 1)}, folder / LUNG_FILE)
    return folder


def random_vit_large(seed: int) -> dict[str, Tensor]:
    """State dict of a ViT-L/16 with random weights."""
    torch.manual_seed(seed)
    vit = timm.create_model("vit_large_patch16_224", pretrained=False, num_classes=0)
    for name, parameter in vit.named_parameters():
        if parameter.ndim >= 2 and name not in ("pos_embed", "cls_token"):
            torch.nn.init.normal_(parameter, std=SPREAD)
    return vit.state_dict()


def published_unet() -> dict[str, Tensor]:
    """State dict of a U-Net of R231's size that gives mini's labels, with the ``residual_*`` tensors that never run."""
    small = open_bundle(find_bundle("mini")).load_state("lung_unet")
    wide = UNet().state_dict()
    for key, tensor in wide.items():
        if "running_var" not in key:
            tensor.zero_()
        if small[key].ndim == 0:
            continue
        outputs, *inputs = small[key].shape[:2]
        outputs = slice(None) if key.startswith("last") else slice(outputs)
        if not inputs:
            tensor[outputs] = small[key]
        elif key.endswith("conv_block.block.0.weight"):  # its inputs are two halves: what comes up, and the skip
            half, wide_half = inputs[0] // 2, tensor.shape[1] // 2
            tensor[outputs, :half] = small[key][:, :half]
            tensor[outputs, wide_half : wide_half + half] = small[key][:, half:]
        else:
            tensor[outputs, : inputs[0]] = small[key]
    return unused_tensors(wide) | wide  # the published package takes the number of classes from the last entry


def unused_tensors(unet: dict[str, Tensor]) -> dict[str, Tensor]:
    """The published file's tensors of a variant that is never run: a 1×1 convolution and a normalisation a block."""
    blocks: dict[str, tuple[int, int]] = {}  # name → channels in, out
    for key, tensor in unet.items():
        block, found, _ = key.partition(".block.0.weight")
        if found:
            blocks[block] = (tensor.shape[1], tensor.shape[0])
            blocks[block.removesuffix(".conv_block")] = blocks[block]
    unused = {}
    for block, (inputs, outputs) in blocks.items():
        layers = {
            "residual_input_conv": torch.nn.Conv2d(inputs, outputs, 1),
            "residual_batchnorm": torch.nn.BatchNorm2d(outputs),
        }
        for name, layer in layers.items():
            unused |= {f"{block}.{name}.{key}": value for key, value in layer.state_dict().items()}
    return unused
