"""A picture as grey from black to white: PNG, JPEG, TIFF, or one frame of DICOM; the sibling of `read_ct`.

A picture file says how large its numbers can be, and seldom what they mean: 8 bit are taken for the whole range from
black to white, as every viewer does; more bits hold whatever the detector gave, and are spread by the picture's own
percentiles (`balaitous.reading.greys`). What was done to reach grey is told in words.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL.Image import Image, alpha_composite, new
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile

from balaitous.errors import InputError, one_line
from balaitous.memory import is_out_of_memory
from balaitous.reading.dicom.files import DICOM_MARK
from balaitous.reading.dicom.picture import read_frame
from balaitous.reading.greys import coloured_share, of_colour, of_full_range, of_own_range
from balaitous.reading.integrity import CHUNK_BYTES, check_is_data
from balaitous.reading.limits import in_time, maximum_pixels
from balaitous.reading.patient import Patient, read_sidecar
from balaitous.reading.picture_files import PictureFile, jpeg, png, tiff


@dataclass(frozen=True)
class PictureFormat:
    """How files of a kind are read.

    Attributes
    ----------
    endings : in small letters; they stand for this reader and no other: `PIL.Image.open` would try forty of them, and
        start Ghostscript for PostScript
    walk : what `reader` may see of a file
    """

    name: str
    endings: tuple[str, ...]
    magic: tuple[bytes, ...]
    walk: Callable[[bytes], PictureFile]
    reader: Callable[[BytesIO], ImageFile]


FORMATS = (
    PictureFormat("PNG", (".png",), (png.MAGIC,), png.walk_png, PngImageFile),
    PictureFormat("JPEG", (".jpg", ".jpeg"), (b"\xff\xd8\xff",), jpeg.walk_jpeg, JpegImageFile),
    PictureFormat("TIFF", (".tif", ".tiff"), (b"II*\0", b"MM\0*"), tiff.walk_tiff, TiffImageFile),
)
PICTURE_ENDINGS = tuple(ending for each in FORMATS for ending in each.endings)
DICOM_ENDINGS = (".dcm", ".dicom")
OTHER_MAGIC = {  # of what is not read, but named
    **{b"GIF8": "GIF", b"BM": "BMP", b"%!PS": "PostScript", b"\xc5\xd0\xd3\xc6": "PostScript", b"%PDF": "PDF"},
    **{b"PK\3\4": "zip", b"\x1f\x8b": "gzip", b"\0\0\0\x0cjP  ": "JPEG 2000", b"II+\0": "BigTIFF", b"MM\0+": "BigTIFF"},
}
MAXIMUM_PIXEL_BYTES = 8  # of a file: four channels of 16 bits, not compressed
MINIMUM_LEVELS = 32  # that 8 bits keep of 16-bit colour; fewer show steps instead of tissue


@dataclass(frozen=True)
class Picture:
    """One picture, turned as it should be seen.

    Attributes
    ----------
    grey : (Y, X) float32 in [0, 1], black to white
    values : (Y, X), or (Y, X, 3) red, green, blue: numbers as stored, before they were scaled or inverted. Palettes are
        looked up, alpha is laid over black, and grey of 2 or 4 bits comes as 0 … 255
    colour : share of the pixels, 0 … 1, whose channels differ by more than 16/255
    spacing_mm : x, y: between the centres of pixels; None where unknown, as in every PNG, JPEG and TIFF, whose
        resolution is that of paper
    name : of the file, without ending: the PatientID of tables
    path : where it was read from
    patient : what header and side-car say of age and sex
    bits : of a stored number; 8 where Pillow reduces colour of 16
    converted : what was done to get `grey` of what is stored, in the order in which it was done
    """

    grey: NDArray[np.float32]
    values: NDArray
    colour: float
    spacing_mm: tuple[float, float] | None
    name: str
    path: str
    patient: Patient
    bits: int
    converted: tuple[str, ...]


def read_picture(path: str | os.PathLike[str]) -> Picture:
    """Read a picture.

    Parameters
    ----------
    path : a PNG, JPEG or TIFF file by its ending (`PICTURE_ENDINGS`), else a DICOM file

    Raises
    ------
    InputError
        There is nothing to read, it is damaged, too small or too large, of another kind than its ending says, or not
        one picture.
    """
    path = Path(path)
    try:
        if not path.exists():
            raise InputError("expected a picture, found nothing; check the path")
        if path.is_dir():
            raise InputError("expected one picture, found a folder; give the pictures in it")
        check_is_data(path)
        ending = path.suffix.lower()
        if known := next((each for each in FORMATS if ending in each.endings), None):
            return _read_file(path, known)
        if ending in DICOM_ENDINGS or _is_dicom(path):
            return _read_dicom(path)
        endings = ", ".join(PICTURE_ENDINGS)
        raise InputError(f"expected {endings} or a DICOM file, found {path.suffix or 'no ending'!r}; save it as PNG")
    except InputError as error:
        raise InputError(one_line(f"{path}: {error}")) from error
    except OSError as error:
        if is_out_of_memory(error):
            raise
        reason = "access is denied" if isinstance(error, PermissionError) else error.strerror or type(error).__name__
        message = f"{path}: expected a readable file, {reason}; check its name, its permissions and the disk"
        raise InputError(one_line(message)) from error


def picture_name(path: str | os.PathLike[str]) -> str:
    """Name of a picture in tables: of its file, without the ending."""
    path = Path(os.path.abspath(path))
    return path.stem if path.suffix.lower() in (*PICTURE_ENDINGS, *DICOM_ENDINGS) else path.name


def _is_dicom(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(132)[128:] == DICOM_MARK


def _patient(path: Path, stored: Patient) -> Patient:
    sidecar = Path(os.path.abspath(path)).parent / f"{picture_name(path)}.json"
    return stored.filled_from(read_sidecar(sidecar)) if sidecar.is_file() else stored


def _read_dicom(path: Path) -> Picture:
    frame = read_frame(path)
    return Picture(
        grey=frame.grey,
        values=frame.values,
        colour=coloured_share(frame.values) if frame.values.ndim == 3 else 0.0,
        spacing_mm=frame.spacing_mm,
        name=picture_name(path),
        path=os.fspath(path),
        patient=_patient(path, frame.patient),
        bits=frame.bits,
        converted=frame.converted,
    )


def _read_file(path: Path, kind: PictureFormat) -> Picture:
    content = _content(path)
    try:
        _check_magic(content, kind)
        file = kind.walk(content)
        with kind.reader(BytesIO(file.content)) as image:
            image.load()
            if image.size != (file.width, file.height):
                raise InputError(f"expected {file.width} × {file.height} pixels as its header declares, found others")
            values, notes = _values(image, file)
            grey, more = _grey(values, file)
    except (InputError, MemoryError):
        raise
    except Exception as error:  # Pillow lets a dozen types through for damaged files
        if is_out_of_memory(error):
            raise
        reason = str(error) or type(error).__name__
        raise InputError(
            f"expected a whole {kind.name} file, found a damaged or rare one ({reason}); copy it again, or save "
            "it as PNG"
        ) from error
    return Picture(
        grey=grey,
        values=values,
        colour=coloured_share(values) if values.ndim == 3 else 0.0,
        spacing_mm=None,
        name=picture_name(path),
        path=os.fspath(path),
        patient=_patient(path, Patient()),
        bits=8 if values.dtype == np.uint8 and file.bits == 16 else file.bits,
        converted=(*file.ignored, *notes, *more),
    )


def _content(path: Path) -> bytes:
    """The bytes of a file, if it is not longer than any picture of the size that is allowed."""
    most, size = maximum_pixels() * MAXIMUM_PIXEL_BYTES, path.stat().st_size
    if size > most:
        raise InputError(
            f"expected a picture of at most {most:,.0f} bytes, found {size:,}; save it again, or make it smaller"
        )
    with path.open("rb") as file:
        return b"".join(in_time(iter(partial(file.read, CHUNK_BYTES), b"")))


def _check_magic(content: bytes, kind: PictureFormat) -> None:
    """Refuse a file that does not start as its ending says, and tell what it seems to be."""
    if content.startswith(kind.magic):
        return
    known = next((each.name for each in FORMATS if content.startswith(each.magic)), "")
    known = known or "DICOM" * (content[128:132] == DICOM_MARK)
    found = known or next((name for magic, name in OTHER_MAGIC.items() if content.startswith(magic)), "something else")
    remedy = "give it its own ending" if known else "copy it again, or save it as PNG"
    raise InputError(f"expected {kind.name} as its ending says, found {found}; {remedy}")


def _values(image: Image, file: PictureFile) -> tuple[NDArray, list[str]]:
    """`Picture.values` of a decoded image, and what was done."""
    notes = []
    if file.bits == 16 and image.mode not in ("I;16", "I;16B", "I"):
        notes.append("16 bit colour reduced to 8 bit")
    if image.mode in ("P", "PA"):
        notes.append("palette to RGB")
    grey_with_alpha = image.mode in ("LA", "La")
    if grey_with_alpha or image.mode in ("PA", "RGBA") or "transparency" in image.info:
        image = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
        if np.asarray(image.getchannel("A")).min() < 255:
            image = alpha_composite(new("RGBA", image.size, (0, 0, 0, 255)), image)
            notes.append("transparent parts over black")
        image = image.convert("L" if grey_with_alpha else "RGB")
    elif image.mode == "P":
        image = image.convert("RGB")
    values = np.asarray(image)
    if image.mode == "I" and file.bits == 32 and not file.signed:
        values = values.view(np.uint32)
    if file.white_is_zero and image.mode in ("1", "L"):  # which Pillow has inverted, and nothing else
        values = ~values
    if notes[:1] == ["16 bit colour reduced to 8 bit"] and np.ptp(values) < MINIMUM_LEVELS:
        raise InputError(
            f"expected 16-bit colour that fills its range, found {np.ptp(values) + 1} levels in the 8 bits that are "
            "kept; save it as 16-bit grey without alpha"
        )
    if file.orientation > 1:
        values = TURNS[file.orientation](values)
        notes.append(f"turned by EXIF orientation {file.orientation}")
    return np.ascontiguousarray(values.astype(values.dtype.newbyteorder("="), copy=False)), notes


# How stored rows and columns become those that are seen (Exif 2.32, 4.6.4, Orientation)
TURNS = {
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.swapaxes(0, 1),
    6: lambda stored: np.rot90(stored, -1),
    7: lambda stored: stored[::-1, ::-1].swapaxes(0, 1),
    8: lambda stored: np.rot90(stored),
}


def _grey(values: NDArray, file: PictureFile) -> tuple[NDArray[np.float32], list[str]]:
    """`Picture.grey`, and what was done."""
    if values.ndim == 3:
        return of_colour(values), ["RGB to luma"]
    if not np.isfinite(values).all():
        raise InputError("expected numbers in every pixel, found NaN or infinity; replace them and save it again")
    notes = []
    if values.dtype == bool:
        grey = of_full_range(values, 1)
    elif values.dtype == np.uint8:
        grey = of_full_range(values, 255)
    else:
        grey, note = of_own_range(values, file.bits)
        notes.append(note)
    if file.white_is_zero:
        grey = 1 - grey
        notes.append("white is 0: inverted")
    return grey, notes
