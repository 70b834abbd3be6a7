"""What a scan is known by: the same wherever it lies, another as soon as a byte of it changes."""

import hashlib
import subprocess
import sys
import zipfile

import pytest
import SimpleITK as sitk

from balaitous.reading.fingerprint import content_sha256
from helpers import PHANTOM
from helpers.dicom import hu_volume, write_series


def write_image(path):
    sitk.WriteImage(sitk.GetImageFromArray(hu_volume((4, 5, 6))), str(path))
    return path


def test_an_image_file_is_known_by_its_bytes_alone(tmp_path):
    moved = tmp_path / "renamed.mha"
    moved.write_bytes(PHANTOM.read_bytes())
    assert content_sha256(PHANTOM) == content_sha256(moved) == hashlib.sha256(PHANTOM.read_bytes()).hexdigest()


@pytest.mark.parametrize("ending", ["mhd", "nhdr"])
def test_a_header_is_known_together_with_its_voxels(ending, tmp_path):
    path = write_image(tmp_path / f"scan.{ending}")
    before = content_sha256(path)
    (tmp_path / "notes.txt").write_text("something else")
    assert content_sha256(path) == before
    voxels = next(each for each in tmp_path.iterdir() if each.suffix in {".raw", ".zraw", ".gz"})
    voxels.write_bytes(voxels.read_bytes()[:-1] + b"\x07")
    assert content_sha256(path) != before
    voxels.unlink()
    assert content_sha256(path) == hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_dicom_folder_is_known_by_its_slices_wherever_it_lies(tmp_path):
    files = write_series(tmp_path / "here", hu_volume((3, 4, 5)))
    before = content_sha256(tmp_path / "here")
    there = (tmp_path / "here").rename(tmp_path / "there")
    (there / ".DS_Store").write_bytes(b"of no concern")
    (there / "table.csv").write_text("PatientID\n")
    (there / "dangling.dcm").symlink_to("nowhere")
    assert content_sha256(there) == before
    listing = "".join(
        f"{hashlib.sha256((there / name).read_bytes()).hexdigest()}  {name}\n" for name in sorted(f.name for f in files)
    )
    assert before == hashlib.sha256(listing.encode()).hexdigest()
    (there / files[0].name).rename(there / "renamed.dcm")
    assert content_sha256(there) != before


def test_a_zip_is_known_by_its_bytes(tmp_path):
    files = write_series(tmp_path / "series", hu_volume((3, 4, 5)))
    with zipfile.ZipFile(tmp_path / "series.zip", "w") as archive:
        for file in files:
            archive.write(file, file.name)
    assert content_sha256(tmp_path / "series.zip") == hashlib.sha256((tmp_path / "series.zip").read_bytes()).hexdigest()


def test_a_file_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="gone"):
        content_sha256(tmp_path / "gone.mha")


def test_it_needs_neither_pytorch_nor_simpleitk():
    program = "import sys, balaitous.reading.fingerprint; print({'torch', 'SimpleITK', 'pandas'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout == "set()\n"


def test_dicom_without_its_preamble_counts(tmp_path):
    files = write_series(tmp_path, hu_volume())
    files[0].write_bytes(files[0].read_bytes()[132:])
    before = content_sha256(tmp_path)
    files[0].write_bytes(files[0].read_bytes() + b"\0\0")
    assert content_sha256(tmp_path) != before
