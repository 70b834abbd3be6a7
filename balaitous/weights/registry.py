"""What a published bundle is: where its files are, how large, how they are checked, their licence, what to cite."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from balaitous.models import MODELS, Model, imported
from balaitous.weights.pack import Facts


@dataclass(frozen=True)
class PublishedFile:
    """One downloadable network.

    Attributes
    ----------
    network : its place in a bundle, a name of the model's networks
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
    facts : what it says of itself; how its files were verified is added to its training
    files : to be downloaded
    pack : makes the bundle of (files by their network, folder, facts), and returns the folder
    """

    facts: Facts
    files: tuple[PublishedFile, ...]
    pack: Callable[[Mapping[str, Path], Path, Facts], Path]

    @property
    def name(self) -> str:
        return self.facts.name


def published_bundles(models: Iterable[Model] = MODELS.values()) -> dict[str, PublishedBundle]:
    """What can be fetched for some models, by name."""
    found: dict[str, PublishedBundle] = {}
    for model in models:
        found |= imported(model.published) if model.published else {}
    return found
