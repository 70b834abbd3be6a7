"""Get a published bundle: download its files (or take them from a folder), verify them, pack them.

Nothing is packed before it was verified. What was downloaded survives an interruption and is not sent again. The
downloads are deleted once the bundle made of them is in place; files copied by hand are never touched.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from balaitous.errors import WeightsError, one_line
from balaitous.locks import Lock
from balaitous.reading.documents import MAXIMUM_BYTES, read_json
from balaitous.weights.bundle import check_hash, open_bundle
from balaitous.weights.download import ATTEMPTS, DownloadError, download, forget
from balaitous.weights.pack import free_folder
from balaitous.weights.registry import PublishedBundle, PublishedFile, published_bundles
from balaitous.weights.search import bundle_roots, user_cache

log = logging.getLogger(__name__)

LARGEST_FILE = 2**40  # bytes
Progress = Callable[[str, int, int | None], None]  # file name, bytes so far, bytes in all where known


def fetch(
    name: str | PublishedBundle,
    out: str | Path | None = None,
    from_dir: str | Path | None = None,
    on_progress: Progress | None = None,
) -> Path:
    """Make the bundle `name` from its published files.

    Parameters
    ----------
    name : of `published_bundles`, or an entry like those
    out : the bundle's folder; default: the repository's ``resources/NAME`` where that can be written, else the user's
        cache. A bundle that is there already and whole is left as it is
    from_dir : folder with the published files under their own names, copied by hand; nothing is downloaded. Files
        whose publisher states the hash online only are checked against it if the network allows, else for keys and
        shapes alone, which is logged and recorded in ``bundle.json``
    on_progress : called during downloads with (file name, bytes so far, bytes in all or None)

    Returns
    -------
    Path : the bundle's folder

    Raises
    ------
    ValueError : no such published bundle, or `out` holds something else
    WeightsError : offline, refused, a file is not the published one, no room, or another process fetches the same
    """
    published = _published(name) if isinstance(name, str) else name
    out = default_folder(published.name) if out is None else Path(out).absolute()
    if _is_there(out):
        return out
    free_folder(out)
    if from_dir is not None:
        return _pack(published, *_copied_by_hand(published, Path(from_dir)), out)
    downloads = out.with_name(f"{out.name}.download")
    with _alone_in(downloads):
        if not _is_there(out):  # or another process was faster
            try:
                files, origin = _downloaded(published, downloads, on_progress)
            except DownloadError as error:
                raise DownloadError(f"{error} {_by_hand(published)}") from None
            _pack(published, files, origin, out)
            for file in files.values():
                file.unlink()
    with contextlib.suppress(OSError):  # it holds something else
        downloads.rmdir()
    return out


def _published(name: str) -> PublishedBundle:
    known = published_bundles()
    if name not in known:
        raise ValueError(f"name must be one of {', '.join(known)}. Got {name!r} instead.")
    return known[name]


def default_folder(name: str) -> Path:
    """Where `fetch` puts a bundle unless told otherwise.

    Raises
    ------
    WeightsError : neither the repository nor a cache can be written
    """
    resources, cache = bundle_roots()[0], user_cache()
    if os.access(resources, os.W_OK):
        return resources / name
    if cache is None:
        raise WeightsError("expected a home folder to keep weights in, found none. Set BALAITOUS_CACHE or pass --out.")
    return cache / name


def _is_there(out: Path) -> bool:
    if not os.path.isfile(out / "bundle.json"):  # os.path: False where Path.is_file raises PermissionError
        return False
    try:
        for file, sha256 in open_bundle(out).files.items():
            check_hash(out / file, sha256)
    except WeightsError as error:
        raise WeightsError(f"{error} To fetch it again, first delete {out}.") from None
    return True


def _downloaded(
    published: PublishedBundle, downloads: Path, on_progress: Progress | None
) -> tuple[dict[str, Path], list[dict[str, Any]]]:
    stated = _stated_online(published, ATTEMPTS)
    sizes = {file.name: stated.get(file.name, {}).get("size", file.size_bytes) for file in published.files}
    present = sum(path.stat().st_size for path in downloads.iterdir())
    _check_room(downloads, max(sum(sizes.values()) - present, 0) + sum(sizes.values()))  # the files and their bundle
    files, origin = {}, []
    for file in published.files:
        whole, part = downloads / file.name, downloads / f"{file.name}.part"
        path = whole if whole.exists() else part
        if path is part:
            log.info("downloading %s from %s", file.name, file.url)
            # where its exact size is not known, as far as one may be off
            most = sizes[file.name] if file.name in stated else 2 * file.size_bytes
            download(file.url, part, partial(on_progress, file.name) if on_progress else None, maximum_bytes=most)
        try:
            origin.append(_identify(file, path, stated.get(file.name)))
        except WeightsError as error:
            forget(part)
            whole.unlink(missing_ok=True)
            raise WeightsError(f"{error} It was deleted; fetch again.") from None
        os.replace(path, whole)
        part.with_name(f"{part.name}.validator").unlink(missing_ok=True)
        files[file.network] = whole
    return files, origin


def _copied_by_hand(published: PublishedBundle, folder: Path) -> tuple[dict[str, Path], list[dict[str, Any]]]:
    missing = [file.name for file in published.files if not os.path.isfile(folder / file.name)]
    if missing:
        raise WeightsError(
            f"{folder}: expected the published files, found no {', '.join(missing)}. {_by_hand(published)}"
        )
    try:
        stated = _stated_online(published, attempts=1)
    except DownloadError as error:
        log.warning("%s", error)
        stated = {}
    files = {file.network: folder / file.name for file in published.files}
    return files, [_identify(file, folder / file.name, stated.get(file.name)) for file in published.files]


def _stated_online(published: PublishedBundle, attempts: int) -> dict[str, dict[str, Any]]:
    """Size and MD5 by file name, as Zenodo's records state them; the connection (https) vouches for the statement."""
    stated = {}
    for address in sorted({file.record_api for file in published.files if file.record_api}):
        with tempfile.TemporaryDirectory() as folder:
            answer = Path(folder) / "record.json"
            wanted = [file.name for file in published.files if file.record_api == address]
            try:
                download(address, answer, attempts=attempts, maximum_bytes=MAXIMUM_BYTES)
                record = {entry["key"]: entry for entry in read_json(answer)["files"]}
                for name in wanted:
                    algorithm, _, value = record[name]["checksum"].partition(":")
                    if algorithm != "md5":
                        raise ValueError(f"checksum of {name} is {algorithm}, not md5")
                    if type(size := record[name]["size"]) is not int or not 0 < size <= LARGEST_FILE:
                        raise ValueError(f"size of {name} is {str(size)[:40]}")
                    stated[name] = {"md5": value, "size": size}
            except (WeightsError, ValueError, KeyError, TypeError, AttributeError) as error:
                reason = f"no {error} in the answer" if isinstance(error, KeyError) else str(error).rstrip(".")
                raise DownloadError(
                    f"the hashes to verify {', '.join(wanted)} could not be had: {one_line(reason)}."
                ) from None
    return stated


