"""What a published bundle is: where its files are, how large, how they are checked, their licence, what to cite."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from balaitous.weights.pack import RESEARCH_USE


@dataclass(frozen=True)
class PublishedFile:
    """One downloadable network.

    Attributes
    ----------
    network : its place in a bundle: "lung_unet", "encoder_full" or "encoder_lung"
    size_bytes : approximate, to plan disk space; the exact size comes from the server
    sha256_prefix : what its SHA-256 begins with, where the publisher states that
    record_api : else the address of the Zenodo record (JSON) that states the file's MD5
    """

    network: str
    name: str
    url: str
    size_bytes: int
    licence: str
    citation: str
    sha256_prefix: str | None = None
    record_api: str | None = None


@dataclass(frozen=True)
class PublishedBundle:
    """A bundle that is made from published files.

    Attributes
    ----------
    heads : file of the four logistic regressions, carried with the package
    blocks_full, blocks_lung : how many blocks of each encoder run
    """

    name: str
    files: tuple[PublishedFile, ...]
    heads: Path
    licence: str
    blocks_full: int
    blocks_lung: int
    intended_use: str = RESEARCH_USE
    training: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
