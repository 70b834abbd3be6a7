"""Weight bundles: what one is, and how its files are checked before they are opened.

A bundle is a folder with ``bundle.json`` and four ``.safetensors`` files: the lung U-Net, the two encoders, the heads.
``bundle.json`` names each file with its SHA-256 and, for networks, the numbers that rebuild the architecture.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from balaitous.errors import WeightsError
from balaitous.severity.heads_file import check_heads, encoder_widths

FORMAT_VERSION = 1
NETWORK_KINDS = {"lung_unet": "unet", "encoder_full": "vit", "encoder_lung": "vit"}
ARCHITECTURE_KEYS: dict[str, dict[str, type]] = {
    "unet": {"classes": int, "depth": int, "width": int},
    "vit": {"timm_name": str, "blocks": int},
}

GIT_LFS_POINTER = b"version https://git-lfs.github.com/spec/"
RESTORE = "Restore the bundle's folder (the published weights: `balaitous weights fetch stoic`)."


@dataclass(frozen=True)
class NetworkRecord:
    """One network of a bundle: its file, that file's hash, and the numbers that rebuild its architecture."""

    file: str
    sha256: str
    architecture: Mapping[str, Any]


@dataclass(frozen=True)
class HeadsRecord:
    """The file of the four logistic regressions, and its hash."""

    file: str
    sha256: str


@dataclass(frozen=True)
class Bundle:
    """What ``bundle.json`` says; weights are read on demand.

    Attributes
    ----------
    sha256 : of ``bundle.json``; because that file holds the hash of every other, it stands for the whole bundle
    demonstration : whether its probabilities are for demonstration only
    networks : "lung_unet", "encoder_full" and "encoder_lung"
    """

    name: str
    folder: Path
    sha256: str
    licence: str
    intended_use: str
    demonstration: bool
    networks: Mapping[str, NetworkRecord]
    heads: HeadsRecord
    training: Mapping[str, Any]
    metrics: Mapping[str, Any]

    @property
    def files(self) -> dict[str, str]:
        """SHA-256 of every file of weights by its name."""
        return {self.heads.file: self.heads.sha256} | {record.file: record.sha256 for record in self.networks.values()}

    def load_state(self, network: str) -> dict[str, Tensor]:
        """Every tensor of a network by name, memory-mapped, after its file's hash was found right.

        Raises
        ------
        WeightsError : the file is missing, is not what ``bundle.json`` says, or is not safetensors
        """
        record = self.networks[network]
        path = check_hash(self.folder / record.file, record.sha256)
        try:
            return safetensors.torch.load_file(path)
        except (SafetensorError, OSError) as error:
            raise _unreadable(path, error) from None

    def load_heads(self) -> dict[str, np.ndarray]:
        """``coef_*``, ``intercept_*`` and the averaging weights ``alpha_*`` of the four `HEADS`, as `check_heads` says.

        Raises
        ------
        WeightsError : as `load_state`, and where an array is missing or of another shape
        """
        path = check_hash(self.folder / self.heads.file, self.heads.sha256)
        try:
            arrays = safetensors.numpy.load_file(path)
        except (SafetensorError, OSError) as error:
            raise _unreadable(path, error) from None
        architectures = {name: record.architecture for name, record in self.networks.items()}
        return check_heads(arrays, encoder_widths(architectures), source=str(path))


