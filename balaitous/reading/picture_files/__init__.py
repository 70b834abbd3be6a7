"""What a PNG, JPEG or TIFF file holds, as Pillow may see it: of the size that it declares, and no more than an image.

Pillow unpacks texts and colour profiles, follows directories of tags and warns of what it finds odd, all before anybody
asked for a pixel. So each file is walked first, by the module of its format here: its size is judged, its parts are
counted, and what does not make the image never reaches a decoder.
"""

from __future__ import annotations

from dataclasses import dataclass

from balaitous.errors import InputError
from balaitous.reading.limits import SIZE_VARIABLE, maximum_pixels

MINIMUM_SIDE = 16  # pixels, a patch of a ViT: what is smaller is an icon or a counter's pixel, and shows no anatomy


@dataclass(frozen=True)
class PictureFile:
    """One picture as its file describes it.

    Attributes
    ----------
    content : a file with what makes the image
    width, height : pixels, as stored
    bits : of a number; of a colour where there is a palette
    orientation : of Exif, 1 to 8; 1: as it should be seen
    white_is_zero : the larger the number, the darker
    signed : numbers may be negative
    ignored : what the file says and the picture does not show, in words
    """

    content: bytes
    width: int
    height: int
    bits: int
    orientation: int = 1
    white_is_zero: bool = False
    signed: bool = False
    ignored: tuple[str, ...] = ()


def check_size(width: int, height: int) -> None:
    """Refuse a picture that is too small to show anything, or too large for the memory."""
    if min(width, height) < MINIMUM_SIDE:
        raise InputError(
            f"expected a picture of at least {MINIMUM_SIDE} × {MINIMUM_SIDE} pixels, its header declares {width:,} × "
            f"{height:,}; give the picture itself, not an icon of it"
        )
    if width * height > maximum_pixels():
        raise InputError(
            f"expected a picture of at most {maximum_pixels():,.0f} pixels, its header declares {width:,} × "
            f"{height:,}; make it smaller, or raise {SIZE_VARIABLE}"
        )


def check_ratio(needed: int, found: int, ratio: int) -> None:
    """Refuse pixels that take `needed` bytes, which `found` bytes compressed by at most `ratio` cannot hold."""
    if needed > found * ratio:
        raise InputError(
            f"expected {needed:,} bytes of pixels as its header declares, found {found:,}{' compressed' * (ratio > 1)};"
            " the file is cut short or its header wrong: copy it again"
        )
