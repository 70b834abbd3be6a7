"""PNG files with nothing but their pixels and palette (ISO/IEC 15948, 5 and 11)."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from math import ceil

from balaitous.errors import InputError
from balaitous.reading.integrity import DEFLATE_MAXIMUM_RATIO
from balaitous.reading.picture_files import PictureFile, check_ratio, check_size
from balaitous.reading.picture_files.tiff import orientation_of

MAGIC = b"\x89PNG\r\n\x1a\n"
KEPT = {b"IHDR", b"PLTE", b"tRNS", b"IDAT"}
DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}  # bits by type of colour
CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # grey, RGB, palette, grey and alpha, RGB and alpha
PALETTE = 3
MAXIMUM_CHUNKS = 2**17  # writers make one for each 8 kB or more


def walk_png(content: bytes) -> PictureFile:
    """A PNG with its pixels and palette alone, every checksum compared; damage may raise anything."""
    kept: list[tuple[bytes, bytes]] = []  # name, all of the chunk
    header, pixel_bytes, orientation = b"", 0, 1
    for kind, data, chunk in _chunks(content):
        if not header and kind != b"IHDR":
            raise InputError("expected a PNG that starts with its header, found none; save it again")
        if kind == b"acTL":
            raise InputError("expected one picture, found an animated PNG; give the frame as a PNG of its own")
        if kind == b"eXIf":
            orientation = orientation_of(data)
        elif kind == b"IDAT":
            pixel_bytes += len(data)
        elif kind in KEPT and kind in (name for name, _ in kept if name != b"IDAT"):
            raise InputError(f"expected one {kind.decode()} in a PNG, found two; save it again")
        elif kind[:1].isupper() and kind not in (*KEPT, b"IEND"):  # which no reader may leave out
            raise InputError(
                f"expected a PNG as its standard has it, found a part {kind.decode('latin-1')!r}; save it again"
            )
        if kind in KEPT:
            kept.append((kind, chunk))
        header = header or data
    width, height, bits, colours = struct.unpack(">IIBB", header[:10])
    if bits not in DEPTHS.get(colours, ()):
        raise InputError(f"expected colours that PNG has, found type {colours} of {bits} bits; save it again")
    check_size(width, height)
    check_ratio(ceil(width * CHANNELS[colours] * bits / 8) * height, pixel_bytes, DEFLATE_MAXIMUM_RATIO)
    names = {name for name, _ in kept}
    if colours == PALETTE and b"PLTE" not in names:
        raise InputError("expected a palette in a PNG of indices, found none; save it again")
    # A level or colour of grey or RGB that counts as transparent would cut holes into tissue that has it too.
    left_out = b"tRNS" in names and colours != PALETTE
    chunks = [chunk for name, chunk in kept if not (left_out and name == b"tRNS")]
    return PictureFile(
        b"".join([MAGIC, *chunks, b"\0\0\0\0IEND", struct.pack(">I", zlib.crc32(b"IEND"))]),
        width,
        height,
        bits=8 if colours == PALETTE else bits,
        orientation=orientation,
        ignored=("one colour is declared transparent: ignored",) if left_out else (),
    )


def _chunks(content: bytes) -> Iterator[tuple[bytes, bytes, bytes]]:
    """Name, data and all bytes of each chunk, up to the last."""
    place = len(MAGIC)
    for _ in range(MAXIMUM_CHUNKS):
        head = content[place : place + 8]
        length = struct.unpack(">I", head[:4])[0] if len(head) == 8 else len(content)
        chunk = content[place : place + 12 + length]
        if len(chunk) < 12 + length:
            raise InputError("expected a whole PNG, found one that is cut short; copy it again")
        kind = head[4:]
        if zlib.crc32(chunk[4:-4]) != int.from_bytes(chunk[-4:], "big"):
            raise InputError(f"expected an intact PNG, its part {kind.decode('latin-1')!r} is damaged; copy it again")
        yield kind, chunk[8:-4], chunk
        if kind == b"IEND":
            return
        place += 12 + length
    raise InputError(f"expected at most {MAXIMUM_CHUNKS:,} parts of a PNG, found more; save it again")
