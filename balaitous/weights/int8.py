"""The quantised networks of a bundle: kept in the user's cache, checked before they are opened."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from balaitous.errors import WeightsError
from balaitous.files import new_folder, sha256_of
from balaitous.networks.int8 import OPENVINO_IS_MISSING, Int8Network
from balaitous.reading.documents import read_json
from balaitous.weights.bundle import Bundle, check_hash
from balaitous.weights.search import user_cache

FORMAT_VERSION = 1  # of int8.json and of how networks are quantised: another one is made anew
MAKE = "`balaitous predict --precision int8` makes it from its first scans, `balaitous weights quantize` on purpose"


def load_int8(bundle: Bundle, name: str) -> Int8Network:
    """A network of the bundle as `Int8Store` keeps it, its files checked before they are opened.

    Parameters
    ----------
    name : one of the bundle's networks

    Raises
    ------
    WeightsError : not quantised yet, or a file is not the one that was written
    ValueError : OpenVINO is not installed
    """
    store = Int8Store(bundle)
    path = store.checked(name)
    try:
        return Int8Network(path)
    except RuntimeError as error:  # OpenVINO's exceptions
        problem = str(error).strip().splitlines()[-1]
        raise WeightsError(
            f"{path}: OpenVINO cannot run it ({problem}). Delete {store.folder} and quantise again."
        ) from None


@dataclass(frozen=True)
class Int8Store:
    """The quantised networks of a bundle, in the user's cache: ``int8/<bundle's hash>-<OpenVINO's version>/``.

    Raises
    ------
    WeightsError : there is no user cache
    ValueError : OpenVINO is not installed
    """

    bundle: Bundle

    @property
    def folder(self) -> Path:
        cache = user_cache()
        if cache is None:
            raise WeightsError(
                "expected a home folder to keep the quantised networks in, found none. Set BALAITOUS_CACHE."
            )
        try:
            return cache / "int8" / f"{self.bundle.sha256[:16]}-{version('openvino')}"
        except PackageNotFoundError:
            raise ValueError(OPENVINO_IS_MISSING) from None

    def exists(self) -> bool:
        """Whether the networks are there, in the form that this version makes. Their files are checked when opened."""
        return self._facts() is not None

    @property
    def sha256(self) -> str:
        """Of ``int8.json``; because that file holds the hash of every other, it stands for all of them."""
        return sha256_of(self.folder / "int8.json")

    def checked(self, name: str) -> Path:
        """Path of a network's ``.xml``, after its hash and that of the ``.bin`` beside it were found right."""
        facts = self._facts()
        if facts is None:
            raise WeightsError(f"{self.folder}: expected bundle {self.bundle.name!r} in int8, found nothing. {MAKE}.")
        for file in (f"{name}.bin", f"{name}.xml"):
            try:
                path = check_hash(self.folder / file, facts["files"][file])
            except (WeightsError, KeyError) as error:
                problem = str(error).partition(". ")[0]
                raise WeightsError(f"{problem}. Delete {self.folder} and quantise again: {MAKE}.") from None
        return path

    def _facts(self) -> dict[str, Any] | None:
        try:
            facts = read_json(self.folder / "int8.json")
            if not isinstance(facts, dict) or not isinstance(facts.get("files"), dict):
                raise ValueError("other content")
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise WeightsError(f"{self.folder}/int8.json: cannot be read ({error}). Delete {self.folder}.") from None
        same = facts.get("format_version") == FORMAT_VERSION and facts.get("bundle_sha256") == self.bundle.sha256
        return facts if same else None

    @contextlib.contextmanager
    def replaced(self, facts: Mapping[str, Any]) -> Iterator[Path]:
        """A folder for `save_model`; on leaving, it takes the store's place with ``int8.json``, all or nothing.

        Parameters
        ----------
        facts : of the calibration, for ``int8.json``

        Raises
        ------
        WeightsError : it could not be written
        """
        folder = self.folder
        try:
            with new_folder(folder) as partial:
                yield partial
                files = {path.name: sha256_of(path) for path in sorted(partial.iterdir())}
                record = {
                    "format_version": FORMAT_VERSION,
                    "bundle": self.bundle.name,
                    "bundle_sha256": self.bundle.sha256,
                    "made_with": {package: version(package) for package in ("openvino", "nncf", "torch")},
                    **facts,
                    "files": files,
                }
                (partial / "int8.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
                if folder.exists():
                    folder.rename(partial / "replaced")  # goes with `partial`, should another process have been faster
            shutil.rmtree(folder / "replaced", ignore_errors=True)
        except OSError as error:
            raise WeightsError(f"{folder}: could not be written ({error}). Is there room, and may you?") from None
