"""The stored numbers of DICOM images; GDCM decompresses, and sees nothing but the pixels that a header declares.

GDCM allocates whatever length an element tells, follows nested sequences until the stack is gone, and lets its decoders
believe what a compressed image tells of itself. So it never gets a file from outside: each image is copied into a file
of the few elements that make an image, once its pixels are known to be there. Terms as in DICOM PS3.5, 8 and annex A:
pixel data are native, or encapsulated in items that hold a compressed image. Run lengths are unpacked here.

References
----------
JPEG: ITU-T T.81, B.2 · JPEG-LS: ITU-T T.87, C.2 · JPEG 2000: ITU-T T.800, A.5.1
"""

from __future__ import annotations

import struct
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pydicom
import pydicom.config
from numpy.typing import NDArray
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.tag import Tag
from pydicom.uid import (
    UID,
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)

from balaitous.errors import InputError
from balaitous.memory import is_out_of_memory
from balaitous.reading.dicom.files import read_file_meta
from balaitous.reading.integrity import DEFLATE_MAXIMUM_RATIO
from balaitous.reading.itk import read_dicom_pixels

IMAGE_TAGS = [
    Tag(keyword)
    for keyword in (
        *("SamplesPerPixel", "PhotometricInterpretation", "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit"),
        *("PixelRepresentation", "PixelData"),
    )
]
MAXIMUM_SLICE_BYTES = 2**28  # 64 times a slice of 1,024² pixels of 32 bits
MAXIMUM_ITEMS = 1000  # of all sequences of a slice; CTs have a few dozen, and pydicom takes 0.1 ms for each
ITEM_TAGS = (b"\xfe\xff\x00\xe0", b"\xff\xfe\xe0\x00")  # (FFFE,E000), little and big endian
BITS_ALLOCATED = (8, 16, 32)
RLE_MAXIMUM_RATIO = 2  # of the pixels' own size: a run of one byte takes two
RLE_HEADER_BYTES = 1024  # more than its header and those of the items
MAXIMUM_PRECISION = 16  # bits of a pixel of a compressed CT
MAXIMUM_TILES = 2**12  # of a JPEG 2000 image: 64 × 64, whose decoder takes some kB for each
JPEG_FRAMES = {0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF, 0xF7}  # SOF; F7: JPEG-LS
# Markers without a segment, and padding: before a frame they make no sense, and taking steps over them differently than
# the decoder would lead to another frame.
JPEG_WITHOUT_LENGTH = {0x00, 0x01, *range(0xD0, 0xDA), 0xFF}


class Stored(NamedTuple):
    """The numbers of a slice, (Y, X), not rescaled.

    Attributes
    ----------
    allotted : of all the bits that a pixel has room for; padding may use them all
    numbers : of the bits that it uses; what lies above them, such as overlays, is left out
    """

    allotted: NDArray
    numbers: NDArray


def check_declared(pixels: int, files: Iterable[Path]) -> None:
    """Refuse files that declare more pixels than they can hold, before memory is taken for them.

    Raises
    ------
    InputError : they do
    """
    found = sum(file.stat().st_size for file in files)
    if pixels > found * DEFLATE_MAXIMUM_RATIO:
        raise InputError(f"expected {pixels:,} pixels as the headers declare, found {found:,} bytes; export it again")


def read_stored(file: Path, rows: int, columns: int) -> Stored:
    """The numbers that a CT slice stores.

    Raises
    ------
    InputError : the file does not hold such a slice, or no CT scanner writes it so
    """
    with clear_about(file.name):
        return stored_numbers(read_elements(file, IMAGE_TAGS, "CT slice"), rows, columns, file.name)


@contextmanager
def clear_about(name: str) -> Iterator[None]:
    """One line that names a file where its DICOM turns out to be damaged."""
    try:
        with pydicom.config.disable_value_validation():
            yield
    except (InputError, MemoryError, OSError):
        raise
    except Exception as error:  # pydicom lets a dozen types through for damaged files
        if is_out_of_memory(error):
            raise
        raise InputError(
            f"expected readable DICOM files, {name} is damaged ({error or type(error).__name__}); export the series "
            "again"
        ) from error


