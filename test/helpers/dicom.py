"""DICOM series made on the fly for tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import CTImageStorage, EnhancedCTImageStorage, ExplicitVRLittleEndian, generate_uid

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
CORONAL = (1.0, 0.0, 0.0, 0.0, 0.0, -1.0)


def hu_volume(shape=(6, 7, 8), seed=0) -> np.ndarray:
    """Random HU (Z, Y, X), int16, between −1000 and 1500."""
    return np.random.default_rng(seed).integers(-1000, 1500, shape).astype(np.int16)


def write_series(
    folder: Path,
    hu: np.ndarray,
    *,
    uid: str | None = None,
    orientation=AXIAL,
    step_mm: float = 2.5,
    drift_mm: float = 0.0,
    spacing_mm=(0.7, 0.8),
    shuffle: bool = True,
    prefix: str = "slice",
    **tags,
) -> list[Path]:
    """Write `hu` (slices, rows, columns) as one file a slice, stored as unsigned numbers with intercept −1024.

    Files are numbered in a shuffled order; the returned list is in the order of `hu`. `step_mm` lies along the normal,
    `drift_mm` along the columns, both per slice; `tags` overwrite or, when None, remove attributes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    uid = uid or generate_uid()
    row, column = np.array(orientation[:3]), np.array(orientation[3:])
    numbers = np.random.default_rng(1).permutation(len(hu)) if shuffle else np.arange(len(hu))
    files = []
    for index, pixels in enumerate(hu):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID = CTImageStorage
        meta.MediaStorageSOPInstanceUID = generate_uid()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        file = folder / f"{prefix}{numbers[index]:03d}.dcm"
        slice_ = FileDataset(str(file), {}, file_meta=meta, preamble=bytes(128))
        position = np.array([-100.0, -120.0, -300.0]) + index * (step_mm * np.cross(row, column) + drift_mm * column)
        attributes = {
            "SOPClassUID": CTImageStorage,
            "SOPInstanceUID": meta.MediaStorageSOPInstanceUID,
            "SeriesInstanceUID": uid,
            "Modality": "CT",
            "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
            "ImagePositionPatient": [f"{value:.6g}" for value in position],
            "ImageOrientationPatient": [f"{value:.6g}" for value in orientation],
            "PixelSpacing": [str(value) for value in spacing_mm],
            "Rows": pixels.shape[0],
            "Columns": pixels.shape[1],
            "SamplesPerPixel": 1,
            "PhotometricInterpretation": "MONOCHROME2",
            "BitsAllocated": 16,
            "BitsStored": 16,
            "HighBit": 15,
            "PixelRepresentation": 0,
            "RescaleSlope": "1",
            "RescaleIntercept": "-1024",
            "PixelData": (pixels.astype(np.int32) + 1024).astype("<u2").tobytes(),
            **tags,
        }
        for key, value in attributes.items():
            if value is not None:
                setattr(slice_, key, value)
        slice_.save_as(file, enforce_file_format=True)
        files.append(file)
    return files


def edit(file: Path, **tags) -> None:
    """Overwrite or, when None, remove attributes of a DICOM file."""
    dataset = pydicom.dcmread(file)
    for key, value in tags.items():
        if value is None:
            delattr(dataset, key)
            continue
        setattr(dataset, key, value)
        if dataset[key].VR == "US or SS":
            dataset[key].VR = "US"
    dataset.save_as(file)


def item(**values) -> Dataset:
    """A dataset, such as the item of a sequence; dictionaries become sequences of one item."""
    dataset = Dataset()
    for key, value in values.items():
        setattr(dataset, key, [item(**value)] if isinstance(value, dict) else value)
    return dataset


def write_enhanced(
    file: Path,
    hu: np.ndarray,
    *,
    uid: str = "1.2.3",
    step_mm: float = 2.5,
    first: int = 0,
    each=lambda index: {},
    compressed: tuple[str, list[bytes]] | None = None,
    **tags,
) -> Path:
    """Write `hu` (slices, rows, columns) as frames of one Enhanced CT file, in its order, intercept −1024, 12 bits.

    `first` is the number of steps before the first frame, `each` gives more groups of a frame; `compressed`
    is a transfer syntax and an image a frame.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = EnhancedCTImageStorage, generate_uid()
    meta.TransferSyntaxUID = compressed[0] if compressed else ExplicitVRLittleEndian
    dataset = FileDataset(str(file), {}, file_meta=meta, preamble=bytes(128))
    dataset.SOPClassUID, dataset.SOPInstanceUID = EnhancedCTImageStorage, meta.MediaStorageSOPInstanceUID
    dataset.SeriesInstanceUID, dataset.Modality, dataset.ImageType = (
        uid,
        "CT",
        ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"],
    )
    dataset.NumberOfFrames, dataset.Rows, dataset.Columns = hu.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 12, 11, 0
    groups = {
        "PixelMeasuresSequence": {"PixelSpacing": ["0.7", "0.8"], "SliceThickness": "2.5"},
        "PlaneOrientationSequence": {"ImageOrientationPatient": [str(each) for each in AXIAL]},
        "PixelValueTransformationSequence": {"RescaleIntercept": "-1024", "RescaleSlope": "1", "RescaleType": "HU"},
    }
    dataset.SharedFunctionalGroupsSequence = [item(**groups)]
    dataset.PerFrameFunctionalGroupsSequence = [
        item(
            PlanePositionSequence={"ImagePositionPatient": ["-100", "-120", f"{-300 + step_mm * (first + index):.6g}"]},
            **{"FrameContentSequence": {"StackID": "1"}} | each(index),
        )
        for index in range(len(hu))
    ]
    stored = (hu.astype(np.int32) + 1024).astype("<u2")
    dataset.PixelData = encapsulate(compressed[1]) if compressed else stored.tobytes()
    for key, value in tags.items():
        if value is None:
            delattr(dataset, key)
        else:
            setattr(dataset, key, value)
    dataset.save_as(file, enforce_file_format=True)
    return file
