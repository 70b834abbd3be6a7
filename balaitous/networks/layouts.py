"""Convert state dicts of the published layouts (R231's U-Net, timm's and iBOT's ViTs) to those of our networks."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from balaitous.errors import WeightsError
from balaitous.networks.loading import build_network, check_fit
from balaitous.networks.unet import without_unused_keys

# values of an embedding, by the name that timm has for a ViT with 16×16 patches
ENCODER_WIDTHS = {
    "vit_tiny_patch16_224": 192,
    "vit_small_patch16_224": 384,
    "vit_base_patch16_224": 768,
    "vit_large_patch16_224": 1024,
}
# Of the published ViT files: the final norm and the classifier never run, masked_embed belongs to iBOT's pre-training.
UNUSED_IN_VIT = ("norm.weight", "norm.bias", "head.weight", "head.bias", "masked_embed")


def unet_from(state: Mapping[str, Tensor], *, source: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """State and architecture of a lung U-Net in the published layout, without the tensors that never run.

    Raises
    ------
    WeightsError : not that layout
    """
    state = without_unused_keys(state)
    try:
        width = state["down_path.0.block.0.weight"].shape[0]
        classes = state["last.weight"].shape[0]
    except KeyError as error:
        raise WeightsError(f"{source}: expected a U-Net in the layout of R231, found no {error}.") from None
    architecture = {"kind": "unet", "classes": classes, "depth": _count(state, "down_path"), "width": width}
    check_fit(build_network(architecture), state, source=source)
    return state, architecture


def vit_from(state: Mapping[str, Tensor], blocks: int, *, source: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """State and architecture of the first `blocks` blocks of a ViT, without final norm, head and iBOT's mask token.

    Raises
    ------
    ValueError : the file has fewer blocks
    WeightsError : not a ViT, or of a width that timm's ViTs with 16×16 patches do not have
    """
    try:
        width = state["cls_token"].shape[-1]
    except KeyError as error:
        raise WeightsError(f"{source}: expected a ViT in the layout of timm or iBOT, found no {error}.") from None
    names = {known: name for name, known in ENCODER_WIDTHS.items()}
    if width not in names:
        raise WeightsError(
            f"{source}: embedding width must be one of {', '.join(map(str, names))}. Got {width} instead."
        )
    if not 1 <= blocks <= (available := _count(state, "blocks")):
        raise ValueError(f"blocks must be in 1…{available}, what {source} has. Got {blocks} instead.")
    numbered = re.compile(r"blocks\.(\d+)\.")
    kept = {
        key: tensor
        for key, tensor in state.items()
        if key not in UNUSED_IN_VIT and not ((block := numbered.match(key)) and int(block[1]) >= blocks)
    }
    architecture = {"kind": "vit", "timm_name": names[width], "blocks": blocks}
    check_fit(build_network(architecture), kept, source=source)
    return kept, architecture


def _count(state: Mapping[str, Tensor], prefix: str) -> int:
    return len({key.split(".")[1] for key in state if key.startswith(f"{prefix}.")})
