"""Make weight bundles: from networks in memory (training), or from files in the published layouts."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from balaitous.errors import WeightsError
from balaitous.files import new_folder
from balaitous.networks.loading import build_network, check_fit
from balaitous.severity.heads_file import as_float64, check_heads, encoder_widths
from balaitous.weights.bundle import FORMAT_VERSION, NETWORK_KINDS, refuse_git_lfs_pointer

DTYPES = {"float32": torch.float32, "float16": torch.float16}
RESEARCH_USE = "Research use only. Not a medical device; not for diagnosis, treatment or triage."


def write_bundle(
    out: str | Path,
    *,
    name: str,
    licence: str,
    intended_use: str,
    demonstration: bool,
    networks: Mapping[str, tuple[Mapping[str, Tensor], Mapping[str, Any]]],
    heads: Mapping[str, np.ndarray],
    dtype: str | None = None,
    training: Mapping[str, Any] | None = None,
    metrics: Mapping[str, Any] | None = None,
) -> Path:
    """Write a bundle, wholly or not at all. The same arguments give the same bytes, and so the same hash.

    Parameters
    ----------
    networks : for "lung_unet", "encoder_full" and "encoder_lung": (state dict, architecture) as in `NetworkRecord`
    heads : as `check_heads`; any floating type, and shapes that hold the same numbers, such as (1, features)
    dtype : of the stored networks, "float32" or "float16"; None: as they are. Heads stay float64
    training, metrics : facts for ``bundle.json``; anything JSON can hold

    Raises
    ------
    ValueError : `out` exists and is not empty, or the dtype is unknown
    WeightsError : the tensors do not fit the architecture, are not finite in that dtype, or cannot be written
    """
    out = free_folder(out)
    if dtype is not None and dtype not in DTYPES:
        raise ValueError(f"dtype must be one of {', '.join(DTYPES)}. Got {dtype!r} instead.")
    architectures = {network: networks[network][1] for network in NETWORK_KINDS}
    numbers = check_heads(as_float64(heads), encoder_widths(architectures), source=f"heads of {name}")
    try:
        with new_folder(out) as partial:
            records = {}
            for network, architecture in architectures.items():
                state = _stored(networks[network][0], None if dtype is None else DTYPES[dtype], source=network)
                check_fit(build_network(architecture), state, source=network)
                safetensors.torch.save_file(state, partial / f"{network}.safetensors")
                stored = fingerprint(partial / f"{network}.safetensors")
                records[network] = {**stored, "architecture": dict(architecture)}
            safetensors.numpy.save_file(numbers, partial / "heads.safetensors")
            facts = {
                "format_version": FORMAT_VERSION,
                "name": name,
                "licence": licence,
                "intended_use": intended_use,
                "demonstration": demonstration,
                "networks": records,
                "heads": fingerprint(partial / "heads.safetensors"),
                "training": dict(training or {}),
                "metrics": dict(metrics or {}),
            }
            text = json.dumps(facts, indent=2, ensure_ascii=False, allow_nan=False)
            (partial / "bundle.json").write_text(text + "\n", encoding="utf-8")
            for path in partial.glob("*.safetensors"):  # safetensors makes files that only their owner can read
                shutil.copymode(partial / "bundle.json", path)
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"{out}: the bundle could not be written ({error}). Is there room, and may you?") from None
    return out


def read_state(path: str | Path) -> dict[str, Tensor]:
    """Every tensor of a .safetensors or PyTorch file by name, memory-mapped where possible; no code in it is run.

    Raises
    ------
    WeightsError : missing, unreadable, or not a state dict (plain, or under the key ``state_dict``)
    """
    path = Path(path)
    try:
        refuse_git_lfs_pointer(path)
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        # Files from before PyTorch 1.6 are not zip archives and cannot be memory-mapped.
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except (OSError, SafetensorError, RuntimeError, pickle.UnpicklingError, EOFError, ValueError) as error:
        raise WeightsError(f"{path}: expected a network's state dict, found: {_first_sentence(error)}.") from None
    if isinstance(content, dict) and "state_dict" in content:
        content = content["state_dict"]
    if not isinstance(content, dict) or not all(isinstance(tensor, Tensor) for tensor in content.values()):
        raise WeightsError(
            f"{path}: expected a state dict, plain or under the key 'state_dict', found another content."
        )
    return dict(content)


def _stored(state: Mapping[str, Tensor], dtype: torch.dtype | None, *, source: str) -> dict[str, Tensor]:
    stored = {}
    for key, tensor in state.items():
        target = dtype if dtype and tensor.is_floating_point() else tensor.dtype
        stored[key] = tensor.detach().to("cpu", target).contiguous()
        if not np.isfinite(stored[key].numpy()).all():
            raise WeightsError(f"{source}: {key} must be finite as {target}. Is the file damaged? Try dtype float32.")
    return stored


def free_folder(out: str | Path) -> Path:
    """The absolute path of a folder that a bundle may be written to.

    Raises
    ------
    ValueError : it exists and is not empty
    """
    out = Path(out).absolute()
    try:
        occupied = os.path.exists(out) and bool(os.listdir(out))
    except OSError:  # a file, or a folder that may not be read
        occupied = True
    if occupied:
        raise ValueError(f"out must be a new or empty folder. Got {out}, which exists: choose another or remove it.")
    return out


def fingerprint(path: Path) -> dict[str, str]:
    """Name and SHA-256 of a file, as ``bundle.json`` has them.

    Raises
    ------
    WeightsError : it cannot be read
    """
    try:
        with path.open("rb") as file:
            return {"file": path.name, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}
    except OSError as error:
        raise WeightsError(f"{path}: expected a file of weights, found: {error.strerror}.") from None


def _first_sentence(error: Exception) -> str:
    """PyTorch's messages go on for a page."""
    return " ".join(str(error).split()).partition(". ")[0][:200].rstrip(".") or type(error).__name__
