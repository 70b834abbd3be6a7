"""Make bundles of the severity method: of networks in memory, files in the published layouts, parts of others."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from balaitous.errors import WeightsError
from balaitous.networks.layouts import unet_from, vit_from
from balaitous.severity.heads_file import as_float64, check_heads, encoder_widths, read_heads, untrained_heads
from balaitous.severity.parts import HEADS, INPUTS, KINDS, MODEL, OUTPUTS, load_heads
from balaitous.weights.bundle import Bundle
from balaitous.weights.pack import Facts, NetworkWeights, fingerprint, free_folder, read_state, write_bundle

log = logging.getLogger(__name__)

States = Mapping[str, tuple[Mapping[str, Tensor], Mapping[str, Any]]]  # of each network: state dict, architecture


def write_parts(
    out: str | Path,
    facts: Facts,
    states: States,
    heads: Mapping[str, np.ndarray],
    *,
    dtype: str | None = None,
    card: str | None = None,
) -> Path:
    """Write a bundle of the severity method; other parameters and errors are those of `write_bundle`.

    Parameters
    ----------
    states : of "lung_unet", "encoder_full" and "encoder_lung"
    heads : as `check_heads`; any floating type, and shapes that hold the same numbers, such as (1, features). Stored in
        float64
    """
    architectures = {name: states[name][1] for name in KINDS}
    numbers = check_heads(as_float64(heads), encoder_widths(architectures), source=f"heads of {facts.name}")
    if (classes := architectures["lung_unet"]["classes"]) != len(OUTPUTS["lung_unet"]):
        raise WeightsError(f"lung_unet must have the classes {', '.join(OUTPUTS['lung_unet'])}. Got {classes} classes.")
    networks = {
        name: NetworkWeights(states[name][0], architectures[name], INPUTS[name], OUTPUTS[name]) for name in KINDS
    }
    return write_bundle(out, facts, model=MODEL, networks=networks, arrays={HEADS: numbers}, dtype=dtype, card=card)


def states_of(bundle: Bundle) -> States:
    """Networks of a bundle, as `write_parts` takes them."""
    return {name: (bundle.load_state(name), record.architecture) for name, record in bundle.networks.items()}


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
    facts: Facts | None = None,
    card: str | None = None,
) -> Path:
    """Make a bundle from files in the published layouts; only the layers that run are stored.

    Parameters
    ----------
    lung_unet : .pth or .safetensors, the state dict of the R231 U-Net; its shapes tell width, depth and classes
    encoder_full, encoder_lung : .pth (plain, or under the key ``state_dict``) or .safetensors, ViT with 16×16 patches
    heads : .npz, .csv or .safetensors, or the arrays; as `read_heads`
    out : the new bundle's folder
    blocks_full, blocks_lung : how many blocks of each encoder run
    facts : default: the name is that of `out`. Without training, name and SHA-256 of each file stand there
    card : as `write_bundle`

    Returns
    -------
    Path : `out`

    Raises
    ------
    ValueError : `out` exists and is not empty, unknown dtype, or more blocks asked for than a file has
    WeightsError : a file is missing, unreadable, or does not hold such a network
    """
    out = free_folder(out)
    facts = facts or Facts(out.name)
    files = {"lung_unet": lung_unet, "encoder_full": encoder_full, "encoder_lung": encoder_lung}
    if not facts.training:
        named = {**files, "heads": heads} if isinstance(heads, str | Path) else files
        facts = replace(facts, training={"packed_from": fingerprints(named)})
    states = {
        "lung_unet": unet_from(read_state(lung_unet), source=str(lung_unet)),
        "encoder_full": vit_from(read_state(encoder_full), blocks_full, source=str(encoder_full)),
        "encoder_lung": vit_from(read_state(encoder_lung), blocks_lung, source=str(encoder_lung)),
    }
    arrays = read_heads(heads) if isinstance(heads, str | Path) else heads
    return write_parts(out, facts, states, arrays, dtype=dtype, card=card)


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
    states = dict(states_of(base))
    if lung_unet is not None:
        states["lung_unet"] = unet_from(read_state(lung_unet), source=str(lung_unet))
    for key, file, blocks in (
        ("encoder_full", encoder_full, blocks_full),
        ("encoder_lung", encoder_lung, blocks_lung),
    ):
        if file is not None:
            count = base.networks[key].architecture["blocks"] if blocks is None else blocks
            states[key] = vit_from(read_state(file), count, source=str(file))
    if heads is not None:
        arrays = read_heads(heads)
    elif encoder_full is None and encoder_lung is None:
        arrays = load_heads(base)
    else:
        log.warning("no heads for these encoders: every probability is 0.5 until they are trained")
        arrays = untrained_heads(encoder_widths({key: architecture for key, (_, architecture) in states.items()}))
    named = {"lung_unet": lung_unet, "encoder_full": encoder_full, "encoder_lung": encoder_lung, "heads": heads}
    facts = Facts(
        name=out.name if name is None else name,
        licence=base.licence if licence is None else licence,
        intended_use=base.intended_use,
        demonstration=base.demonstration,
        training={
            "packed_from": fingerprints({role: file for role, file in named.items() if file is not None}),
            "others_of": {"name": base.name, "sha256": base.sha256, "training": dict(base.training)},
        },
    )
    return write_parts(out, facts, states, arrays, dtype=dtype)


def fingerprints(files: Mapping[str, str | Path]) -> dict[str, dict[str, str]]:
    """Name and SHA-256 of each file."""
    return {role: fingerprint(Path(file)) for role, file in files.items()}
