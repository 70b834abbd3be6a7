"""TIFF files with nothing but what describes their pixels (TIFF 6.0, 2 and 8), and Exif, which has the same form."""

from __future__ import annotations

import struct
from enum import IntEnum
from math import ceil

from balaitous.errors import InputError
from balaitous.reading.integrity import DEFLATE_MAXIMUM_RATIO
from balaitous.reading.picture_files import PictureFile, check_ratio, check_size


class Tag(IntEnum):
    """What describes pixels, by the names of TIFF 6.0; all other tags are left out."""

    ImageWidth = 256
    ImageLength = 257
    BitsPerSample = 258
    Compression = 259
    PhotometricInterpretation = 262
    FillOrder = 266
    StripOffsets = 273
    Orientation = 274
    SamplesPerPixel = 277
    RowsPerStrip = 278
    StripByteCounts = 279
    PlanarConfiguration = 284
    Predictor = 317
    ColorMap = 320
    TileWidth = 322
    TileLength = 323
    TileOffsets = 324
    TileByteCounts = 325
    ExtraSamples = 338
    SampleFormat = 339


LISTS = {  # which have a number for each channel, strip, tile or colour
    *(Tag.BitsPerSample, Tag.StripOffsets, Tag.StripByteCounts, Tag.ColorMap, Tag.TileOffsets, Tag.TileByteCounts),
    *(Tag.ExtraSamples, Tag.SampleFormat),
}
LONGS = {  # which may need 32 bits
    *(Tag.ImageWidth, Tag.ImageLength, Tag.StripOffsets, Tag.RowsPerStrip, Tag.StripByteCounts),
    *(Tag.TileWidth, Tag.TileLength, Tag.TileOffsets, Tag.TileByteCounts),
}
TYPES = {1: "B", 3: "H", 4: "I"}  # that these tags may have: bytes, shorts, longs
MAXIMUM_TAGS = 500
MAXIMUM_NUMBERS = 2**18  # of a tag; a palette of 16 bits has 3 × 2**16
MAXIMUM_STRIPS = 2**17
MAXIMUM_RATIOS = {  # bytes of pixels that one compressed byte can hold, by Compression
    1: 1,
    5: 2560,  # LZW: 12 bits for a string of 3,839 bytes
    8: DEFLATE_MAXIMUM_RATIO,
    32946: DEFLATE_MAXIMUM_RATIO,
    32773: 64,  # PackBits: two bytes for 128
}
WHITE_IS_ZERO, PALETTE = 0, 3  # PhotometricInterpretation
CHANNELS = {WHITE_IS_ZERO: 1, 1: 1, 2: 3, PALETTE: 1}
OTHER_COLOURS = {5: "CMYK", 6: "YCbCr", 8: "CIELab"}
BITS = (1, 2, 4, 8, 12, 16, 32)
SIGNED = 2  # SampleFormat

Tags = dict[int, tuple[int, ...]]


def walk_tiff(content: bytes) -> PictureFile:
    """A TIFF whose directory has the tags of its pixels alone; damage may raise anything."""
    tags, more = _directory(content, tuple(Tag))
    if more:
        raise InputError("expected one picture, found a TIFF of several; give the page as a file of its own")
    if several := [Tag(tag).name for tag, numbers in tags.items() if tag not in LISTS and len(numbers) > 1]:
        raise InputError(f"expected one number as {several[0]} of a TIFF, found several; save it again")
    if not {Tag.ImageWidth, Tag.ImageLength, Tag.PhotometricInterpretation} <= tags.keys():
        raise InputError("expected a TIFF that tells its size and colours, found none of it; save it again")
    width, height = tags[Tag.ImageWidth][0], tags[Tag.ImageLength][0]
    check_size(width, height)
    colours, bits, channels, sample_format = _check_pixels(tags)
    check_ratio(
        ceil(width * channels * bits / 8) * height,
        _piece_bytes(tags, width, height, channels, len(content)),
        MAXIMUM_RATIOS[_first(tags, Tag.Compression, 1)],
    )
    orientation = _first(tags, Tag.Orientation, 1)
    return PictureFile(
        _with_directory(content, {tag: numbers for tag, numbers in tags.items() if tag != Tag.Orientation}),
        width,
        height,
        bits=8 if colours == PALETTE else bits,
        orientation=orientation if orientation in range(1, 9) else 1,
        white_is_zero=colours == WHITE_IS_ZERO,
        signed=sample_format == SIGNED,
    )


def _first(tags: Tags, tag: Tag, default: int) -> int:
    return tags.get(tag, (default,))[0]


