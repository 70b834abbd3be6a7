"""Enhanced CT: the frames of a multi-frame DICOM file as the slices of a series.

What a single-frame file says at its top stands in functional groups here, which are shared by all frames or each
frame's own (PS3.3, C.7.6.16). They are laid out as a header of each frame, so that `balaitous.ct.slices` judges frames
and single files alike. A series is one stack, taken once: several stacks or phases are refused by their names.

References
----------
PS3.3: A.38.1 (Enhanced CT), A.70 (Legacy Converted Enhanced CT), C.7.6.16.2 (functional groups)
"""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, cast

import pydicom
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.tag import BaseTag, Tag
from pydicom.uid import ImplicitVRLittleEndian

from balaitous.ct.slices import SLICE_KEYWORDS, SLICE_NOTES, Slice, has_geometry, slice_of
from balaitous.errors import InputError
from balaitous.reading.dicom.files import ENHANCED_CT_CLASSES, read_header
from balaitous.reading.dicom.pixel_data import (
    IMAGE_TAGS,
    ITEM_TAGS,
    MAXIMUM_ITEMS,
    Stored,
    check_declared,
    clear_about,
    stored_numbers,
)
from balaitous.reading.limits import SIZE_VARIABLE, maximum_bytes, maximum_voxels

SHARED, PER_FRAME = "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"
GROUPS = {  # what a single-frame header says at its top, by the group that holds it
    "PlanePositionSequence": ("ImagePositionPatient",),
    "PlaneOrientationSequence": ("ImageOrientationPatient",),
    "PixelMeasuresSequence": ("PixelSpacing", "SliceThickness"),
    "PixelValueTransformationSequence": ("RescaleIntercept", "RescaleSlope", "RescaleType"),
    "CTReconstructionSequence": ("ConvolutionKernel",),
}
PARTS = (  # what several of are no single volume: group, keyword, and how people call it
    ("FrameContentSequence", "StackID", "stack"),
    ("FrameContentSequence", "TemporalPositionIndex", "point in time"),
    ("CardiacSynchronizationSequence", "NominalPercentageOfCardiacPhase", "phase of the heart"),
    ("RespiratorySynchronizationSequence", "NominalPercentageOfRespiratoryPhase", "phase of breathing"),
    ("CTImageFrameTypeSequence", "FrameType", "type of frame"),
)
FRAME_TAGS: list[BaseTag | int] = [
    Tag(keyword) for keyword in (*SLICE_KEYWORDS, *SLICE_NOTES, "NumberOfFrames", SHARED, PER_FRAME)
]
PIXEL_TAGS: list[BaseTag | int] = [
    *IMAGE_TAGS,
    *(Tag(keyword) for keyword in ("NumberOfFrames", "ExtendedOffsetTable", "ExtendedOffsetTableLengths")),
]
MAXIMUM_HEADER_BYTES = 2**26  # a thousand frames take some five million
MAXIMUM_ITEMS_PER_FRAME = 100  # of all sequences; frames have one or two dozen


def is_enhanced(file: Path) -> bool:
    """Whether a file is an Enhanced CT by its header."""
    try:
        header = read_header(file, [Tag("SOPClassUID")])
    except Exception:  # pydicom lets a dozen types through for damaged headers
        return False
    return (header.get("SOPClassUID") or header.file_meta.get("MediaStorageSOPClassUID")) in ENHANCED_CT_CLASSES


def frames_of(file: Path) -> list[Slice] | None:
    """The frames of an Enhanced CT file as slices; None where one does not say where it lies.

    Raises
    ------
    InputError : it declares more frames or sequences than are read
    Exception : of any kind, where its header is damaged
    """
    _check_frames(file)
    header = read_header(file, FRAME_TAGS, MAXIMUM_HEADER_BYTES)
    own = list(header.get(PER_FRAME) or ())
    if not own:
        return None
    if len(own) != int(header.get("NumberOfFrames") or 1):
        raise ValueError(f"{len(own)} descriptions of {header.get('NumberOfFrames')} frames")
    shared = next(iter(header.get(SHARED) or ()), Dataset())
    slices = []
    for frame, groups in enumerate(own):
        flat, parts = _flat_header(header, groups, shared)
        if not has_geometry(flat):
            return None
        slices.append(slice_of(file, flat, frame, parts))
    return slices


