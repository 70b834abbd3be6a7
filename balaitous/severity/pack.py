"""Make bundles of the severity method from files in the published layouts."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from balaitous.networks.layouts import unet_from, vit_from
from balaitous.severity.heads_file import encoder_widths, read_heads, untrained_heads
from balaitous.weights.bundle import Bundle
from balaitous.weights.pack import RESEARCH_USE, fingerprint, free_folder, read_state, write_bundle

log = logging.getLogger(__name__)


def pack(
    lung_unet: str | Path,
    encoder_full: str | Path,
    encoder_lung: str | Path,
    heads: str | Path | Mapping[str, np.ndarray],
    out: str | Path,
    *,
    dtype: str = "float32",
    blocks_full: int = 24,
    blocks_lung: int = 16,
    name: str | None = None,
    licence: str = "not stated",
    intended_use: str = RESEARCH_USE,
    demonstration: bool = False,
    training: Mapping[str, Any] | None = None,
    metrics: Mapping[str, Any] | None = None,
) -> Path:
    """Make a bundle from files in the published layouts; only the layers that run are stored.

    Parameters
    ----------
    lung_unet : .pth or .safetensors, the state dict of the R231 U-Net; its shapes tell width, depth and classes
    encoder_full, encoder_lung : .pth (plain, or under the key ``state_dict``) or .safetensors, ViT with 16×16 patches
    heads : .npz, .csv or .safetensors, or the arrays; as `read_heads`
    out : the new bundle's folder
    blocks_full, blocks_lung : how many blocks of each encoder run
    name : default: the name of `out`
    training : default: the name and SHA-256 of each file

    Returns
    -------
    Path : `out`

    Raises
    ------
    ValueError : `out` exists and is not empty, unknown dtype, or more blocks asked for than a file has
    WeightsError : a file is missing, unreadable, or does not hold such a network
    """
    out = free_folder(out)
    files = {"lung_unet": lung_unet, "encoder_full": encoder_full, "encoder_lung": encoder_lung}
    if training is None:
        named = {**files, "heads": heads} if isinstance(heads, str | Path) else files
        training = {"packed_from": {role: fingerprint(Path(file)) for role, file in named.items()}}
    networks = {
        "lung_unet": unet_from(read_state(lung_unet), source=str(lung_unet)),
        "encoder_full": vit_from(read_state(encoder_full), blocks_full, source=str(encoder_full)),
        "encoder_lung": vit_from(read_state(encoder_lung), blocks_lung, source=str(encoder_lung)),
    }
    return write_bundle(
        out,
        name=out.name if name is None else name,
        licence=licence,
        intended_use=intended_use,
        demonstration=demonstration,
        networks=networks,
        heads=read_heads(heads) if isinstance(heads, str | Path) else heads,
        dtype=dtype,
        training=training,
        metrics=metrics,
    )


def repack(
    base: Bundle,
    out: str | Path,
    *,
    lung_unet: str | Path | None = None,
    encoder_full: str | Path | None = None,
    encoder_lung: str | Path | None = None,
    heads: str | Path | None = None,
    dtype: str | None = None,
    blocks_full: int | None = None,
    blocks_lung: int | None = None,
    name: str | None = None,
    licence: str | None = None,
) -> Path:
    """Make a bundle with other parts in place of some of a bundle's; arguments and errors are those of `pack`.

    What is not given is as in `base`, and without `dtype` tensors stay as they are stored.

    Heads belong to their encoders: where an encoder is replaced and no heads are given, every probability is 0.5, until
    heads are trained on the new features.
    """
    out = free_folder(out)
    networks = {key: (base.load_state(key), record.architecture) for key, record in base.networks.items()}
    if lung_unet is not None:
        networks["lung_unet"] = unet_from(read_state(lung_unet), source=str(lung_unet))
    for key, file, blocks in (
        ("encoder_full", encoder_full, blocks_full),
        ("encoder_lung", encoder_lung, blocks_lung),
    ):
        if file is not None:
            count = base.networks[key].architecture["blocks"] if blocks is None else blocks
            networks[key] = vit_from(read_state(file), count, source=str(file))
    if heads is not None:
        arrays = read_heads(heads)
    elif encoder_full is None and encoder_lung is None:
        arrays = base.load_heads()
    else:
        log.warning("no heads for these encoders: every probability is 0.5 until they are trained")
        arrays = untrained_heads(encoder_widths({key: architecture for key, (_, architecture) in networks.items()}))
    named = {"lung_unet": lung_unet, "encoder_full": encoder_full, "encoder_lung": encoder_lung, "heads": heads}
    return write_bundle(
        out,
        name=out.name if name is None else name,
        licence=base.licence if licence is None else licence,
        intended_use=base.intended_use,
        demonstration=base.demonstration,
        networks=networks,
        heads=arrays,
        dtype=dtype,
        training={
            "packed_from": {role: fingerprint(Path(file)) for role, file in named.items() if file is not None},
            "others_of": {"name": base.name, "sha256": base.sha256, "training": dict(base.training)},
        },
    )
