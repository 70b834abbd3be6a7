"""Which files are DICOM, by their first bytes."""

from __future__ import annotations

import os

import pydicom
import pytest
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian

from balaitous.reading.dicom.files import looks_like_dicom
from fuzz import dicom as dicom_target
from helpers.dicom import hu_volume, write_series

PREAMBLE = 132


@pytest.fixture(scope="module")
def whole():
    return dicom_target.slices()[0]


def dataset_alone(content: bytes) -> bytes:
    """A file without preamble and file meta information: it begins with the element (0008,0008)."""
    return content[content.index(b"\x08\0\x08\0CS") :]


def test_a_file_is_dicom_with_its_preamble_and_without(tmp_path, whole):
    implicit = dicom_target.in_syntax(whole, ImplicitVRLittleEndian)
    alone = implicit[implicit.index(b"\x08\0\x08\0") :]
    file = tmp_path / "anything"
    for content in (whole, whole[PREAMBLE:], dataset_alone(whole), implicit[PREAMBLE:], alone):
        file.write_bytes(content)
        assert looks_like_dicom(file)


def test_a_file_in_the_other_order_of_bytes_is_dicom_without_its_preamble(tmp_path):
    file = write_series(tmp_path, hu_volume()[:1])[0]
    dataset = pydicom.dcmread(file)
    dataset.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    pydicom.dcmwrite(file, dataset, implicit_vr=False, little_endian=False)
    content = file.read_bytes()
    file.write_bytes(content[content.index(b"\0\x08\0\x08CS") :])
    assert looks_like_dicom(file)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        bytes(4000),
        b"PK\x03\x04" + bytes(500),
        b"\x89PNG\r\n\x1a\n" + bytes(500),
        b"II*\0\x08\0\0\0" + bytes(500),
        b"ObjectType = Image\nNDims = 3\n",
        b"\x08\0\x05\0",
        b"\x08\0\x05\0" + bytes(500),
        b"a line of text\n" * 300,
        b"\x02\0\0\0UL\x04\0\xc0\0\0\0",
    ],
)
def test_other_files_are_not(tmp_path, content):
    file = tmp_path / "other.dcm"
    file.write_bytes(content)
    assert not looks_like_dicom(file)


def test_what_is_no_file_is_not_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for name in ("pipe", "nothing", "."):
        assert not looks_like_dicom(tmp_path / name)
