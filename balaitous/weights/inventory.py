"""Which bundles are here, and whether they are what they claim: `balaitous weights list` and `verify`."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from balaitous.errors import WeightsError
from balaitous.models import DEFAULT, MODELS, Model, imported
from balaitous.networks.loading import build_network, load_strictly
from balaitous.weights.bundle import BUNDLE_FILE, Bundle, forget_hashes, model_of, open_bundle
from balaitous.weights.search import (
    bundle_in,
    bundle_of_environment,
    bundle_roots,
    bundles_below,
    find_bundle,
    search_places,
)


@dataclass(frozen=True)
class FileCheck:
    """One file of a bundle; `problem` is None where nothing is wrong with it."""

    file: str
    problem: str | None

    @property
    def ok(self) -> bool:
        return self.problem is None


@dataclass(frozen=True)
class ListedBundle:
    """A place where bundles are looked for, and what is there.

    Attributes
    ----------
    place : what the place is
    bundle : None where nothing is there, or nothing readable (then `problem` says why)
    size_bytes : of its files
    in_use : whether it is the one that runs unless another is asked for
    """

    place: str
    folder: Path
    bundle: Bundle | None
    size_bytes: int
    problem: str | None
    in_use: bool


def verify(folder: str | Path) -> list[FileCheck]:
    """Check every file of a bundle: hash, that its network is built and takes the weights, or that it holds arrays.

    Where nothing is wrong with any of them, the model looks whether they belong together.
    """
    forget_hashes()
    try:
        bundle = open_bundle(folder)
    except WeightsError as error:
        return [FileCheck(BUNDLE_FILE, str(error))]
    checks = [
        *[_check(record.file, partial(_load, bundle, name)) for name, record in bundle.networks.items()],
        *[_check(record.file, partial(bundle.load_arrays, name)) for name, record in bundle.arrays.items()],
    ]
    together = FileCheck(BUNDLE_FILE, None)
    if all(check.ok for check in checks) and bundle.model in MODELS and MODELS[bundle.model].checking:
        together = _check(BUNDLE_FILE, partial(imported(MODELS[bundle.model].checking), bundle.folder))
    return [together, *checks]


def _load(bundle: Bundle, network: str) -> None:
    record = bundle.networks[network]
    source = str(bundle.folder / record.file)
    load_strictly(build_network(record.architecture, source=source), bundle.load_state(network), source=source)


def _check(file: str, work: Callable[[], object]) -> FileCheck:
    try:
        work()
    except WeightsError as error:
        return FileCheck(file, str(error))
    return FileCheck(file, None)


def list_bundles(model: Model = MODELS[DEFAULT]) -> list[ListedBundle]:
    """Every place where a model's bundle is looked for, whether or not one is there, then those found by name only.

    A bundle that no model of this version claims is listed with the default one.
    """
    chosen, listed = os.environ.get("BALAITOUS_WEIGHTS"), []
    used = asked = None
    try:
        asked, used = bundle_of_environment(model), find_bundle(model=model)
    except WeightsError as error:
        listed = [ListedBundle("$BALAITOUS_WEIGHTS", Path(chosen), None, 0, str(error), False)] if chosen else []
    places = search_places(model)
    if asked:
        places.insert(0, ("$BALAITOUS_WEIGHTS", asked))
    searched = [folder for _, folder in places]
    named = [folder for root in bundle_roots() for folder in bundles_below(root) if _claims(model, folder)]
    places += [("by name", folder) for folder in named if folder not in searched]
    return [*listed, *[_listed(place, folder, used) for place, folder in places]]


def _claims(model: Model, folder: Path) -> bool:
    named = model_of(folder)
    return model.name == (named if named in MODELS else DEFAULT)


def _listed(place: str, folder: Path, used: Path | None) -> ListedBundle:
    found = bundle_in(folder)
    if found is None:
        return ListedBundle(place, folder, None, 0, None, False)
    try:
        bundle = open_bundle(found)
    except WeightsError as error:
        return ListedBundle(place, found, None, 0, str(error), found == used)
    paths = [found / name for name in ("bundle.json", *bundle.files)]
    size_bytes = sum(os.path.getsize(path) for path in paths if os.path.isfile(path))
    return ListedBundle(place, found, bundle, size_bytes, None, found == used)
