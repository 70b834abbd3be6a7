"""Weight bundles: what one is, and how its files are checked before they are opened.

A bundle is a folder with ``bundle.json``, a ``.safetensors`` file for each network and each set of arrays of a model,
and ``CARD.md`` for people. ``bundle.json`` names the model, and each file with its SHA-256; for networks also the
numbers that rebuild the architecture, what the network sees, and what its outputs are called. Which networks and arrays
a model needs is the model's affair.

Format 2 is written; format 1, which was severity's alone, is read as what it would be in format 2.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
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

from balaitous.errors import WeightsError, reason_of
from balaitous.files import open_regular, sha256_of
from balaitous.networks.loading import FRACTIONS
from balaitous.reading.documents import MAXIMUM_BYTES, parse_json
from balaitous.weights.card import is_line
from balaitous.weights.format_1 import as_format_2

FORMAT_VERSION = 2
BUNDLE_FILE = "bundle.json"
CARD_FILE = "CARD.md"

MOST_CHARACTERS = 10_000  # of a name or a licence
SHA256 = re.compile("[0-9a-f]{64}")
# What safetensors raises: for an unknown type it is one of the others.
NOT_SAFETENSORS = (SafetensorError, OSError, KeyError, TypeError, ValueError, AttributeError)
GIT_LFS_POINTER = b"version https://git-lfs.github.com/spec/"
RESTORE = "Restore the bundle's folder (published weights: `balaitous weights fetch`)."


@dataclass(frozen=True)
class FileRecord:
    """A file in a bundle's folder, and its hash."""

    file: str
    sha256: str


@dataclass(frozen=True)
class NetworkRecord(FileRecord):
    """One network of a bundle.

    Attributes
    ----------
    architecture : ``kind`` and the numbers that rebuild it, as `build_network` takes them
    input : what it sees, as in timm's ``PretrainedCfg``: ``size`` (C, H, W); ``window``, from and to which HU, or
        ``range``, of grey values, that becomes 0…1; ``mean`` and ``std`` of each channel, where these are standardised
    outputs : what each of its outputs is called, in order
    """

    architecture: Mapping[str, Any]
    input: Mapping[str, Any]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class Bundle:
    """What ``bundle.json`` says; weights are read on demand.

    Attributes
    ----------
    sha256 : of ``bundle.json``; because that file holds the hash of every other, it stands for the whole bundle
    model : whose it is, a name of `balaitous.models`
    demonstration : whether its probabilities are for demonstration only
    networks, arrays : by the model's names for them
    calibration : maps from the model's probabilities to calibrated ones, as the model understands them; empty without
    """

    name: str
    folder: Path
    sha256: str
    model: str
    licence: str
    intended_use: str
    demonstration: bool
    networks: Mapping[str, NetworkRecord]
    arrays: Mapping[str, FileRecord]
    training: Mapping[str, Any]
    metrics: Mapping[str, Any]
    calibration: Mapping[str, Any]

    @property
    def files(self) -> dict[str, str]:
        """SHA-256 of every file of weights by its name."""
        return {record.file: record.sha256 for record in [*self.networks.values(), *self.arrays.values()]}

    @property
    def calibrated_by(self) -> str:
        """How the calibration was made: the methods of its maps, such as "platt".

        Raises
        ------
        WeightsError : it was never calibrated
        """
        methods = {
            str(each["method"]) for each in self.calibration.values() if isinstance(each, dict) and "method" in each
        }
        if not methods:
            raise WeightsError(
                f"{self.folder}: expected a calibrated bundle, found one that is not. Make one of it: "
                "`balaitous weights calibrate`."
            )
        return "+".join(sorted(methods))

    def load_state(self, network: str) -> dict[str, Tensor]:
        """Every tensor of a network by name, memory-mapped, after its file's hash was found right.

        Raises
        ------
        WeightsError : no such network, or the file is missing, not what ``bundle.json`` says, not safetensors, or has
            a number that is not finite
        """
        path = self._checked(self.networks, network)
        _check_numbers(path, self.networks[network].sha256)
        return _state_in(path)

    def load_arrays(self, name: str) -> dict[str, np.ndarray]:
        """A set of arrays by their names, after its file's hash was found right.

        Raises
        ------
        WeightsError : as `load_state`
        """
        path = self._checked(self.arrays, name)
        try:
            arrays = safetensors.numpy.load_file(path)
        except NOT_SAFETENSORS as error:
            raise _unreadable(path, error) from None
        for key, array in arrays.items():
            if array.dtype.kind in "fc" and not np.isfinite(array).all():
                raise _not_finite(path, key)
        return arrays

    def _checked(self, records: Mapping[str, FileRecord], name: str) -> Path:
        if name not in records:
            found = ", ".join(records) or "nothing"
            raise WeightsError(f"{self.folder / BUNDLE_FILE}: expected {name!r}, found {found}. {RESTORE}")
        return check_hash(self.folder / records[name].file, records[name].sha256)