def _identify(file: PublishedFile, path: Path, stated: Mapping[str, Any] | None) -> dict[str, Any]:
    """What was used and how it was verified, for ``bundle.json``; an error if it is not the published file."""
    try:
        size, (sha256, md5) = path.stat().st_size, _digests(path)
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({error.strerror}).") from None
    if stated and size != stated["size"]:
        raise WeightsError(f"{path}: expected {stated['size']:,} bytes, found {size:,}.")
    if file.sha256_prefix:
        expected, found, verified = file.sha256_prefix, sha256[: len(file.sha256_prefix)], "beginning of its SHA-256"
    elif stated:
        expected, found, verified = stated["md5"], md5, f"MD5 stated by {file.record_api}"
    else:
        expected, found, verified = "", "", "keys and shapes only"
        log.warning("%s could be checked for keys and shapes only, not against its published hash", path)
    if found != expected:
        raise WeightsError(f"{path}: expected {expected} ({verified}), found {found}. It is not the published file.")
    return {"file": file.name, "url": file.url, "bytes": size, "sha256": sha256, "verified": verified}


def _digests(path: Path) -> tuple[str, str]:
    sha256, md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            sha256.update(block)
            md5.update(block)
    return sha256.hexdigest(), md5.hexdigest()


def _pack(published: PublishedBundle, files: Mapping[str, Path], origin: list[dict[str, Any]], out: Path) -> Path:
    _check_room(out.parent, sum(file.stat().st_size for file in files.values()))
    log.info("packing %s", out)
    facts = replace(published.facts, training={**published.facts.training, "made_from": origin})
    return published.pack(files, out, facts)


def _check_room(folder: Path, needed_bytes: int) -> None:
    existing = next(parent for parent in (folder, *folder.absolute().parents) if os.path.exists(parent))
    free_bytes = shutil.disk_usage(existing).free
    if free_bytes < needed_bytes:
        raise WeightsError(
            f"{folder}: expected {needed_bytes / 1e9:.1f} GB of free disk, found {free_bytes / 1e9:.1f} GB. "
            "Make room, or choose another place with --out."
        )


@contextlib.contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Keep other processes out of the download folder; the lock ends with the process, however that ends."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = Lock(folder)
    except OSError as error:
        raise WeightsError(
            f"{folder}: cannot be written ({error.strerror}). Choose another place with --out."
        ) from None
    except ValueError:
        raise WeightsError(f"{folder}: another process is fetching into it. Wait until it is done.") from None
    with lock:
        yield


def _by_hand(published: PublishedBundle) -> str:
    urls = ", ".join(file.url for file in published.files)
    return (
        f"Without network: download {urls} elsewhere, copy the files into a folder DIR and run "
        f"`balaitous weights fetch {published.name} --from DIR`."
    )
