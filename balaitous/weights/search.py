"""Where weight bundles are found: by name or folder, else in the places that are searched in order."""

from __future__ import annotations

import os
from pathlib import Path

from balaitous.errors import WeightsError

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


def search_places() -> list[tuple[str, Path]]:
    """Where a bundle is looked for when none is asked for, in this order: (what the place is, folder)."""
    repository, *cache, installed = bundle_roots()
    return [
        ("container's model folder", MODEL_MOUNT),
        ("repository", repository / "stoic"),
        *[("user cache", root / "stoic") for root in cache],
        ("repository", repository / "mini"),
        ("installed package", installed / "mini"),
    ]


def find_bundle(weights: str | Path | None = None) -> Path:
    """The folder of the bundle asked for, else of ``$BALAITOUS_WEIGHTS``, else the first of `search_places`.

    Parameters
    ----------
    weights : a bundle's folder, or its name in one of `bundle_roots`

    Raises
    ------
    WeightsError : no bundle there; nothing falls back to another bundle when one was asked for
    """
    if weights is not None:
        return _asked_for(weights, "weights")
    if chosen := os.environ.get("BALAITOUS_WEIGHTS"):
        return _asked_for(chosen, "$BALAITOUS_WEIGHTS")
    places = search_places()
    for _, folder in places:
        if found := bundle_in(folder):
            return found
        if folder == MODEL_MOUNT:
            _check_nothing_ignored(folder)
    raise WeightsError(
        f"no weights found. Expected a folder with bundle.json in one of: {', '.join(str(f) for _, f in places)}. "
        "Run `balaitous weights fetch stoic`, or name a bundle's folder (--weights or $BALAITOUS_WEIGHTS)."
    )


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


def _asked_for(weights: str | Path, origin: str) -> Path:
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
