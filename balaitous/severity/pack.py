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

ENCODERS = ("encoder_full", "encoder_lung")
BLOCKS = {"encoder_full": 24, "encoder_lung": 16}  # how many of each encoder run, as published

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
    parts: Mapping[str, str | Path],
    out: str | Path,
    *,
    base: Bundle | None = None,
    blocks: Mapping[str, int] | None = None,
    dtype: str | None = None,
    facts: Facts | None = None,
    card: str | None = None,
) -> Path:
    """Make a bundle from files in the published layouts; only the layers that run are stored.

    Heads belong to their encoders: where a file replaces an encoder of `base` and no heads are given, every probability
    is 0.5, until heads are trained on the new features.

    Parameters
    ----------
    parts : a file by name. "lung_unet": .pth or .safetensors, the state dict of the R231 U-Net, whose shapes tell
        width, depth and classes. "encoder_full", "encoder_lung": .pth (plain, or under the key ``state_dict``) or
        .safetensors, ViT with 16×16 patches. "heads": as `read_heads`
    out : the new bundle's folder
    base : the bundle that the other parts are taken from; without it all four files are needed
    blocks : how many blocks of an encoder run, by its name. Default: as in `base`, or as published
    dtype : as `write_bundle`. Default: float32; with `base`, tensors stay as they are stored
    facts : default: `facts_of`. Without training, name and SHA-256 of each file stand there, and where the rest is from
    card : as `write_bundle`

    Returns
    -------
    Path : `out`

    Raises
    ------
    ValueError : a part is missing or unknown, `out` exists and is not empty, unknown dtype, or more blocks asked for
        than a file has
    WeightsError : a file is missing, unreadable, or does not hold such a network
    """
    out = free_folder(out)
    if unknown := parts.keys() - {*KINDS, HEADS}:
        raise ValueError(f"parts must be among {', '.join([*KINDS, HEADS])}. Got {', '.join(sorted(unknown))} instead.")
    if base is None and (missing := [name for name in (*KINDS, HEADS) if name not in parts]):
        raise ValueError(f"expected all four parts, or a base that has the others. Missing: {', '.join(missing)}.")

    facts = facts or facts_of(out.name, base)
    if not facts.training:
        facts = replace(facts, training=_origin(parts, base))
    states = {} if base is None else dict(states_of(base))
    if file := parts.get("lung_unet"):
        states["lung_unet"] = unet_from(read_state(file), source=str(file))
    for name in ENCODERS:
        if file := parts.get(name):
            published = BLOCKS[name] if base is None else base.networks[name].architecture["blocks"]
            states[name] = vit_from(read_state(file), (blocks or {}).get(name, published), source=str(file))

    if HEADS in parts:
        heads = read_heads(parts[HEADS])
    elif base is not None and not parts.keys() & set(ENCODERS):
        heads = load_heads(base)
    else:
        log.warning("no heads for these encoders: every probability is 0.5 until they are trained")
        heads = untrained_heads(encoder_widths({name: architecture for name, (_, architecture) in states.items()}))
    return write_parts(out, facts, states, heads, dtype="float32" if dtype is base is None else dtype, card=card)


def facts_of(name: str, base: Bundle | None = None, licence: str | None = None) -> Facts:
    """Facts of a bundle to be packed; what is not given is as in `base`."""
    if base is None:
        return Facts(name) if licence is None else Facts(name, licence)
    return Facts(name, licence or base.licence, base.intended_use, base.demonstration)


def _origin(parts: Mapping[str, str | Path], base: Bundle | None) -> dict[str, Any]:
    origin: dict[str, Any] = {"packed_from": {name: fingerprint(Path(file)) for name, file in parts.items()}}
    if base is not None:
        origin["others_of"] = {"name": base.name, "sha256": base.sha256, "training": dict(base.training)}
    return origin
