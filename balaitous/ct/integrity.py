"""Is the file whole? Checked before its voxels are read.

SimpleITK does not notice: a MetaImage or NIfTI file whose compressed voxels are cut short or damaged comes back as an
image full of garbage, without an exception, and a header may ask for more memory than the machine has. So the stored
voxels are located from the header, compared with the file's size, and compressed ones are inflated once against their
checksum (about 0.3 s for a thin-slice chest CT, a small constant amount of memory).
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from balaitous.errors import InputError

MAXIMUM_HEADER_BYTES = 2**20
CHUNK_BYTES = 2**20
DEFLATE_MAXIMUM_RATIO = 1032  # zlib's technical notes, "Maximum Compression Factor"
ZLIB_OR_GZIP = zlib.MAX_WBITS | 32
GZIP_MAGIC = b"\x1f\x8b"
LFS_POINTER = b"version https://git-lfs"


@dataclass(frozen=True)
class StoredVoxels:
    """Where the voxels lie: a file, the byte they start at, whether they are deflated, and into how many bytes."""

    file: Path
    offset: int
    compressed: bool
    declared_length: int | None = None  # None: up to the file's end

    @property
    def length(self) -> int:
        available = self.file.stat().st_size - self.offset
        return available if self.declared_length is None else min(available, self.declared_length)

    def chunks(self) -> Iterator[bytes]:
        with self.file.open("rb") as file:
            file.seek(self.offset)
            for start in range(0, self.length, CHUNK_BYTES):
                yield file.read(min(CHUNK_BYTES, self.length - start))


def check_is_data(path: Path) -> None:
    """Refuse an empty file and the pointer that git-LFS leaves where a file was not fetched."""
    with path.open("rb") as file:
        start = file.read(len(LFS_POINTER))
    if not start:
        raise InputError("expected an image, found an empty file; copy it again")
    if start == LFS_POINTER:
        raise InputError('expected an image, found a git-LFS pointer; run "git lfs pull" to get the file itself')


def locate_voxels(path: Path) -> StoredVoxels | None:
    """Where the header says the voxels are, None for layouts that SimpleITK checks itself (lists of files, text).

    Raises
    ------
    InputError
        The header is not of the format that the file's name promises, or names a data file that is not there.
    """
    name = path.name.lower()
    if name.endswith((".mha", ".mhd")):
        return _locate_metaimage(path)
    if name.endswith((".nrrd", ".nhdr")):
        return _locate_nrrd(path)
    with path.open("rb") as file:
        return StoredVoxels(path, 0, compressed=file.read(2) == GZIP_MAGIC)


def check_whole(voxels: StoredVoxels, expected_bytes: int) -> None:
    """Refuse a file that cannot hold, or turns out not to hold, the bytes that its header declares.

    Parameters
    ----------
    voxels : from `locate_voxels`
    expected_bytes : size of the voxels before compression, from `StoredVoxels.offset` on
    """
    if expected_bytes > voxels.length * (DEFLATE_MAXIMUM_RATIO if voxels.compressed else 1):
        raise InputError(
            f"expected {expected_bytes:,} bytes of voxels as its header declares, {voxels.file.name} holds "
            f"{voxels.length:,}{' compressed' * voxels.compressed}; the file is cut short or its header wrong: copy it "
            "again"
        )
    if voxels.compressed:
        try:
            inflated = _inflated_bytes(voxels.chunks())
        except zlib.error as error:
            raise InputError(
                f"expected intact compressed voxels, {voxels.file.name} is cut short or damaged ({error}); "
                "copy it again"
            ) from error
        if inflated < expected_bytes:
            raise InputError(
                f"expected {expected_bytes:,} bytes of voxels as its header declares, found {inflated:,} in "
                f"{voxels.file.name}; its header is wrong: write the file again"
            )


def _inflated_bytes(chunks: Iterator[bytes]) -> int:
    """Size of the zlib or gzip stream once inflated, checksums verified; gzip files may have several members."""
    total, stream, data = 0, zlib.decompressobj(ZLIB_OR_GZIP), b""
    while data := data or next(chunks, b""):
        total += len(stream.decompress(data, CHUNK_BYTES))
        data = stream.unconsumed_tail
        if stream.eof:
            data = stream.unused_data + next(chunks, b"")
            if not data.startswith(GZIP_MAGIC):
                return total
            stream = zlib.decompressobj(ZLIB_OR_GZIP)
    total += len(stream.flush())
    if not stream.eof:
        raise zlib.error("the stream ends too early")
    return total


def _locate_metaimage(path: Path) -> StoredVoxels | None:
    """MetaImage: lines ``Key = value``, of which ElementDataFile is the last."""
    fields: dict[str, str] = {}
    with path.open("rb") as file:
        while "ElementDataFile" not in fields:
            line = file.readline(MAXIMUM_HEADER_BYTES)
            key, separator, value = line.decode("latin-1").partition("=")
            if not separator or file.tell() > MAXIMUM_HEADER_BYTES:
                raise InputError("expected a MetaImage header (Key = value lines), found none; is it a MetaImage file?")
            fields[key.strip()] = value.strip()
        offset = file.tell()
    missing = [key for key in ("NDims", "DimSize", "ElementType") if key not in fields]
    if missing:
        raise InputError(f"expected a MetaImage header with {', '.join(missing)}, found none; write the file again")
    data_file = fields["ElementDataFile"]
    compressed = fields.get("CompressedData", "False")[:1] in {"T", "t", "1"}
    text = fields.get("BinaryData", "True")[:1] in {"F", "f"}
    if text or data_file.upper().startswith("LIST") or "%" in data_file or fields.get("HeaderSize", "0") != "0":
        return None
    local = data_file.upper() == "LOCAL"
    told = fields.get("CompressedDataSize", "")
    if compressed and local and not told.isdigit():  # SimpleITK would read garbage
        raise InputError(
            "expected CompressedDataSize in the header of compressed MetaImage, found none; write it again"
        )
    declared_length = int(told) if compressed and told.isdigit() else None
    return StoredVoxels(
        path if local else _beside(path, data_file), offset if local else 0, compressed, declared_length
    )


def _locate_nrrd(path: Path) -> StoredVoxels | None:
    """NRRD: a magic line, ``key: value`` lines, an empty line before attached voxels."""
    fields: dict[str, str] = {}
    with path.open("rb") as file:
        if not file.readline(MAXIMUM_HEADER_BYTES).startswith(b"NRRD"):
            raise InputError("expected a NRRD header, found none; is it a NRRD file?")
        while line := file.readline(MAXIMUM_HEADER_BYTES).strip():
            key, _, value = line.decode("latin-1").partition(":")
            fields[key.strip().lower().replace(" ", "")] = value.strip()
        offset = file.tell()
    compressed = fields.get("encoding") in {"gz", "gzip"}
    data_file = fields.get("datafile")
    if not (compressed or fields.get("encoding") == "raw") or "lineskip" in fields or "byteskip" in fields:
        return None
    if data_file is None:
        return StoredVoxels(path, offset, compressed)
    if data_file.upper().startswith("LIST") or "%" in data_file:
        return None
    return StoredVoxels(_beside(path, data_file), 0, compressed)


def _beside(header: Path, data_file: str) -> Path:
    voxels = header.parent / data_file
    if not voxels.is_file():
        raise InputError(f"expected its voxels in {data_file} as the header says, that file is not there; copy both")
    return voxels
