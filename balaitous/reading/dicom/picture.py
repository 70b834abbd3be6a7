"""One frame of a DICOM file as a picture: radiographs, single CT slices, ultrasound stills.

Stored numbers become grey in the order of DICOM PS3.4, N.2: modality (rescale, or a table), then values of interest (a
table, else a window), then the presentation (MONOCHROME1 is inverted). Pixels are decoded by GDCM, which gets a copy
that is safe to read, as the slices of a CT do (`balaitous.reading.dicom.pixel_data`).

References
----------
PS3.3: C.7.6.3 (pixels), C.11.1 (modality LUT), C.11.2 (VOI LUT), 10.7 (pixel spacing)
"""

from __future__ import annotations

import math
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
import pydicom.config
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileDataset
from pydicom.encaps import generate_frames
from pydicom.multival import MultiValue
from pydicom.tag import Tag
from pydicom.uid import UID, SecondaryCaptureImageStorage

from balaitous.errors import InputError
from balaitous.memory import is_out_of_memory
from balaitous.reading.dicom.pixel_data import BITS_ALLOCATED, check_pixels, describe_file, read_elements
from balaitous.reading.greys import of_colour, of_full_range, of_own_range
from balaitous.reading.integrity import DEFLATE_MAXIMUM_RATIO
from balaitous.reading.itk import read_dicom_pixels
from balaitous.reading.patient import Patient, from_header
from balaitous.reading.picture_files import check_ratio, check_size
from balaitous.reading.picture_files.jpeg import MAXIMUM_SCANS

PALETTE = [
    f"{colour}PaletteColorLookupTable{part}" for colour in ("Red", "Green", "Blue") for part in ("Descriptor", "Data")
]
PIXELS = [
    *("SamplesPerPixel", "PlanarConfiguration", "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit"),
    *("PixelRepresentation", "PixelData", *PALETTE),
]
# Of two spacings the first wins: at the patient, at the detector (which magnifies), on a scanned film.
SPACINGS = ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing")
FRAME_TAGS = [
    Tag(keyword)
    for keyword in (
        *("SOPClassUID", "PatientAge", "PatientSex", "NumberOfFrames", "PhotometricInterpretation", *SPACINGS, *PIXELS),
        *("RescaleIntercept", "RescaleSlope", "ModalityLUTSequence", "WindowCenter", "WindowWidth", "VOILUTFunction"),
        "VOILUTSequence",
    )
]
SAMPLES = {  # colours of a pixel by PhotometricInterpretation
    **dict.fromkeys(("MONOCHROME1", "MONOCHROME2", "PALETTE COLOR"), 1),
    **dict.fromkeys(("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_RCT", "YBR_ICT"), 3),
}
SMALLEST_WIDTH = {"LINEAR": 1.0, "LINEAR_EXACT": 0.0, "SIGMOID": 0.0}  # which it has, or must be above


@dataclass(frozen=True)
class Frame:
    """What `balaitous.reading.pictures.Picture` has of a DICOM file; see there."""

    grey: NDArray[np.float32]
    values: NDArray
    spacing_mm: tuple[float, float] | None
    patient: Patient
    bits: int
    converted: tuple[str, ...]


def read_frame(path: Path) -> Frame:
    """The one frame of a DICOM file.

    Raises
    ------
    InputError : it is damaged, or not one picture
    """
    try:
        # Odd values in elements that are not used are no concern of ours, and pydicom would warn about them.
        with pydicom.config.disable_value_validation():
            return _read_frame(path)
    except (InputError, MemoryError, OSError):
        raise
    except Exception as error:  # pydicom lets a dozen types through for damaged files
        if is_out_of_memory(error):
            raise
        reason = str(error) or type(error).__name__
        raise InputError(f"expected a readable DICOM file, found a damaged one ({reason}); export it again") from error


def _read_frame(path: Path) -> Frame:
    image = read_elements(path, FRAME_TAGS, "picture")
    patient = from_header(image.get("PatientAge"), image.get("PatientSex"), "dicom")
    samples = _check_description(image)
    notes = []
    spacing_mm, note = _spacing_mm(image)
    notes += [note] if note else []
    values = _decoded(image, path.name, samples)
    if values.ndim == 3:
        what = "palette" if samples == 1 else str(image.PhotometricInterpretation)
        notes += [f"{what} to RGB"] if what != "RGB" else []
        return Frame(of_colour(values), values, spacing_mm, patient, 8, (*notes, "RGB to luma"))
    grey, more = _grey(values, image)
    return Frame(grey, values, spacing_mm, patient, int(image.BitsStored), (*notes, *more))