def open_bundle(folder: str | Path) -> Bundle:
    """Read and check a folder's ``bundle.json``. The weights are hashed when they are loaded, not here.

    Raises
    ------
    WeightsError : missing, not JSON, of another format version, or a fact is missing or of another type
    """
    folder = Path(folder)
    path = folder / BUNDLE_FILE
    try:
        refuse_git_lfs_pointer(path)
        with open_regular(path) as file:
            content = file.read(MAXIMUM_BYTES + 1)
        if len(content) > MAXIMUM_BYTES:
            raise ValueError(f"more than {MAXIMUM_BYTES:,} bytes")
        facts = parse_json(content)
        json.dumps(facts, ensure_ascii=False).encode()  # a half of a surrogate pair is no text, and cannot be written
    except OSError as error:
        raise _unreadable(path, error) from None
    except ValueError as error:
        raise WeightsError(f"{path}: expected JSON, found something else ({error}). {RESTORE}") from None
    version = _fact(facts, "format_version", int, path)
    if version not in (1, FORMAT_VERSION):
        raise WeightsError(
            f"{path}: format_version must be 1 or {FORMAT_VERSION}. Got {version} instead. Upgrade balaitous, or pack "
            "again."
        )
    if version == 1:
        facts = as_format_2(facts)
    networks, arrays = (_fact(facts, key, dict, path) for key in ("networks", "arrays"))
    for name in (*networks, *arrays):
        _check_text(name, "names of networks and arrays", path)
    return Bundle(
        name=_text(facts, "name", path),
        folder=folder,
        sha256=hashlib.sha256(content).hexdigest(),
        licence=_text(facts, "licence", path),
        intended_use=_text(facts, "intended_use", path),
        demonstration=_fact(facts, "demonstration", bool, path),
        model=_text(facts, "model", path),
        networks={name: _network(_fact(networks, name, dict, path), path) for name in networks},
        arrays={name: _file(_fact(arrays, name, dict, path), path) for name in arrays},
        training=_fact(facts, "training", dict, path),
        metrics=_fact(facts, "metrics", dict, path),
        calibration=_fact(facts, "calibration", dict, path) if "calibration" in facts else {},
    )


def model_of(folder: Path) -> str | None:
    """The model that a folder's ``bundle.json`` names; None where `open_bundle` cannot read it, and says why."""
    try:
        return open_bundle(folder).model
    except WeightsError:
        return None


def _network(record: dict, path: Path) -> NetworkRecord:
    file = _file(record, path)
    outputs = _fact(record, "outputs", list, path)
    if not all(isinstance(output, str) for output in outputs):
        raise WeightsError(f"{path}: outputs must be names. Got {str(outputs)[:80]} instead. {RESTORE}")
    for output in outputs:
        _check_text(output, "outputs", path)
    return NetworkRecord(
        file.file,
        file.sha256,
        architecture=_fact(record, "architecture", dict, path),
        input=_fact(record, "input", dict, path),
        outputs=tuple(outputs),
    )


def _file(record: dict, path: Path) -> FileRecord:
    name, sha256 = _file_name(record, path), _text(record, "sha256", path)
    if not SHA256.fullmatch(sha256):
        raise WeightsError(f"{path}: sha256 must be 64 digits of 0-9 and a-f. Got {sha256[:80]!r} instead. {RESTORE}")
    return FileRecord(name, sha256)


def _fact(record: Any, key: str, kind: type, path: Path) -> Any:
    value = record.get(key) if isinstance(record, dict) else None
    if type(value) is not kind:  # not isinstance: a bool must not pass for an int
        found = "nothing" if value is None else repr(value)[:80]
        raise WeightsError(f"{path}: expected {key!r} ({kind.__name__}), found {found}. {RESTORE}")
    return value


def _text(record: Any, key: str, path: Path) -> str:
    """A fact that stands in messages, tables and names of files."""
    return _check_text(_fact(record, key, str, path), key, path)


def _check_text(text: str, what: str, path: Path) -> str:
    if not is_line(text) or len(text) > MOST_CHARACTERS:
        raise WeightsError(f"{path}: {what} must be a line of text. Got {text[:80]!r} instead. {RESTORE}")
    return text


def _file_name(record: dict, path: Path) -> str:
    name = _text(record, "file", path)
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
    return sha256_of(path)


def forget_hashes() -> None:
    """Hash every file again when it is next asked for: what `verify` needs."""
    _sha256_once.cache_clear()


@lru_cache
def _check_numbers(path: Path, _sha256: str) -> None:
    """Refuse a network with a number that is not finite in float32. A content is looked at once a process: 0.3 s/GB."""
    for key, tensor in _state_in(path).items():
        if tensor.dtype in FRACTIONS and tensor.numel():
            ends = tensor.aminmax()  # NaN is both of them; unlike `isfinite` it makes no copy
            if not all(math.isfinite(end.float()) for end in ends):
                raise _not_finite(path, key)


def _state_in(path: Path) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load_file(path)
    except NOT_SAFETENSORS as error:
        raise _unreadable(path, error) from None


def _not_finite(path: Path, key: str) -> WeightsError:
    return WeightsError(f"{path}: expected finite numbers, found NaN or infinity in {key}. {RESTORE}")


def refuse_git_lfs_pointer(path: Path) -> None:
    """Where Git LFS was not installed, a clone holds a few lines of text instead of each large file.

    Raises
    ------
    WeightsError : the file is such a text
    """
    with open_regular(path) as file:
        if file.read(len(GIT_LFS_POINTER)) == GIT_LFS_POINTER:
            raise WeightsError(f"{path}: expected the file, found a Git LFS pointer to it. Run `git lfs pull`.")


def _unreadable(path: Path, error: Exception) -> WeightsError:
    return WeightsError(f"{path}: expected a readable file of a weight bundle, found: {reason_of(error)}. {RESTORE}")
