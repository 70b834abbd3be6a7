"""Write weight bundles, and read the state dicts that they are made of."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from balaitous.errors import WeightsError, reason_of
from balaitous.files import new_folder, sha256_of
from balaitous.networks.loading import build_network, check_fit
from balaitous.weights.bundle import BUNDLE_FILE, CARD_FILE, FORMAT_VERSION, refuse_git_lfs_pointer
from balaitous.weights.card import RESEARCH_USE, card_of, is_line

DTYPES = {"float32": torch.float32, "float16": torch.float16}


@dataclass(frozen=True)
class Facts:
    """What a bundle says of itself.

    Attributes
    ----------
    demonstration : whether its probabilities are for demonstration only
    training, metrics : anything JSON can hold

    Raises
    ------
    ValueError : name, licence or intended use are no line of text
    """

    name: str
    licence: str = "not stated"
    intended_use: str = RESEARCH_USE
    demonstration: bool = False
    training: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("name", "licence", "intended_use"):
            if not is_line(text := getattr(self, name)):
                raise ValueError(f"{name} must be a line of text. Got {text[:80]!r} instead.")


@dataclass(frozen=True)
class NetworkWeights:
    """A network to be stored: its tensors by name, and what `NetworkRecord` says of it."""

    state: Mapping[str, Tensor]
    architecture: Mapping[str, Any]
    input: Mapping[str, Any]
    outputs: Sequence[str]


def write_bundle(
    out: str | Path,
    facts: Facts,
    *,
    model: str,
    networks: Mapping[str, NetworkWeights],
    arrays: Mapping[str, Mapping[str, np.ndarray]] | None = None,
    calibration: Mapping[str, Any] | None = None,
    dtype: str | None = "float16",
    card: str | None = None,
) -> Path:
    """Write a bundle, wholly or not at all. The same arguments give the same bytes, and so the same hash.

    Parameters
    ----------
    out : its folder
    model : whose bundle it is
    networks, arrays : by the model's names for them; a name is one or the other
    calibration : as `Bundle.calibration` has it
    dtype : of the stored networks, "float32" or "float16", which networks widen when they are loaded; None: as they
        are. Arrays are stored as they are
    card : text of ``CARD.md``; None: what `card_of` makes of the facts

    Raises
    ------
    ValueError : `out` exists and is not empty, or the dtype is unknown
    WeightsError : the tensors do not fit the architecture, are not finite in that dtype, or cannot be written
    """
    out = free_folder(out)
    arrays = arrays or {}
    if dtype is not None and dtype not in DTYPES:
        raise ValueError(f"dtype must be one of {', '.join(DTYPES)}. Got {dtype!r} instead.")
    assert not networks.keys() & arrays.keys(), "each has a file of its name"
    try:
        with new_folder(out) as partial:
            records: dict[str, dict[str, Any]] = {"networks": {}, "arrays": {}}
            for name, network in networks.items():
                state = _stored(network.state, None if dtype is None else DTYPES[dtype], source=name)
                check_fit(build_network(network.architecture, source=name), state, source=name)
                file = partial / f"{name}.safetensors"
                safetensors.torch.save_file(state, file)
                records["networks"][name] = {
                    **fingerprint(file),
                    "architecture": dict(network.architecture),
                    "input": dict(network.input),
                    "outputs": list(network.outputs),
                }
            for name, numbers in arrays.items():
                file = partial / f"{name}.safetensors"
                safetensors.numpy.save_file(dict(numbers), file)
                records["arrays"][name] = fingerprint(file)
            content = {"format_version": FORMAT_VERSION, "model": model} | asdict(facts) | records
            if calibration:
                content["calibration"] = dict(calibration)
            write_facts(partial, content)
            (partial / CARD_FILE).write_text(card or card_of(content), encoding="utf-8")
            for path in partial.glob("*.safetensors"):  # safetensors makes files that only their owner can read
                shutil.copymode(partial / BUNDLE_FILE, path)
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"{out}: the bundle could not be written ({error}). Is there room, and may you?") from None
    return out


def write_facts(folder: Path, content: Mapping[str, Any]) -> None:
    """Write the ``bundle.json`` of a folder that is not in place yet."""
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
    (folder / BUNDLE_FILE).write_text(text + "\n", encoding="utf-8")


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
        return {"file": path.name, "sha256": sha256_of(path)}
    except OSError as error:
        raise WeightsError(f"{path}: expected a file of weights, found: {error.strerror}.") from None


def _first_sentence(error: Exception) -> str:
    """PyTorch's messages go on for a page."""
    return reason_of(error).partition(". ")[0][:200].rstrip(".")