def _check_description(image: FileDataset) -> int:
    """Colours of a pixel, once the image is of a kind that is read."""
    if "PixelData" not in image:
        raise InputError("expected a DICOM file with pixels, found none; export the image, not its report or overlay")
    frames = int(image.get("NumberOfFrames") or 1)
    if frames != 1:
        raise InputError(
            f"expected one frame, found {frames:,}; give the frame as a picture, or a model that reads clips"
        )
    check_size(image.Columns, image.Rows)
    colours, samples = str(image.PhotometricInterpretation), image.SamplesPerPixel
    if SAMPLES.get(colours) != samples:
        raise InputError(
            f"expected grey, RGB, YBR or palette colours, found {colours!r} with {samples} numbers a pixel; export it "
            "as one of them"
        )
    allocated, stored = image.BitsAllocated, image.BitsStored
    if (
        allocated not in (BITS_ALLOCATED if samples == 1 else (8,))
        or not 1 <= stored <= allocated
        or image.get("HighBit", stored - 1) != stored - 1
    ):
        raise InputError(
            f"expected numbers of 8, 16 or 32 bits, of 8 for colours, found {stored} of {allocated}; export it again"
        )
    return samples


def _decoded(image: FileDataset, name: str, samples: int) -> NDArray:
    """(Y, X) stored numbers, or (Y, X, 3) uint8."""
    rows, columns, colours = image.Rows, image.Columns, str(image.PhotometricInterpretation)
    expected = rows * columns * samples * image.BitsAllocated // 8
    check_ratio(expected, len(image.PixelData), DEFLATE_MAXIMUM_RATIO)
    native = expected * 2 // 3 if colours == "YBR_FULL_422" else expected  # two pixels share their chroma
    syntax = check_pixels(image, native, name, samples)
    colours = str(image.PhotometricInterpretation)  # which unpacking run lengths may have changed
    if syntax.is_encapsulated:
        colours = _colours_of_compressed(image, colours)
    copy = FileDataset("", {})
    for keyword in PIXELS:
        if keyword in image:
            copy[keyword] = image[keyword]
    copy.SOPClassUID, copy.SOPInstanceUID, copy.Modality = SecondaryCaptureImageStorage, UID("1.2"), "OT"
    # ITK inverts MONOCHROME1 by the largest number that fits, whatever the window.
    copy.PhotometricInterpretation = "MONOCHROME2" if colours.startswith("MONOCHROME") else colours
    describe_file(copy, syntax, copy.SOPClassUID, copy.SOPInstanceUID)
    with tempfile.TemporaryDirectory(prefix="balaitous-") as folder:
        file = Path(folder, "frame.dcm")
        pydicom.dcmwrite(file, copy)
        pixels = read_dicom_pixels(file)
    shape = (rows, columns) if colours.startswith("MONOCHROME") else (rows, columns, 3)
    if pixels.size != math.prod(shape):
        raise InputError(f"expected {' × '.join(map(str, shape))} numbers, found {pixels.shape}; export it again")
    return pixels.reshape(shape)


def _colours_of_compressed(image: FileDataset, colours: str) -> str:
    """What the colours of a compressed image are, which JPEG tells better than DICOM."""
    compressed = next(generate_frames(image.PixelData, number_of_frames=1))
    if compressed.startswith(b"\xff\xd8"):
        if (scans := compressed.count(b"\xff\xda")) > MAXIMUM_SCANS:
            raise InputError(f"expected at most {MAXIMUM_SCANS} scans in a JPEG, found {scans}; export it again")
        if colours == "RGB" and compressed[6:10] == b"JFIF":  # which is YCbCr by definition
            return "YBR_FULL_422"
    return colours


def _grey(values: NDArray, image: FileDataset) -> tuple[NDArray[np.float32], list[str]]:
    """Stored numbers from black to white, and what was done."""
    notes = []
    rescaled, note, bits = _rescaled(values, image)
    notes += [note] if note else []
    if shown := _of_interest(rescaled, image):
        grey, note = shown
        notes.append(note)
    elif bits <= 8 and rescaled.dtype.kind == "u":
        grey = of_full_range(rescaled, 2**bits - 1)
    else:
        grey, note = of_own_range(rescaled, bits)
        notes.append(note)
    if image.PhotometricInterpretation == "MONOCHROME1":
        grey = 1 - grey
        notes.append("MONOCHROME1 inverted")
    return grey, notes


def _rescaled(values: NDArray, image: FileDataset) -> tuple[NDArray, str, int]:
    """What the numbers mean by the modality module, what was done, and their bits."""
    if table := image.get("ModalityLUTSequence"):
        looked_up, bits = look_up(values, table[0], _order(image))
        return looked_up, "modality LUT", bits
    slope, intercept = (
        float(image[key].value) if key in image and image[key].value is not None else default
        for key, default in (("RescaleSlope", 1.0), ("RescaleIntercept", 0.0))
    )
    if not (math.isfinite(slope) and math.isfinite(intercept)):
        raise InputError(f"expected numbers to rescale by, found {slope} and {intercept}; export it again")
    if (slope, intercept) == (1, 0):
        return values, "", int(image.BitsStored)
    return values * slope + intercept, f"rescaled by {slope:g} and {intercept:g}", int(image.BitsStored)


