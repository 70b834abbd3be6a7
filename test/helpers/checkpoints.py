"""Small networks in files of the published layouts, and the heads and bundles that belong to them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import timm
import torch

from balaitous.networks.unet import UNet
from balaitous.severity.heads import HEADS
from balaitous.severity.pack import pack

WIDTH = 192  # ViT-Tiny
TINY_BLOCKS = {"encoder_full": 2, "encoder_lung": 1}


def unet_state(width: int = 4) -> dict[str, torch.Tensor]:
    """As R231: the tensors that run and, in every block, `residual_*` tensors that do not."""
    torch.manual_seed(1)
    state = UNet(width=width, depth=3).state_dict()
    state["down_path.0.residual_input_conv.weight"] = torch.zeros(width, 1, 1, 1)
    state["up_path.0.conv_block.residual_batchnorm.bias"] = torch.zeros(width)
    return state


def vit_state(seed: int, blocks: int = 2) -> dict[str, torch.Tensor]:
    """As the published CT encoder: with the final norm, which does not run."""
    torch.manual_seed(seed)
    return timm.create_model("vit_tiny_patch16_224", depth=blocks, num_classes=0).state_dict()


def heads_arrays(width: int = WIDTH) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(3)
    arrays = {}
    for head in HEADS:
        arrays[f"coef_{head}"] = draw.normal(size=width + 2 * head.endswith("severe"))
        arrays[f"intercept_{head}"] = draw.normal(size=())
        arrays[f"alpha_{head}"] = np.array(0.25 if head.startswith("full") else 0.75)
    return arrays


def write_checkpoints(folder: Path) -> dict[str, Path]:
    """The four files, named and laid out as the published ones; the arguments of `pack` by name."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {
        "lung_unet": folder / "unet_r231-d5d2fc3d.pth",
        "encoder_full": folder / "vitl_16_ct.pth",
        "encoder_lung": folder / "vitl_16_pt22k.pth",
        "heads": folder / "balaitous.npz",
    }
    # U-Net as files were before PyTorch 1.6: the published one is of 2020
    torch.save(unet_state(), files["lung_unet"], _use_new_zipfile_serialization=False)
    torch.save(vit_state(2), files["encoder_full"])
    imagenet = vit_state(3) | {"masked_embed": torch.zeros(1, WIDTH), "head.weight": torch.zeros(5, WIDTH)}
    torch.save({"state_dict": imagenet, "epoch": 35}, files["encoder_lung"])
    np.savez(files["heads"], **heads_arrays())
    return files


def write_tiny_bundle(folder: Path, **changes) -> Path:
    """A whole bundle at `folder`, by way of checkpoint files beside it."""
    files = write_checkpoints(folder.parent / "checkpoints")
    return pack(files, folder, **{"blocks": TINY_BLOCKS, "dtype": "float16"} | changes)