def open_bundle(folder: str | Path) -> Bundle:
    """Read and check a folder's ``bundle.json``. The weights are hashed when they are loaded, not here.

    Raises
    ------
    WeightsError : missing, not JSON, of another format version, or a fact is missing or of another type
    """
    folder = Path(folder)
    path = folder / "bundle.json"
    try:
        content = path.read_bytes()
        refuse_git_lfs_pointer(path)
        facts = json.loads(content)
    except OSError as error:
        raise _unreadable(path, error) from None
    except ValueError as error:
        raise WeightsError(f"{path}: expected JSON, found something else ({error}). {RESTORE}") from None
    version = _fact(facts, "format_version", int, path)
    if version != FORMAT_VERSION:
        raise WeightsError(
            f"{path}: format_version must be {FORMAT_VERSION}. Got {version} instead. Upgrade balaitous, or pack again."
        )
    networks = _fact(facts, "networks", dict, path)
    heads = _fact(facts, "heads", dict, path)
    return Bundle(
        name=_fact(facts, "name", str, path),
        folder=folder,
        sha256=hashlib.sha256(content).hexdigest(),
        licence=_fact(facts, "licence", str, path),
        intended_use=_fact(facts, "intended_use", str, path),
        demonstration=_fact(facts, "demonstration", bool, path),
        networks={name: _network(_fact(networks, name, dict, path), name, path) for name in NETWORK_KINDS},
        heads=HeadsRecord(_file_name(heads, path), _fact(heads, "sha256", str, path)),
        training=_fact(facts, "training", dict, path),
        metrics=_fact(facts, "metrics", dict, path),
    )


def _network(record: dict, name: str, path: Path) -> NetworkRecord:
    architecture = _fact(record, "architecture", dict, path)
    kind = _fact(architecture, "kind", str, path)
    expected: dict[str, type] = {"kind": str, **ARCHITECTURE_KEYS[NETWORK_KINDS[name]]}
    if kind != NETWORK_KINDS[name] or architecture.keys() != expected.keys():
        raise WeightsError(
            f"{path}: architecture of {name} must be of kind {NETWORK_KINDS[name]} with {', '.join(expected)}. "
            f"Got {architecture} instead. {RESTORE}"
        )
    for key, kind_of_value in expected.items():
        _fact(architecture, key, kind_of_value, path)
    return NetworkRecord(_file_name(record, path), _fact(record, "sha256", str, path), architecture)


def _fact(record: Any, key: str, kind: type, path: Path) -> Any:
    value = record.get(key) if isinstance(record, dict) else None
    if type(value) is not kind:  # not isinstance: a bool must not pass for an int
        found = "nothing" if value is None else repr(value)
        raise WeightsError(f"{path}: expected {key!r} ({kind.__name__}), found {found}. {RESTORE}")
    return value


def _file_name(record: dict, path: Path) -> str:
    name = _fact(record, "file", str, path)
    if name in ("", ".", "..") or "/" in name or "\\" in name:
        raise WeightsError(f"{path}: file must be a name inside the bundle's folder. Got {name!r} instead. {RESTORE}")
    return name


def check_hash(path: Path, expected_sha256: str) -> Path:
    """The path, if the file's SHA-256 is the expected one. A file that has not changed is hashed once a process.

    Raises
    ------
    WeightsError : the file is missing, unreadable, a Git LFS pointer, or another one
    """
    try:
        status = path.stat()
        found = _sha256_once(path, (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns))
    except OSError as error:
        raise _unreadable(path, error) from None
    if found != expected_sha256:
        refuse_git_lfs_pointer(path)
        raise WeightsError(f"{path}: expected SHA-256 {expected_sha256}, found {found}. {RESTORE}")
    return path


@lru_cache
def _sha256_once(path: Path, _version: tuple[int, ...]) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def forget_hashes() -> None:
    """Hash every file again when it is next asked for: what `verify` needs."""
    _sha256_once.cache_clear()


def refuse_git_lfs_pointer(path: Path) -> None:
    """Where Git LFS was not installed, a clone holds a few lines of text instead of each large file.

    Raises
    ------
    WeightsError : the file is such a text
    """
    with path.open("rb") as file:
        if file.read(len(GIT_LFS_POINTER)) == GIT_LFS_POINTER:
            raise WeightsError(f"{path}: expected the file, found a Git LFS pointer to it. Run `git lfs pull`.")


def _unreadable(path: Path, error: Exception) -> WeightsError:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else " ".join(str(error).split())
    return WeightsError(f"{path}: expected a readable file of a weight bundle, found: {reason}. {RESTORE}")
