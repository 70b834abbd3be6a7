"""Files that are cut short, damaged, empty, or none at all."""

from __future__ import annotations

import re

import pytest

from helpers.dicom import hu_volume
from helpers.images import image_of, refused, written


def test_a_missing_path_is_refused(tmp_path):
    refused(tmp_path / "none.mha", "found nothing; check the path")


def test_an_unknown_ending_is_refused_with_those_that_are_read(tmp_path):
    (tmp_path / "scan.txt").write_text("text")
    (tmp_path / "slice.dcm").write_text("text")
    refused(tmp_path / "scan.txt", r"expected \.mha, \.mhd, \.nii\.gz, .* found '\.txt'")
    refused(tmp_path / "slice.dcm", "a single DICOM file; give its folder")


@pytest.mark.parametrize("ending", [".mha", ".mhd", ".nii", ".nii.gz", ".nrrd"])
def test_text_an_empty_file_and_an_lfs_pointer_are_no_images(tmp_path, ending, capfd):
    path = tmp_path / f"scan{ending}"
    path.write_text("hello, I am a text\n" * 40)
    refused(path, "header|not what its ending says")
    path.write_bytes(b"")
    refused(path, "found an empty file")
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    refused(path, "git-LFS pointer")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("ending", [".mha", ".mhd", ".nii", ".nii.gz", ".nrrd"])
@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize("damage", ["cut in the middle", "last byte gone"])
def test_a_file_that_is_cut_short_is_refused(tmp_path, ending, compressed, damage, capfd):
    path = written(image_of(hu_volume((20, 30, 40))), tmp_path / f"scan{ending}", compressed)
    voxels = next((each for each in tmp_path.iterdir() if each.suffix in {".raw", ".zraw"}), path)
    whole = voxels.read_bytes()
    voxels.write_bytes(whole[: len(whole) // 2] if damage == "cut in the middle" else whole[:-1])
    refused(path, "cut short|header")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("ending", [".mha", ".mhd", ".nii.gz", ".nrrd"])
def test_damaged_compressed_voxels_are_refused(tmp_path, ending, capfd):
    path = written(image_of(hu_volume((20, 30, 40))), tmp_path / f"scan{ending}")
    voxels = next((each for each in tmp_path.iterdir() if each.suffix == ".zraw"), path)
    damaged = bytearray(voxels.read_bytes())
    damaged[-3000] ^= 0xFF
    voxels.write_bytes(damaged)
    refused(path, "damaged|not what its ending says")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(("value", "reason"), [(None, "expected CompressedDataSize"), ("50", "cut short")])
def test_compressed_voxels_of_untold_or_wrong_length_are_refused(tmp_path, value, reason, capfd):
    path = written(image_of(), tmp_path / "scan.mha")
    line = b"" if value is None else f"CompressedDataSize = {value}\n".encode()
    path.write_bytes(re.sub(b"CompressedDataSize = .*\n", line, path.read_bytes(), count=1))
    refused(path, reason)
    assert capfd.readouterr() == ("", "")