def _check_frames(file: Path) -> None:
    """Refuse a file of more voxels or sequences than are read, before they are."""
    header = read_header(file, [Tag(keyword) for keyword in ("NumberOfFrames", "Rows", "Columns")])
    frames, rows, columns = (int(header.get(key) or 1) for key in ("NumberOfFrames", "Rows", "Columns"))
    if frames * rows * columns > maximum_voxels():
        raise InputError(
            f"expected at most {maximum_voxels():,.0f} voxels, {file.name} declares {frames} frames of "
            f"{rows} × {columns}; keep one volume only, or raise {SIZE_VARIABLE}"
        )
    check_declared(frames * rows * columns, [file])
    with file.open("rb") as stream:
        start = stream.read(MAXIMUM_HEADER_BYTES)
    items = sum(start.count(tag) for tag in ITEM_TAGS)
    if items > MAXIMUM_ITEMS + MAXIMUM_ITEMS_PER_FRAME * frames:
        raise InputError(f"expected {frames} frames, {file.name} has {items:,} sequence items; export the series again")


def _flat_header(header: Dataset, own: Dataset, shared: Dataset) -> tuple[Dataset, dict[str, str]]:
    """The header that a file of this frame alone would have, and which stack, phase and so on the frame is of."""
    flat = Dataset()
    for keyword in (*SLICE_KEYWORDS, *SLICE_NOTES):
        if keyword in header:
            flat[keyword] = header[keyword]
    for group, keywords in GROUPS.items():
        item = _group(group, own, shared)
        for keyword in keywords:
            if keyword in item:
                flat[keyword] = item[keyword]
    parts = {name: str(_group(group, own, shared).get(keyword, "")) for group, keyword, name in PARTS}
    return flat, parts


def _group(name: str, own: Dataset, shared: Dataset) -> Dataset:
    """The one item of a functional group; an empty one where there is none."""
    return next(iter(own.get(name) or shared.get(name) or ()), Dataset())


def stored_frames(slices: Sequence[Slice]) -> Iterator[Stored]:
    """The stored numbers of frames, one after the other.

    Raises
    ------
    InputError : a file does not hold the frames that its header declares
    """
    opened: dict[Path, Callable[[int], FileDataset]] = {}
    for each in slices:
        assert each.frame is not None
        with clear_about(each.file.name):
            if each.file not in opened:
                opened[each.file] = _opened(each.file)
            yield stored_numbers(opened[each.file](each.frame), *each.shape, each.name)


def _opened(file: Path) -> Callable[[int], FileDataset]:
    """What gives a frame of a file as an image of its own."""
    if file.stat().st_size > maximum_bytes():
        raise InputError(
            f"expected at most {maximum_bytes():,.0f} bytes, {file.name} has more; keep one volume only, or raise "
            f"{SIZE_VARIABLE}"
        )
    with file.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
        image = pydicom.dcmread(cast(BinaryIO, content), specific_tags=PIXEL_TAGS, force=True)
    syntax = image.file_meta.get("TransferSyntaxUID") or ImplicitVRLittleEndian
    frames, data = int(image.get("NumberOfFrames") or 1), image.PixelData
    if syntax.is_encapsulated:
        offsets = image.get("ExtendedOffsetTable"), image.get("ExtendedOffsetTableLengths")
        extended = offsets if all(offsets) else None
        compressed = list(generate_frames(data, number_of_frames=frames, extended_offsets=extended))
        return lambda frame: _alone(image, syntax, encapsulate([compressed[frame]]))
    size = image.Rows * image.Columns * image.BitsAllocated // 8
    if len(data) < frames * size:
        raise InputError(
            f"expected {frames * size:,} bytes of pixels in {file.name}, found {len(data):,}; it is cut short: copy it "
            "again"
        )
    return lambda frame: _alone(image, syntax, data[frame * size : (frame + 1) * size])


def _alone(image: FileDataset, syntax: pydicom.uid.UID, pixels: bytes) -> FileDataset:
    one = FileDataset("", {}, file_meta=FileMetaDataset())
    for tag in IMAGE_TAGS:
        if tag in image and tag != Tag("PixelData"):
            one[tag] = image[tag]
    one.PixelData = pixels
    one.file_meta.TransferSyntaxUID = syntax
    one.set_original_encoding(*image.original_encoding)
    return one
