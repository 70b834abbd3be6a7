"""SimpleITK as the rest of the package wants it: quiet, and in one line where it fails."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from balaitous.errors import InputError
from balaitous.memory import is_out_of_memory


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
    """What GDCM makes of a DICOM file that is safe to read (`dicom.pixel_data`): (1, Y, X) or (1, Y, X, 3).

    Rescale slope and intercept, MONOCHROME1, palettes and YBR are applied, unused bits left out.

    Raises
    ------
    InputError : GDCM cannot read it
    """
    with quiet_and_clear():
        return sitk.GetArrayFromImage(sitk.ReadImage(os.fspath(file), imageIO="GDCMImageIO"))


def execute(reader: sitk.ImageFileReader) -> sitk.Image:
    """The image of a reader that is set up.

    Raises
    ------
    InputError : it cannot be read
    """
    with quiet_and_clear():
        return reader.Execute()


def name_for_itk(path: Path) -> str:
    """SimpleITK ends the process where it cannot turn a name into UTF-8."""
    try:
        return path.as_posix().encode().decode()
    except UnicodeEncodeError:
        raise InputError(f"expected a file name in UTF-8, found {os.fsencode(path.name)!r}; rename it") from None
