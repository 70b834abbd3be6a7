"""What a scan is known by: the same wherever it lies, another as soon as a byte of it changes."""

import hashlib
import os
import shutil
import subprocess
import sys
import time
import zipfile

import pytest
import SimpleITK as sitk

from balaitous.errors import InputError
from balaitous.reading.fingerprint import content_sha256, unchanged
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


def rewritten(file):
    """Other bytes of the same length in the same file, with its old times."""
    times = (file.stat().st_atime_ns, file.stat().st_mtime_ns)
    file.write_bytes(file.read_bytes()[:-1] + b"\x07")
    os.utime(file, ns=times)


def exchanged(file):
    """Another file in its place, of the same length and times."""
    other = file.with_name("other")
    shutil.copy2(file, other)
    os.replace(other, file)


def removed(file):
    file.unlink()


@pytest.mark.parametrize("change", [rewritten, exchanged, removed])
@pytest.mark.parametrize("kind", ["mha", "nii.gz", "mhd", "raw", "folder", "zip"])
def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path, kind, change):
    path = file = tmp_path / f"scan.{kind}"
    if kind in {"folder", "zip"}:
        files = write_series(tmp_path / "scan.folder", hu_volume((3, 4, 5)))
        file = files[1]
        if kind == "zip":
            file = path
            with zipfile.ZipFile(path, "w") as archive:
                for each in files:
                    archive.write(each, each.name)
    else:
        path = write_image(tmp_path / ("scan.mhd" if kind == "raw" else path.name))
        file = next(tmp_path.glob("*raw")) if kind == "raw" else path
    time.sleep(0.02)  # file systems count in steps of some milliseconds
    with unchanged(path):
        content_sha256(path)
    with pytest.raises(InputError, match="expected files that stay as they are while they are read"), unchanged(path):
        change(file)


def test_other_files_of_a_folder_may_change_while_it_is_read(tmp_path):
    write_series(tmp_path / "scan", hu_volume((3, 4, 5)))
    with unchanged(tmp_path / "scan"):
        (tmp_path / "scan" / "table.csv").write_text("PatientID\n")


def test_a_file_that_appears_while_it_is_read_is_refused(tmp_path):
    with pytest.raises(InputError, match="stay as they are"), unchanged(tmp_path / "scan.mha"):
        write_image(tmp_path / "scan.mha")


def test_what_goes_wrong_while_files_are_read_is_told_before_their_change(tmp_path):
    with pytest.raises(ValueError, match="another"), unchanged(tmp_path / "gone.mha"):
        raise ValueError("another")


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
