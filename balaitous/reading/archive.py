"""A zip archive as a folder that lasts as long as it is read."""

from __future__ import annotations

import io
import logging
import stat
import tempfile
import zipfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath, PureWindowsPath

from balaitous.errors import InputError, first_few
from balaitous.reading.dicom.files import looks_like_dicom
from balaitous.reading.headers import IMAGE_ENDINGS
from balaitous.reading.integrity import MAXIMUM_DEPTH, files_below, is_litter
from balaitous.reading.limits import SIZE_VARIABLE, in_time, maximum_bytes

log = logging.getLogger(__name__)

MAXIMUM_LISTING_BYTES = 2**23  # the list of members: some 70,000 of them
METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}  # zipfile bounds no other one's memory


@contextmanager
def unpacked(path: Path) -> Iterator[Path]:
    """Temporary folder with the archive's files, removed on leaving.

    Raises
    ------
    InputError
        Not a whole zip file, encrypted, larger than `maximum_bytes`, with a member that is a link, lies outside the
        folder or is there twice, or with image files and no DICOM.
    """
    with tempfile.TemporaryDirectory(prefix="balaitous-") as folder:
        with _opened(path, "a DICOM folder") as archive:
            for member in in_time(archive.infolist()):
                if not _is_litter(member):
                    archive.extract(member, folder)
            _check_content(path, Path(folder))
        yield Path(folder)


def members_of(path: Path) -> list[str]:
    """Names of the files in an archive but litter, ``/`` between their parts.

    Raises
    ------
    InputError : as `unpacked`
    """
    with _opened(path, "pictures") as archive:
        return [member.filename for member in archive.infolist() if not (member.is_dir() or _is_litter(member))]


@contextmanager
def unpacked_member(path: Path, name: str) -> Iterator[Path]:
    """One file of an archive, in a temporary folder that is removed on leaving.

    Raises
    ------
    InputError : as `unpacked`, or there is no such member
    """
    with tempfile.TemporaryDirectory(prefix="balaitous-") as folder:
        with _opened(path, "pictures") as archive:
            if name not in archive.namelist():
                raise InputError(f"expected {name} in {path}, found no such member; check the name")
            file = archive.extract(name, folder)
        yield Path(file)


@contextmanager
def _opened(path: Path, what: str) -> Iterator[zipfile.ZipFile]:
    """An archive whose members were found harmless; what goes wrong while it is open becomes an InputError."""
    try:
        with _Archive(path) as file, zipfile.ZipFile(file) as archive:
            _check_members(archive.infolist())
            yield archive
    except InputError:
        raise
    except Exception as error:  # zipfile lets a dozen types through for damaged archives
        raise InputError(f"expected a whole zip file of {what}, cannot unpack it ({error}); pack it again") from error


class _Archive(io.BufferedReader):
    """A zip file whose list of members, which zipfile reads at once, is not too long."""

    def __init__(self, path: Path) -> None:
        super().__init__(io.FileIO(path))

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > MAXIMUM_LISTING_BYTES:
            raise zipfile.BadZipFile(f"its list of members takes more than {MAXIMUM_LISTING_BYTES:,} bytes")
        return super().read(size)


def _check_members(members: list[zipfile.ZipInfo]) -> None:
    # zipfile never writes more than a member declares, so the declared sizes bound what is unpacked.
    declared = sum(member.file_size for member in members)
    if declared > maximum_bytes():
        raise InputError(
            f"expected at most {maximum_bytes() / 2**30:g} GiB in the zip, it declares {declared / 2**30:.1f} GiB; "
            f"pack one CT series only, or raise {SIZE_VARIABLE}"
        )
    for member in members:
        kinds = [kind(member.filename) for kind in (PurePosixPath, PureWindowsPath)]
        outside = any(path.is_absolute() or ".." in path.parts or path.drive for path in kinds)
        if outside or stat.S_ISLNK(member.external_attr >> 16):
            raise InputError(
                f"expected plain files inside the zip's own folder, found {member.filename!r}, which is a link or "
                "points outside; pack the DICOM folder again"
            )
        if member.compress_type not in METHODS or len(kinds[0].parts) > MAXIMUM_DEPTH:
            raise InputError(
                f"expected files that are stored or deflated, at most {MAXIMUM_DEPTH} folders deep, found one that is "
                f"not: {member.filename[:80]!r}; pack the DICOM folder again"
            )
    times = Counter(PurePosixPath(each.filename) for each in members if not (each.is_dir() or _is_litter(each)))
    if twice := [str(path) for path, count in times.items() if count > 1]:
        raise InputError(
            f"expected every file once in the zip, found {len(twice)} twice or more, such as {twice[0][:80]!r}; pack "
            "the DICOM folder again"
        )


def _is_litter(member: zipfile.ZipInfo) -> bool:
    return any(map(is_litter, PurePosixPath(member.filename).parts))


def _check_content(path: Path, folder: Path) -> None:
    """Refuse a zip of image files; those beside a DICOM series are left out, and named in a warning."""
    images = sorted(file for file in files_below(folder) if file.name.lower().endswith((*IMAGE_ENDINGS, ".zip")))
    if not images:
        return
    found = first_few([str(file.relative_to(folder)) for file in images])
    if not any(looks_like_dicom(file) for file in files_below(folder)):
        raise InputError(f"expected a DICOM folder in the zip, found {found}; unpack the zip and give what is in it")
    log.warning(
        "%s: left out beside the DICOM files of the zip: %s; unpack it to have these read too", path.name, found
    )
