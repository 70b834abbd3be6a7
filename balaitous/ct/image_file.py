"""An image file as the volume that it holds, in the order it is stored in, whatever its voxels mean."""

from __future__ import annotations

import math
from pathlib import Path

import SimpleITK as sitk

from balaitous.ct.plausibility import check_volume
from balaitous.errors import InputError
from balaitous.reading.headers import format_of
from balaitous.reading.integrity import check_is_data, check_whole
from balaitous.reading.itk import execute, name_for_itk, quiet_and_clear
from balaitous.reading.nifti import nearest_rotation, read_nifti_header, read_nifti_voxels
from balaitous.reading.patient import Patient, from_header


def read_image_file(path: Path) -> tuple[sitk.Image, Patient, tuple[str, ...]]:
    """The 3-D image of a file that is whole, what its header says of the patient, and the doubts it leaves.

    Raises
    ------
    InputError : it is none of `balaitous.reading.headers.FORMATS`, damaged, or no single volume
    """
    check_is_data(path)
    image_format = format_of(path)
    if image_format.image_io is None:
        return _nifti_image(path)
    voxels = image_format.locate(path)
    reader = sitk.ImageFileReader()
    reader.SetFileName(name_for_itk(path))
    reader.SetImageIO(image_format.image_io)  # SimpleITK would try twenty, and finds none for .MHA
    with quiet_and_clear():
        reader.ReadImageInformation()
    kind = sitk.GetPixelIDValueAsString(reader.GetPixelID())
    if " of " in kind:
        raise InputError(f"expected one number a voxel, found a {kind} (such as RGB); give a CT in Hounsfield units")
    check_volume(reader.GetSize(), reader.GetSpacing(), reader.GetOrigin(), reader.GetDirection())
    bits = 8 * sitk.Image([1, 1, 1], reader.GetPixelID()).GetSizeOfPixelComponent()
    check_whole(voxels, math.prod(reader.GetSize()) * bits // 8)
    image = execute(reader)
    age, sex = (reader.GetMetaData(key) if reader.HasMetaDataKey(key) else None for key in ("PatientAge", "PatientSex"))
    patient = from_header(age, sex, "header")
    return image if image.GetDimension() == 3 else image[:, :, :, 0], patient, voxels.doubts


def _nifti_image(path: Path) -> tuple[sitk.Image, Patient, tuple[str, ...]]:
    header = read_nifti_header(path)
    check_volume(header.size, header.spacing_mm, header.origin_mm, header.direction)
    image = sitk.GetImageFromArray(read_nifti_voxels(header))
    image.SetSpacing(header.spacing_mm)
    image.SetOrigin(header.origin_mm)
    image.SetDirection(nearest_rotation(header.direction).ravel().tolist())
    return image, Patient(), header.voxels.doubts