def _of_interest(rescaled: NDArray, image: FileDataset) -> tuple[NDArray[np.float32], str] | None:
    """Black to white by the table or window of the file, the first of several; None where it has no usable one."""
    if table := image.get("VOILUTSequence"):
        looked_up, bits = look_up(rescaled, table[0], _order(image))
        return of_full_range(looked_up, 2**bits - 1), "VOI LUT"
    center, width = _first(image, "WindowCenter"), _first(image, "WindowWidth")
    function = str(image.get("VOILUTFunction") or "LINEAR").strip().upper()
    if function not in SMALLEST_WIDTH:
        raise InputError(
            f"expected {', '.join(SMALLEST_WIDTH)} as VOI LUT function, found {function!r}; export it again"
        )
    if center is None or width is None or not width >= SMALLEST_WIDTH[function] or width == 0:
        return None
    return window(rescaled, center, width, function), f"window {center:g}, {width:g} ({function})"


def window(values: NDArray, center: float, width: float, function: str = "LINEAR") -> NDArray[np.float32]:
    """Numbers from black to white by a window (PS3.3, C.11.2.1.2 and C.11.2.1.3), with c its center and w its width.

    ============  =====================================================================
    LINEAR        (x − (c − 0.5)) / (w − 1) + 0.5, cut to 0 … 1; w = 1: x > c − 0.5
    LINEAR_EXACT  (x − c) / w + 0.5, cut to 0 … 1
    SIGMOID       1 / (1 + exp(−4 (x − c) / w))
    ============  =====================================================================
    """
    x = values.astype(np.float64)
    if function == "SIGMOID":
        with np.errstate(over="ignore"):  # of numbers far from the window, which become 0
            return (1 / (1 + np.exp(-4 * (x - center) / width))).astype(np.float32)
    if function == "LINEAR":
        center, width = center - 0.5, width - 1
    if width == 0:
        return (x > center).astype(np.float32)
    x -= center
    with np.errstate(over="ignore"):  # of a window that is next to nothing
        x /= width
    x += 0.5
    return np.clip(x, 0, 1, out=x).astype(np.float32)


def look_up(values: NDArray, table: Dataset, order: str = "<") -> tuple[NDArray, int]:
    """Numbers by a table (PS3.3, C.11.1.1), and their bits; what lies beyond it gets its first or last entry.

    Not by pydicom's `apply_voi`, in which tables of 8-bit entries have no more than 256, nor by its
    `apply_modality_lut`, which fails where the table is longer than stored numbers can be.

    Parameters
    ----------
    order : of the bytes of an entry, as NumPy writes it
    """
    entries, first, bits = (int(each) for each in table.LUTDescriptor)
    entries = entries or 2**16
    data = table.LUTData
    if isinstance(data, bytes):  # OW: entries of 8 bits may be packed
        packed = len(data) in (entries, entries + 1)
        numbers = np.frombuffer(data, np.uint8) if packed else np.frombuffer(data[: len(data) // 2 * 2], order + "u2")
    else:
        numbers = np.atleast_1d(np.asarray(data))
    if not 1 <= bits <= 16 or len(numbers) < entries:
        raise InputError(
            f"expected a table of {entries:,} entries of at most 16 bits, found {len(numbers):,} of {bits}"
        )
    if first >= 2**15 and values.min() < 0:  # a negative number, written as an unsigned one
        first -= 2**16
    index = np.clip(np.floor(values), first, first + entries - 1).astype(np.int64) - first
    return np.minimum(numbers[:entries], 2**bits - 1).astype(np.uint16)[index], bits


def _order(image: FileDataset) -> str:
    return "<" if image.original_encoding[1] else ">"


def _first(image: FileDataset, keyword: str) -> float | None:
    """The first of the numbers of an element; None where it has none that is finite."""
    value = image.get(keyword)
    first = (value[0] if len(value) else None) if isinstance(value, MultiValue) else value
    try:
        number = float(str(first))
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _spacing_mm(image: FileDataset) -> tuple[tuple[float, float] | None, str]:
    """Spacing as x, y, and which it is; DICOM tells that between rows first."""
    for keyword in SPACINGS:
        value = image.get(keyword)
        if value is None:
            continue
        numbers = [float(each) for each in value]
        if len(numbers) == 2 and all(math.isfinite(each) and each > 0 for each in numbers):
            return (numbers[1], numbers[0]), f"spacing from {keyword}"
    return None, ""
