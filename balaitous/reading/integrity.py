"""Is the file whole, and is it all there is to read? Checked before its voxels are read.

SimpleITK does not notice: a MetaImage or NIfTI file whose compressed voxels are cut short or damaged comes back as an
image full of garbage, without an exception, and a header may ask for more memory than the machine has. So the stored
voxels are located from the header (`balaitous.reading.headers`), compared with the file's size, and compressed ones are
inflated once against their checksum (about 0.3 s for a thin-slice chest CT, a small constant amount of memory).
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from balaitous.errors import InputError
from balaitous.reading.limits import in_time

LITTER = {"thumbs.db", "desktop.ini", "__macosx", "@eadir", "dicomdir"}  # the last one lists what a CD holds
CHUNK_BYTES = 2**20
MAXIMUM_DEPTH = 50  # folders in each other; what goes through all of them at every level takes the square of that
SURPLUS_BYTES = 2**20  # what may follow the voxels, such as padding; more is not written by accident
DEFLATE_MAXIMUM_RATIO = 1032  # zlib's technical notes, "Maximum Compression Factor"
ZLIB_OR_GZIP = zlib.MAX_WBITS | 32
GZIP_MAGIC = b"\x1f\x8b"
LFS_POINTER = b"version https://git-lfs"


@dataclass(frozen=True)
class StoredVoxels:
    """Where the voxels lie.

    Attributes
    ----------
    file : that holds them
    offset : byte of the file that they start at
    compressed : whether they are deflated
    declared_length : bytes that they take in the file; None: up to its end
    header_bytes : that come before the voxels once they are inflated
    doubts : what their header leaves open or says in two ways, and how it is taken, in words
    """

    file: Path
    offset: int
    compressed: bool
    declared_length: int | None = None
    header_bytes: int = 0
    doubts: tuple[str, ...] = ()

    @property
    def length(self) -> int:
        """Bytes that the file holds of them."""
        available = max(0, self.file.stat().st_size - self.offset)
        return available if self.declared_length is None else min(available, self.declared_length)

    def chunks(self) -> Iterator[bytes]:
        """Their bytes in the file."""
        with self.file.open("rb") as file:
            file.seek(self.offset)
            for start in range(0, self.length, CHUNK_BYTES):
                yield file.read(min(CHUNK_BYTES, self.length - start))


def check_is_data(path: Path) -> None:
    """Refuse an empty file, a device or pipe, and the pointer that git-LFS leaves where a file was not fetched."""
    if not path.is_file():  # to open a pipe is to wait for ever
        raise InputError("expected a file, found a device, a pipe or a link to nothing; give the file itself")
    with path.open("rb") as file:
        start = file.read(len(LFS_POINTER))
    if not start:
        raise InputError("expected an image, found an empty file; copy it again")
    if start == LFS_POINTER:
        raise InputError('expected an image, found a git-LFS pointer; run "git lfs pull" to get the file itself')


def is_litter(name: str) -> bool:
    """Whether a file or folder is hidden, or one that systems and programs leave beside scans: nobody means it."""
    return (name.startswith(".") and name not in {".", ".."}) or name.lower() in LITTER


def files_below(folder: Path) -> Iterator[Path]:
    """Every file of a folder and its sub-folders but litter; folders that are links are left out, they may lead back.

    The files of one folder follow each other.

    Raises
    ------
    InputError : folders in folders, more than `MAXIMUM_DEPTH`
    """
    folders = [(os.fspath(folder), 0)]
    while folders:
        path, depth = folders.pop()
        if depth > MAXIMUM_DEPTH:
            raise InputError(
                f"expected at most {MAXIMUM_DEPTH} folders in each other, found more; give one scan's folder"
            )
        with os.scandir(path) as entries:
            for entry in entries:
                if is_litter(entry.name):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    folders.append((entry.path, depth + 1))
                elif not entry.is_dir():
                    yield Path(entry.path)


def check_inside(file: Path, folder: Path) -> None:
    """Refuse a file that lies outside a folder, by its name or because it or a folder on the way is a link."""
    if not file.resolve().is_relative_to(folder.resolve()):
        raise InputError(
            f"expected files inside the scan's own folder, {os.path.relpath(file, folder)} lies outside "
            "or links to there; copy the file itself into the folder"
        )


def check_whole(voxels: StoredVoxels, expected_bytes: int) -> None:
    """Refuse a file that cannot hold, or turns out not to hold, the bytes that the header declares.

    Parameters
    ----------
    voxels : from `balaitous.reading.headers.locate_voxels`
    expected_bytes : size of the voxels before compression, from `StoredVoxels.offset` on

    Raises
    ------
    InputError : it is cut short or damaged, or its header wrong
    """
    _check_length(voxels, expected_bytes)
    if voxels.compressed:
        for _ in _inflated(voxels, expected_bytes):
            pass


def read_whole(voxels: StoredVoxels, expected_bytes: int) -> bytearray:
    """The bytes themselves, inflated, in one pass; there may be some more at their end.

    Memory grows with what the file turns out to hold, not with what its header declares.

    Raises
    ------
    InputError : as `check_whole`
    """
    _check_length(voxels, expected_bytes)
    content = bytearray()
    for piece in _inflated(voxels, expected_bytes) if voxels.compressed else in_time(voxels.chunks()):
        content += piece
        if not voxels.compressed and len(content) >= expected_bytes:
            break
    if len(content) < expected_bytes:
        raise InputError(f"expected {expected_bytes:,} bytes, {voxels.file.name} became shorter; copy it again")
    return content


def _check_length(voxels: StoredVoxels, expected_bytes: int) -> None:
    length = voxels.length
    if expected_bytes > length * (DEFLATE_MAXIMUM_RATIO if voxels.compressed else 1):
        raise InputError(
            f"expected {expected_bytes:,} bytes of voxels as its header declares, {voxels.file.name} holds {length:,}"
            f"{' compressed' * voxels.compressed}; the file is cut short or its header wrong: copy it again"
        )


def _inflated(voxels: StoredVoxels, expected_bytes: int) -> Iterator[bytes]:
    """Pieces of the voxels once inflated, whose checksums and number are right where the last one was given."""
    name, inflated = voxels.file.name, 0
    try:
        for piece in _pieces(voxels.chunks()):
            inflated += len(piece)
            if inflated > expected_bytes + SURPLUS_BYTES:  # a small file cannot ask for hours
                break
            yield piece
    except zlib.error as error:
        raise InputError(
            f"expected intact compressed voxels, {name} is cut short or damaged ({error}); copy it again"
        ) from error
    if not expected_bytes <= inflated <= expected_bytes + SURPLUS_BYTES:
        found = f"{inflated:,}" if inflated < expected_bytes else "more"
        raise InputError(
            f"expected {expected_bytes:,} bytes of voxels as its header declares, found {found} in {name}; its header "
            "is wrong: write the file again"
        )


def _pieces(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """A zlib or gzip stream, inflated piece by piece, checksums verified; gzip files may have several members."""
    stream, data = zlib.decompressobj(ZLIB_OR_GZIP), b""
    chunks = in_time(chunks)
    while data := data or next(chunks, b""):
        yield stream.decompress(data, CHUNK_BYTES)
        data = stream.unconsumed_tail
        if stream.eof:
            data = stream.unused_data + next(chunks, b"")
            if not data.startswith(GZIP_MAGIC):
                return
            stream = zlib.decompressobj(ZLIB_OR_GZIP)
    yield stream.flush()
    if not stream.eof:
        raise zlib.error("the stream ends too early")
