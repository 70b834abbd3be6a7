"""Files that lie elsewhere, links, pipes, and names that are none: what is read lies in the scan's own folder."""

from __future__ import annotations

import os

import pytest

from balaitous.cohort.items import list_items
from balaitous.container.grand_challenge import find_cases
from balaitous.ct.dicom import select_series
from balaitous.ct.volume import read_ct
from balaitous.errors import InputError
from balaitous.reading.fingerprint import content_sha256
from helpers.dicom import write_series
from helpers.headers import VOXELS, meta_image, nrrd_image
from helpers.images import HU, refused
from helpers.rows import SEVERITY

# Files that lie elsewhere


@pytest.mark.parametrize("name", ["../secret.raw", "{folder}/../secret.raw", "link.raw", "linked/secret.raw"])
@pytest.mark.parametrize("kind", ["mhd", "nhdr"])
def test_voxels_outside_the_headers_folder_are_refused(tmp_path, kind, name):
    folder = tmp_path / "scan"
    folder.mkdir()
    (tmp_path / "secret.raw").write_bytes(VOXELS)
    (folder / "link.raw").symlink_to(tmp_path / "secret.raw")
    (folder / "linked").symlink_to(tmp_path)
    name = name.format(folder=folder)
    make = meta_image if kind == "mhd" else nrrd_image
    path = make(folder, name if make is meta_image else f"data file: {name}", b"")
    refused(path, "expected files inside the scan's own folder, .* lies outside or links to there; copy the file")


def test_a_dicom_file_that_links_out_of_its_folder_is_refused(tmp_path):
    file = write_series(tmp_path / "series", HU)[2]
    file.rename(tmp_path / "elsewhere.dcm")
    file.symlink_to(tmp_path / "elsewhere.dcm")
    refused(tmp_path / "series", f"{file.name} lies outside or links to there")


def test_a_scan_of_a_job_that_links_out_of_its_input_is_refused(tmp_path):
    folder = tmp_path / "input" / "images" / "ct"
    folder.mkdir(parents=True)
    (folder / "scan.mha").symlink_to(meta_image(tmp_path, name="elsewhere.mha"))
    with pytest.raises(InputError, match=r"scan\.mha lies outside or links to there"):
        find_cases(tmp_path / "input")


def test_links_that_lead_in_circles_do_not_keep_a_cohort_busy(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        meta_image(tmp_path / name, name=f"{name}.mha")
        for link in ("up", "up again", "down"):
            (tmp_path / name / link).symlink_to(
                tmp_path / ("b" if name == "a" else "a") if link == "down" else tmp_path
            )
    assert [scan.path.name for scan in list_items([tmp_path], SEVERITY)] == ["a.mha", "b.mha"]


# Files that are none


@pytest.mark.parametrize("ending", [".mha", ".mhd", ".nii", ".nii.gz", ".nrrd", ".nhdr", ".zip"])
def test_a_pipe_is_not_waited_for(tmp_path, ending):
    os.mkfifo(tmp_path / f"scan{ending}")
    refused(tmp_path / f"scan{ending}", "expected a file, found a device, a pipe or a link to nothing")
    with pytest.raises(OSError, match="is no file"):
        content_sha256(tmp_path / f"scan{ending}")


def test_a_pipe_in_a_dicom_folder_counts_as_no_dicom(tmp_path):
    files = write_series(tmp_path, HU, StudyInstanceUID="1.2")
    os.mkfifo(tmp_path / "pipe.dcm")
    assert list(select_series(tmp_path).files) == files
    assert [scan.path for scan in list_items([tmp_path], SEVERITY)] == [tmp_path]


def test_a_file_name_that_is_no_utf8_is_refused(tmp_path):
    path = meta_image(tmp_path).rename(tmp_path / os.fsdecode(b"sc\xff\xfean.mha"))
    with pytest.raises(InputError, match=r"expected a file name in UTF-8, found b'sc\\xff\\xfean\.mha'; rename it"):
        read_ct(path)


def test_folders_in_folders_without_end_are_refused(tmp_path):
    (tmp_path / "/".join("a" * 60)).mkdir(parents=True)
    refused(tmp_path, "expected at most 50 folders in each other")
    with pytest.raises(InputError, match="expected at most 50 folders in each other"):
        list_items([tmp_path], SEVERITY)
