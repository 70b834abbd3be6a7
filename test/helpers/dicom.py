"""DICOM series made on the fly for tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

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
