"""Scans behind addresses such as s3://bucket/scan.mha: fetched to this machine for as long as they are read.

fsspec opens the addresses. It knows local files (file://) by itself; other places need a package of theirs, which its
messages name: s3fs for s3://, gcsfs for gs://, adlfs for abfs://, aiohttp for https://.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from balaitous.cohort.zips import split_at_zip
from balaitous.errors import BalaitousError, InputError
from balaitous.reading.archive import unpacked_member
from balaitous.reading.headers import scan_name, voxel_file_of
from balaitous.reading.integrity import is_litter

if TYPE_CHECKING:
    import fsspec

PASSWORD = re.compile(r"(?<=://)([^/@:\s]*):[^/\s]*@")
SIGNATURE = re.compile(r"(https?://[^?\s]*)\?[^\s'\")]*")  # of a pre-signed address


def is_url(path: str | Path) -> bool:
    """Whether it is an address for fsspec, not a local path."""
    return isinstance(path, str) and "://" in path


def redacted(path: object) -> str:
    """A path, an address or a text with addresses in it, without passwords and signatures: for tables and messages."""
    return SIGNATURE.sub(r"\1", PASSWORD.sub(r"\1:***@", str(path)))


@contextmanager
def local_copy(path: str | Path) -> Iterator[Path]:
    """A local path to read a scan from: a local one as it is, an address, or what lies in a zip, as a copy.

    A copy is removed on leaving.

    The copy keeps its name, so that the scan has the same name in tables, and brings what a reader looks for beside it:
    the file of voxels of .mhd and .nhdr, and the side-car ``<name>.json`` (not of http addresses, where a web page may
    be the answer to any question).

    Parameters
    ----------
    path : a path, or the address of an image file, of a zip or of a DICOM folder

    Raises
    ------
    InputError : it cannot be fetched. Other errors of the package, raised while the copy is read, name the address
        where they named the copy.
    """
    if not is_url(path):
        within = split_at_zip(Path(path))
        if within is None:
            yield Path(path)
            return
        with unpacked_member(*within) as local:
            try:
                yield local
            except BalaitousError as error:
                raise type(error)(str(error).replace(str(local), str(path))) from error
        return
    with tempfile.TemporaryDirectory(prefix="balaitous-") as folder:
        with reachable(str(path)) as (files, root):
            local = _fetch(files, root, Path(folder))
        try:
            yield local
        except BalaitousError as error:
            raise type(error)(str(error).replace(str(local), redacted(path))) from error


@contextmanager
def reachable(url: str) -> Iterator[tuple[fsspec.AbstractFileSystem, str]]:
    """The file system behind an address, and the address in its words; what goes wrong inside becomes an InputError.

    Raises
    ------
    InputError : nothing there, no access, or the package for such addresses is not installed
    """
    from fsspec.core import url_to_fs

    try:
        files, root = url_to_fs(url)
        yield files, root.rstrip("/") or root
    except BalaitousError:
        raise
    except ImportError as error:
        raise InputError(
            f"{redacted(url)}: such addresses need a package that is not installed: {error}. Install it with pip, on a "
            "cluster on every node."
        ) from None
    except FileNotFoundError:
        raise InputError(f"no such file or folder: {redacted(url)}. Check the address.") from None
    except Exception as error:  # every kind of store has errors of its own; their chain may show credentials
        reason = " ".join(redacted(error).split()) or type(error).__name__
        raise InputError(
            f"{redacted(url)}: expected a file or folder, it cannot be reached ({reason}). Check the address, the "
            "credentials and the network."
        ) from None


def _fetch(files: fsspec.AbstractFileSystem, root: str, folder: Path) -> Path:
    """Copy a file or folder, and what belongs to it, into `folder`."""
    parent, _, name = redacted(root).rpartition("/")
    local = folder / name
    if files.info(root)["type"] == "directory":
        below = [(each, PurePosixPath(each[len(root) :].lstrip("/"))) for each in files.find(root)]
        if any(".." in relative.parts for _, relative in below):
            raise InputError(f"expected names inside the folder {root}, found '..' among them. Rename these files.")
        below = [(each, relative) for each, relative in below if not any(map(is_litter, relative.parts))]
        files.get([each for each, _ in below], [str(local / relative) for _, relative in below])
    else:
        files.get_file(root, str(local))
    with suppress(InputError):  # a header that is none: reading it will say so
        # Only a file right beside the header: a copy has no other folder.
        if local.is_file() and (voxels := voxel_file_of(local)) == PurePosixPath(voxels or "").name:
            files.get_file(f"{parent}/{voxels}", str(folder / voxels))
    if not root.startswith("http"):
        sidecar = f"{scan_name(local)}.json"
        with suppress(FileNotFoundError, PermissionError):  # S3 forbids what is not there, where listing is forbidden
            files.get_file(f"{parent}/{sidecar}", str(folder / sidecar))
    return local
