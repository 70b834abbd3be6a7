"""Zips of DICOM: read as their folder, and nothing written or inflated that should not be."""

from __future__ import annotations

import warnings
import zipfile

import numpy as np
import pytest

from balaitous.ct.volume import read_ct
from balaitous.errors import InputError
from helpers.dicom import write_series
from helpers.headers import make_bomb
from helpers.images import HU, refused


def test_a_zip_gives_the_same_volume_as_its_folder_and_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "scratch"))
    (tmp_path / "scratch").mkdir()
    files = write_series(tmp_path / "series" / "deep", HU, uid="1.2.3", PatientSex="F")
    with zipfile.ZipFile(tmp_path / "series.zip", "w") as packed:
        for file in files:
            packed.write(file, file.relative_to(tmp_path))
    folder, unzipped = read_ct(tmp_path / "series"), read_ct(tmp_path / "series.zip")
    np.testing.assert_array_equal(unzipped.hu, folder.hu)
    assert (unzipped.grid, unzipped.stored, unzipped.series_uid) == (folder.grid, folder.stored, folder.series_uid)
    assert (unzipped.name, unzipped.patient) == (folder.name, folder.patient)
    assert list((tmp_path / "scratch").iterdir()) == []


@pytest.mark.parametrize("member", ["../out.dcm", "/out.dcm", "a/../../out.dcm", "C:\\out.dcm", "..\\out.dcm"])
def test_a_zip_member_outside_the_folder_is_refused(tmp_path, member):
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as packed:
        packed.writestr(zipfile.ZipInfo(member), b"x")
    with pytest.raises(InputError, match=r"bad\.zip: expected plain files inside the zip's own folder, found"):
        read_ct(tmp_path / "bad.zip")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.zip"]


def test_a_zip_with_a_link_or_too_much_in_it_is_refused(tmp_path, monkeypatch):
    with zipfile.ZipFile(tmp_path / "link.zip", "w") as packed:
        link = zipfile.ZipInfo("link.dcm")
        link.external_attr = 0o120777 << 16
        packed.writestr(link, "/etc/passwd")
    with pytest.raises(InputError, match="which is a link or points outside"):
        read_ct(tmp_path / "link.zip")
    monkeypatch.setenv("BALAITOUS_MAX_GIB", "1e-9")
    with pytest.raises(InputError, match=r"expected at most 1e-09 GiB in the zip.*or raise BALAITOUS_MAX_GIB"):
        read_ct(tmp_path / "link.zip")


def test_a_damaged_zip_is_refused(tmp_path):
    (tmp_path / "bad.zip").write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(InputError, match=r"bad\.zip: expected a whole zip file of a DICOM folder, cannot unpack it"):
        read_ct(tmp_path / "bad.zip")


def test_a_zip_that_declares_more_than_the_limit_or_too_many_files_is_refused(tmp_path, monkeypatch):
    path = make_bomb(tmp_path, "zip")
    monkeypatch.setenv("BALAITOUS_MAX_GIB", "0.03")
    refused(path, r"expected at most 0\.03 GiB in the zip, it declares 0\.1 GiB; .*raise BALAITOUS_MAX_GIB")
    monkeypatch.delenv("BALAITOUS_MAX_GIB")
    monkeypatch.setattr("balaitous.reading.archive.MAXIMUM_LISTING_BYTES", 20)
    refused(path, "its list of members takes more than 20 bytes")


@pytest.mark.parametrize("name", ["a/" * 60 + "x.dcm", "a/" * 900 + "x.dcm"])
def test_a_zip_of_folders_in_folders_is_refused(tmp_path, name):
    with zipfile.ZipFile(tmp_path / "deep.zip", "w") as packed:
        packed.writestr(name, b"")
    refused(tmp_path / "deep.zip", "at most 50 folders deep")


@pytest.mark.parametrize("again", ["a/1.dcm", "a//1.dcm", "./a/1.dcm"])
def test_a_zip_with_one_member_name_twice_is_refused_with_the_name(tmp_path, again):
    with zipfile.ZipFile(tmp_path / "twice.zip", "w") as packed, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # zipfile says so too
        for name in ("a/1.dcm", "a/2.dcm", again):
            packed.writestr(name, b"x")
    refused(tmp_path / "twice.zip", r"expected every file once in the zip, found 1 twice or more, such as 'a/1\.dcm'")


@pytest.mark.parametrize(
    ("names", "found"),
    [(["scan.mha"], "scan.mha"), (["b/x.nii.gz", "a.MHA", "notes.txt"], "a.MHA, b/x.nii.gz"), (["i.zip"], "i.zip")],
)
def test_a_zip_of_image_files_says_to_unpack_it(tmp_path, names, found):
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as packed:
        for name in names:
            packed.writestr(name, b"x")
    refused(
        tmp_path / "images.zip", rf"expected a DICOM folder in the zip, found {found}; unpack the zip and give what"
    )


def test_image_files_beside_the_series_of_a_zip_are_named_and_litter_is_left_out(tmp_path, caplog):
    files = write_series(tmp_path / "series", HU, uid="1.2.3")
    with zipfile.ZipFile(tmp_path / "series.zip", "w") as packed:
        for file in files:
            packed.write(file, file.name)
        packed.writestr("mask.nii.gz", b"x")
        for litter in ("__MACOSX/._slice000.dcm", "._slice000.dcm", ".DS_Store", "Thumbs.db", "._a.mha"):
            packed.writestr(litter, b"x")
    np.testing.assert_array_equal(read_ct(tmp_path / "series.zip").hu, read_ct(tmp_path / "series").hu)
    assert "series.zip: left out beside the DICOM files of the zip: mask.nii.gz; unpack it" in caplog.text