def stored_numbers(image: FileDataset, rows: int, columns: int, name: str) -> Stored:
    """The numbers that an image stores; damage may raise anything.

    Parameters
    ----------
    image : with the elements of `IMAGE_TAGS`
    name : for messages
    """
    allocated = image.BitsAllocated
    if (image.Rows, image.Columns) != (rows, columns) or allocated not in BITS_ALLOCATED:
        raise InputError(
            f"expected {rows} × {columns} pixels of 8, 16 or 32 bits in {name}, found {image.Rows} × "
            f"{image.Columns} of {allocated}; export the series again"
        )
    unpacked = image.file_meta.get("TransferSyntaxUID") == RLELossless
    syntax = check_pixels(image, rows * columns * allocated // 8, name)
    if not syntax.is_encapsulated:
        order = "<" if unpacked or image.original_encoding[1] is not False else ">"
        number = f"{'i' if image.get('PixelRepresentation') else 'u'}{allocated // 8}"
        data = image.PixelData
        if order == ">" and allocated == 8:  # bytes lie in words, which are turned (PS3.5, 8.1.1 and annex A.3)
            data = np.frombuffer(data[: len(data) // 2 * 2], ">u2").astype("<u2").tobytes()
        allotted = np.frombuffer(data, order + number, rows * columns).reshape(rows, columns)
        unused = allocated - int(image.get("BitsStored") or allocated)
        return Stored(allotted, allotted << unused >> unused if unused > 0 else allotted)
    image.SOPClassUID, image.Modality, image.PhotometricInterpretation = CTImageStorage, "CT", "MONOCHROME2"
    describe_file(image, syntax, CTImageStorage, "1.2")
    with tempfile.TemporaryDirectory(prefix="balaitous-") as folder:
        copy = Path(folder, "slice.dcm")
        image.save_as(copy)
        try:
            pixels = read_dicom_pixels(copy)
        except InputError as error:
            raise InputError(f"{error}; the first such file is {name}") from error
    if pixels.size != rows * columns:
        raise InputError(f"expected {rows} × {columns} numbers in {name}, found {pixels.shape}; export it again")
    pixels = pixels.reshape(rows, columns)
    return Stored(pixels, pixels)


def read_elements(file: Path, tags: Sequence[int], what: str) -> FileDataset:
    """Some elements of a file that holds one image; damage may raise anything.

    Parameters
    ----------
    what : the file should hold, for messages
    """
    size = file.stat().st_size
    if size > MAXIMUM_SLICE_BYTES:
        raise InputError(f"expected one {what} a file, {file.name} has {size:,} bytes; export the series again")
    content = file.read_bytes()
    items = sum(content.count(tag) for tag in ITEM_TAGS)
    if items > MAXIMUM_ITEMS:
        raise InputError(f"expected a {what}, {file.name} has {items:,} sequence items; export the series again")
    if read_file_meta(BytesIO(content)).get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian:
        raise InputError(f"expected no deflated DICOM, found one in {file.name}; write it in another transfer syntax")
    image = pydicom.dcmread(BytesIO(content), specific_tags=list(tags), force=True)
    for tag in set(image.keys()) - set(tags):  # pydicom adds some, such as the character set
        del image[tag]
    return image


def check_pixels(image: FileDataset, expected: int, name: str, samples: int = 1) -> UID:
    """Make sure that a file holds the pixels that its header declares, and unpack run lengths.

    Parameters
    ----------
    expected : bytes of the native pixels
    name : of the file
    samples : colours of a pixel

    Returns
    -------
    the transfer syntax of `image` as it is now

    Raises
    ------
    InputError : it does not; what is damaged may raise anything
    """
    syntax: UID = UID(str(image.file_meta.get("TransferSyntaxUID") or ImplicitVRLittleEndian))
    if syntax == RLELossless:
        unpack_run_lengths(image, expected, name)
        syntax = ExplicitVRLittleEndian
    if syntax.is_encapsulated:
        compressed = b"".join(generate_frames(image.PixelData, number_of_frames=1))
        check_compressed(compressed, image.Rows, image.Columns, image.BitsAllocated, name, samples)
        image.PixelData = encapsulate([compressed])
    else:
        found = len(image.PixelData)
        if found < expected:
            raise InputError(
                f"expected {expected:,} bytes of pixels in {name}, found {found:,}; it is cut short: copy it again"
            )
    return syntax


def describe_file(image: FileDataset, syntax: UID, class_uid: UID, instance_uid: str) -> None:
    """Give an image a preamble and file meta information of its own, and no more than it needs."""
    image.preamble, image.file_meta = bytes(128), FileMetaDataset()
    image.file_meta.TransferSyntaxUID = syntax
    image.file_meta.MediaStorageSOPClassUID = class_uid
    image.file_meta.MediaStorageSOPInstanceUID = UID(instance_uid)


def unpack_run_lengths(image: FileDataset, expected: int, name: str) -> None:
    """Make run-length encoded pixel data native. GDCM divides by the number of segments it is told, even none.

    Parameters
    ----------
    expected : bytes of the native pixels
    name : of the file

    Raises
    ------
    InputError : there is more than any such encoding takes; what is damaged may raise anything
    """
    if (found := len(image.PixelData)) > RLE_MAXIMUM_RATIO * expected + RLE_HEADER_BYTES:
        raise InputError(
            f"expected at most {RLE_MAXIMUM_RATIO} × {expected:,} bytes of run-length encoded pixels in {name}, found "
            f"{found:,}; export the series again"
        )
    image.decompress(decoding_plugin="pydicom", generate_instance_uid=False)


def check_compressed(image: bytes, rows: int, columns: int, bits: int, name: str, samples: int = 1) -> None:
    """Refuse a compressed image whose own header tells another size than the file's, other colours, or larger numbers.

    Parameters
    ----------
    image : JPEG, JPEG-LS or JPEG 2000
    bits : allocated for each pixel. GDCM writes beyond its memory if a JPEG tells more, or more than 16
    name : of the file
    samples : colours of a pixel

    Raises
    ------
    InputError : so it is; what is damaged may raise anything
    """
    if image.startswith(b"\xff\x4f\xff\x51"):
        *size, found = _frame_of_jpeg2000(image)
    elif image.startswith(b"\xff\xd8"):
        *size, found = _frame_of_jpeg(image)
    else:
        raise InputError(f"expected JPEG, JPEG-LS or JPEG 2000 in {name}, found none; export the series again")
    most = min(bits, MAXIMUM_PRECISION)
    if size != [rows, columns, samples] or found > most:
        kind = "grey pixels" if samples == 1 else f"pixels with {samples} colours"
        raise InputError(
            f"expected a compressed image of {rows} × {columns} {kind} of at most {most} bits in {name}, found "
            f"{size[0]} × {size[1]} with {size[2]} colours of {found} bits; export the series again"
        )


def _frame_of_jpeg2000(image: bytes) -> tuple[int, int, int, int]:
    """Rows, columns, components and bits of the first of them: the segment SIZ is the first."""
    right, bottom, left, top, tile_width, tile_height = struct.unpack(">6I", image[8:32])
    components, depth = struct.unpack(">HB", image[40:43])
    tiles = -(-right // max(1, tile_width)) * -(-bottom // max(1, tile_height))
    if left or top or tiles > MAXIMUM_TILES:
        raise ValueError(f"a JPEG 2000 image of {tiles} tiles from ({left}, {top})")
    return bottom, right, components, (depth & 0x7F) + 1  # the highest bit: whether there are negative numbers


def _frame_of_jpeg(image: bytes) -> tuple[int, int, int, int]:
    """Rows, columns, components and bits of the first frame: segments are a marker, their length, their content."""
    place = 2
    while image[place] == 0xFF and image[place + 1] not in JPEG_WITHOUT_LENGTH:
        marker, length = struct.unpack(">BH", image[place + 1 : place + 4])
        if marker in JPEG_FRAMES:
            precision, rows, columns, components = struct.unpack(">BHHB", image[place + 4 : place + 10])
            return rows, columns, components, precision
        place += 2 + length
    raise ValueError("no frame at the beginning of a JPEG image")