def _check_pixels(tags: Tags) -> tuple[int, int, int, int]:
    """Photometric interpretation, bits, channels and sample format of pixels that are read."""
    colours, compression = tags[Tag.PhotometricInterpretation][0], _first(tags, Tag.Compression, 1)
    bits, formats = tags.get(Tag.BitsPerSample, (1,)), tags.get(Tag.SampleFormat, (1,))
    channels = _first(tags, Tag.SamplesPerPixel, 1)
    if colours not in CHANNELS:
        name = OTHER_COLOURS.get(colours, f"PhotometricInterpretation {colours}")
        raise InputError(f"expected a grey, palette or RGB TIFF, found {name}; save it as grey or RGB")
    if compression not in MAXIMUM_RATIOS:
        raise InputError(
            f"expected a TIFF without compression or with LZW, deflate or PackBits, found Compression {compression}; "
            "save it as PNG"
        )
    alpha = channels - CHANNELS[colours]
    if alpha not in (0, 1) or len({*bits}) > 1 or len({*formats}) > 1 or bits[0] not in BITS:
        raise InputError(
            f"expected a TIFF of grey or RGB, with or without alpha, of at most 32 bits, found {channels} channels of "
            f"{', '.join(map(str, bits[:4]))} bits; save it as PNG"
        )
    if formats[0] == SIGNED and bits[0] <= 8:
        raise InputError("expected unsigned numbers in a TIFF of 8 bits, found signed ones; save it as 16 bit")
    return colours, bits[0], channels, formats[0]


def _piece_bytes(tags: Tags, width: int, height: int, channels: int, size: int) -> int:
    """Bytes of all strips or tiles, once there are as many as the picture needs: Pillow leaves black what is missing.

    Parameters
    ----------
    size : of the file, inside which each must lie: what is written behind it is no pixel
    """
    if Tag.TileOffsets in tags:
        across, down = _first(tags, Tag.TileWidth, 0), _first(tags, Tag.TileLength, 0)
        if across * down not in range(1, max(width * height, 2**20) + 1):
            raise InputError(f"expected tiles of the picture's size, found {across:,} × {down:,}; save it as PNG")
        offsets, lengths = tags[Tag.TileOffsets], tags.get(Tag.TileByteCounts, ())
    else:
        across, down = width, max(1, min(_first(tags, Tag.RowsPerStrip, height), height))
        offsets, lengths = tags.get(Tag.StripOffsets, ()), tags.get(Tag.StripByteCounts, ())
    needed = ceil(width / across) * ceil(height / down)
    needed *= channels if _first(tags, Tag.PlanarConfiguration, 1) == 2 else 1
    if not len(offsets) == len(lengths) == needed <= MAXIMUM_STRIPS:
        raise InputError(
            f"expected {needed:,} strips or tiles in a TIFF of this size, found {len(offsets):,} with {len(lengths):,} "
            "lengths; it is cut short or its header wrong: save it again"
        )
    if any(offset + length > size for offset, length in zip(offsets, lengths, strict=True)):
        raise InputError("expected all pixels of a TIFF inside the file, found that it is cut short; copy it again")
    return sum(lengths)


def _order(content: bytes) -> str:
    return "<" if content.startswith(b"II") else ">"


def _directory(content: bytes, wanted: tuple[int, ...]) -> tuple[Tags, bool]:
    """The numbers of some tags of the first directory, and whether another directory follows."""
    order = _order(content)
    place = struct.unpack(order + "I", content[4:8])[0]
    count = struct.unpack(order + "H", content[place : place + 2])[0]
    if count > MAXIMUM_TAGS:
        raise InputError(f"expected at most {MAXIMUM_TAGS} tags in a TIFF, found {count:,}; save it again")
    tags: Tags = {}
    end = place + 2 + 12 * count
    for start in range(place + 2, end, 12):
        tag, kind, length, at = struct.unpack(order + "HHII", content[start : start + 12])
        if tag not in wanted:
            continue
        if tag in tags or kind not in TYPES or not 0 < length <= MAXIMUM_NUMBERS:
            raise InputError(f"expected {Tag(tag).name} of a TIFF once, as whole numbers, found others; save it again")
        form = f"{order}{length}{TYPES[kind]}"
        at = start + 8 if struct.calcsize(form) <= 4 else at
        tags[tag] = struct.unpack(form, content[at : at + struct.calcsize(form)])
    return tags, content[end : end + 4] not in (b"\0\0\0\0", b"")


def _with_directory(content: bytes, tags: Tags) -> bytes:
    """The file with a directory of these tags at its end, which its header points to."""
    order, start = _order(content), len(content) + len(content) % 2
    place = start + 2 + 12 * len(tags) + 4
    entries, outside = [], []
    for tag, numbers in sorted(tags.items()):
        data = struct.pack(f"{order}{len(numbers)}{'I' if tag in LONGS else 'H'}", *numbers)
        data += bytes(len(data) % 4)
        head = struct.pack(order + "HHI", tag, 4 if tag in LONGS else 3, len(numbers))
        if len(data) > 4:
            outside.append(data)
            data, place = struct.pack(order + "I", place), place + len(data)
        entries.append(head + data)
    header = content[:4] + struct.pack(order + "I", start)
    directory = struct.pack(order + "H", len(tags)) + b"".join(entries) + bytes(4)
    return b"".join([header, content[8:].ljust(start - 8, b"\0"), directory, *outside])


def orientation_of(exif: bytes) -> int:
    """Orientation that Exif data tell (Exif 2.32, 4.6.4); 1, as it should be seen, if they tell none or are damaged."""
    try:
        tags, _ = _directory(exif, (Tag.Orientation,))
    except (InputError, struct.error):
        return 1
    orientation = _first(tags, Tag.Orientation, 1)
    return orientation if orientation in range(1, 9) else 1
