"""A zip archive as a folder that lasts as long as it is read."""

from __future__ import annotations

import stat
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath, PureWindowsPath

from balaitous.errors import InputError

MAXIMUM_UNPACKED_BYTES = 8 * 2**30  # eight times a 2,000-slice series; what a hostile archive may fill of the disk


@contextmanager
def unpacked(path: Path) -> Iterator[Path]:
    """Temporary folder with the archive's files, removed on leaving.

    Raises
    ------
    InputError
        Not a whole zip file, encrypted, larger than `MAXIMUM_UNPACKED_BYTES`, or with a member that is a link or lies
        outside the folder.
    """
    with tempfile.TemporaryDirectory(prefix="balaitous-") as folder:
        try:
            with zipfile.ZipFile(path) as archive:
                _check_members(archive.infolist())
                archive.extractall(folder)
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, OSError) as error:
            raise InputError(f"expected a whole zip file of a DICOM folder, cannot unpack it ({error})") from error
        yield Path(folder)


def _check_members(members: list[zipfile.ZipInfo]) -> None:
    # zipfile never writes more than a member declares, so the declared sizes bound what is unpacked.
    declared = sum(member.file_size for member in members)
    if declared > MAXIMUM_UNPACKED_BYTES:
        raise InputError(
            f"expected at most {MAXIMUM_UNPACKED_BYTES / 2**30:.0f} GiB in the zip, it declares "
            f"{declared / 2**30:.1f} GiB; pack one CT series only"
        )
    for member in members:
        outside = any(
            kind(member.filename).is_absolute() or ".." in kind(member.filename).parts or kind(member.filename).drive
            for kind in (PurePosixPath, PureWindowsPath)
        )
        if outside or stat.S_ISLNK(member.external_attr >> 16):
            raise InputError(
                f"expected plain files inside the zip's own folder, found {member.filename!r}, which is a link or "
                "points outside; pack the DICOM folder again"
            )
