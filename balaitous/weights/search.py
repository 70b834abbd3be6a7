"""Where weight bundles are found: by name or folder, else in the places that are searched in order."""

from __future__ import annotations

import os
from pathlib import Path

from balaitous.errors import WeightsError
from balaitous.models import DEFAULT, Model, find_model
from balaitous.weights.bundle import model_of

MODEL_MOUNT = Path("/opt/ml/model")  # where Grand Challenge unpacks a model tarball
PACKAGE = Path(__file__).resolve().parent.parent


def user_cache() -> Path | None:
    """``$BALAITOUS_CACHE``, else ``$XDG_CACHE_HOME/balaitous``, else ``~/.cache/balaitous``; None without a home."""
    if chosen := os.environ.get("BALAITOUS_CACHE"):
        return Path(os.path.expanduser(chosen))
    caches = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(caches) / "balaitous" if os.path.isabs(caches) else None


def bundle_roots() -> list[Path]:
    """Folders that hold bundles by name: the repository's ``resources``, the user's cache, the installed package's."""
    roots = [PACKAGE.parent / "resources", user_cache(), PACKAGE / "resources"]
    return [root for root in roots if root is not None]


def search_places(model: Model | str = DEFAULT) -> list[tuple[str, Path]]:
    """Where a model's bundle is looked for when none is asked for, in this order: (what the place is, folder).

    What is to be fetched lies in the repository or the user's cache, the last of the model's bundles in the repository
    or the installed package.
    """
    repository, *cache, installed = bundle_roots()
    row = _row(model)
    places = [("container's model folder", MODEL_MOUNT)]
    for name in row.bundles[:-1]:
        places += [("repository", repository / name), *[("user cache", root / name) for root in cache]]
    for name in row.bundles[-1:]:
        places += [("repository", repository / name), ("installed package", installed / name)]
    return places


def find_bundle(weights: str | Path | None = None, model: Model | str = DEFAULT) -> Path:
    """The folder of the bundle asked for, else of ``$BALAITOUS_WEIGHTS``, else the first of `search_places`.

    What is meant for all models counts for the one that its bundle names: ``$BALAITOUS_WEIGHTS`` and the container's
    model folder are passed over where their bundle is another model's.

    Parameters
    ----------
    weights : a bundle's folder, or its name in one of `bundle_roots`
    model : whose bundle; a row of `balaitous.models` or its name

    Raises
    ------
    WeightsError : no bundle there, or another model's; nothing falls back to another bundle when one was asked for
    """
    row = _row(model)
    if weights is not None:
        return _of_model(row, named_bundle(weights), f"weights {str(weights)!r}")
    if found := bundle_of_environment(row):
        return found
    places = search_places(row)
    for place, folder in places:
        in_place = bundle_in(folder)
        if folder == MODEL_MOUNT and in_place is None:
            _check_nothing_ignored(folder)
        elif in_place and (folder != MODEL_MOUNT or fits(in_place, row)):
            return _of_model(row, in_place, place)
    fetch = f"Run `balaitous weights fetch {row.bundles[0]}`, or name" if row.published else "Name"
    raise WeightsError(
        f"no weights found. Expected a folder with bundle.json in one of: {', '.join(str(f) for _, f in places)}. "
        f"{fetch} a bundle's folder (--weights or $BALAITOUS_WEIGHTS)."
    )


def bundle_of_environment(model: Model) -> Path | None:
    """The bundle of ``$BALAITOUS_WEIGHTS``, where that is set, if it is the model's.

    Raises
    ------
    WeightsError : no bundle there
    """
    chosen = os.environ.get("BALAITOUS_WEIGHTS")
    found = named_bundle(chosen, "$BALAITOUS_WEIGHTS") if chosen else None
    return found if found and fits(found, model) else None


def fits(folder: Path, model: Model) -> bool:
    """Whether a bundle is the model's. One that cannot be read is: to open it says what is wrong with it."""
    return model_of(folder) in (model.name, None)


def _of_model(model: Model, folder: Path, origin: str) -> Path:
    if not fits(folder, model):
        raise WeightsError(
            f"{origin}: expected a bundle of the model {model.name}, found one of {model_of(folder)} in {folder}. "
            "See `balaitous weights list`."
        )
    return folder


def _row(model: Model | str) -> Model:
    return find_model(model) if isinstance(model, str) else model


def _check_nothing_ignored(mount: Path) -> None:
    """A model tarball was uploaded on purpose: to run other weights than those in it would be a silent fallback."""
    present = _visible(mount)
    if os.path.isdir(mount) and not os.access(mount, os.R_OK | os.X_OK):
        present = ["a folder that this user may not read"]
    if present:
        raise WeightsError(
            f"{mount}: expected bundle.json in it or in its only sub-folder, found {', '.join(present[:5])}. "
            "Upload a bundle made by `balaitous weights pack`, or leave the folder empty."
        )


def named_bundle(weights: str | Path, origin: str = "weights") -> Path:
    """The folder of a bundle, of whatever model.

    Parameters
    ----------
    weights : a bundle's folder, or its name in one of `bundle_roots`
    origin : who asked for it, for the message

    Raises
    ------
    WeightsError : no bundle there
    """
    asked = Path(os.path.expanduser(weights))
    is_name = len(asked.parts) == 1
    places = [asked, *[root / asked for root in bundle_roots() if is_name]]
    for place in places:
        if found := bundle_in(place):
            return found
    raise WeightsError(
        f"{origin} {str(weights)!r}: expected a weight bundle's name or folder, found no bundle.json in "
        f"{', '.join(map(str, places))}. See `balaitous weights list`; `balaitous weights fetch stoic` gets the "
        "published one."
    )


def bundle_in(folder: Path) -> Path | None:
    """The folder if it holds ``bundle.json``, else its sub-folder that does if there is exactly one."""
    if os.path.isfile(folder / "bundle.json"):  # os.path: False where Path.is_file raises PermissionError
        return folder
    below = bundles_below(folder)
    return below[0] if len(below) == 1 else None


def bundles_below(folder: Path) -> list[Path]:
    """Sub-folders that hold ``bundle.json``, by name; none where the folder is missing or may not be read."""
    return [folder / name for name in _visible(folder) if os.path.isfile(folder / name / "bundle.json")]


def _visible(folder: Path) -> list[str]:
    try:
        names = sorted(os.listdir(folder))
    except OSError:
        return []
    return [name for name in names if not name.startswith(".") and name != "lost+found"]
