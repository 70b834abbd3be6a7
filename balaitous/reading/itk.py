"""SimpleITK as the rest of the package wants it: quiet, and in one line where it fails."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from balaitous.errors import InputError
from balaitous.memory import is_out_of_memory
from balaitous.reading.limits import Deadline


@contextmanager
def quiet_and_clear() -> Iterator[None]:
    """No ITK warnings on stderr, and one line instead of ITK's several where it fails."""
    shown = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.GlobalWarningDisplayOff()
    try:
        yield
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise MemoryError(f"SimpleITK cannot allocate it: {error}") from error
        reason = re.sub(r"^.*ERROR: |\w+\(0x\w+\): ", "", str(error).strip().splitlines()[-1]).strip()
        if unknown := re.match('Unable to determine ImageIO reader for "(.*)"', reason):
            reason = f"{Path(unknown[1]).name} is cut short, or not what its ending says"
        raise InputError(f"expected a readable image, found none ({reason}); convert it or copy it again") from error
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(shown)


def read_dicom_pixels(file: Path) -> np.ndarray:
    """What GDCM makes of a DICOM file that is safe to read (`balaitous.reading.pixel_data`): (1, Y, X) or (1, Y, X, 3).

    Rescale slope and intercept, MONOCHROME1, palettes and YBR are applied, unused bits left out.

    Raises
    ------
    InputError : GDCM cannot read it
    """
    with quiet_and_clear():
        return sitk.GetArrayFromImage(sitk.ReadImage(os.fspath(file), imageIO="GDCMImageIO"))


def execute(reader: sitk.ImageFileReader | sitk.ImageSeriesReader) -> sitk.Image:
    """The image of a reader that is set up.

    Raises
    ------
    InputError : it cannot be read
    """
    with quiet_and_clear():
        return reader.Execute()


def read_slices(copies: Sequence[Path], files: Sequence[Path]) -> sitk.Image:
    """Slices as one image.

    Parameters
    ----------
    copies : safe to read (`balaitous.reading.pixel_data`), in their order
    files : what they were made of, for the message

    Raises
    ------
    InputError : GDCM cannot read them, or not in time
    """
    reader = sitk.ImageSeriesReader()
    reader.SetImageIO("GDCMImageIO")  # else SimpleITK tries twenty readers
    reader.SetFileNames([os.fspath(copy) for copy in copies])
    deadline = Deadline()
    reader.AddCommand(sitk.sitkProgressEvent, lambda: reader.Abort() if deadline.passed else None)  # after each slice
    try:
        return execute(reader)
    except InputError as error:
        deadline.check()
        raise InputError(f"{error}; the first such file is {_first_unreadable(copies, files)}") from error
    finally:
        reader.RemoveAllCommands()  # which hold the reader


def _first_unreadable(copies: Sequence[Path], files: Sequence[Path]) -> str:
    """ITK does not always say which slice of a series it failed on."""
    for copy, file in zip(copies, files, strict=True):
        try:
            sitk.ReadImage(os.fspath(copy), imageIO="GDCMImageIO")
        except RuntimeError:
            return file.name
    return "not to be told: each one reads alone"


def name_for_itk(path: Path) -> str:
    """SimpleITK ends the process where it cannot turn a name into UTF-8."""
    try:
        return path.as_posix().encode().decode()
    except UnicodeEncodeError:
        raise InputError(f"expected a file name in UTF-8, found {os.fsencode(path.name)!r}; rename it") from None
