"""Which scans a command line means."""

from pathlib import Path

import pytest
from synthetic_dicom import hu_volume, write_series

from balaitous.cohort.scans import Scan, list_scans
from balaitous.errors import InputError


def touch(*files: Path) -> None:
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()


def paths(scans: list[Scan]) -> list[Path]:
    return [scan.path for scan in scans]


def test_a_file_is_a_scan_with_the_age_and_sex_given(tmp_path):
    touch(tmp_path / "a.mha")
    assert list_scans([tmp_path / "a.mha"], age=50, sex="F") == [Scan(tmp_path / "a.mha", 50, "F")]


def test_a_folder_gives_its_image_files_by_name_and_nothing_else(tmp_path):
    touch(*(tmp_path / name for name in ("b.nii.gz", "a.MHA", "sub/c.nrrd", "notes.txt", "z.zip", "a.raw")))
    assert paths(list_scans([tmp_path])) == [tmp_path / name for name in ("a.MHA", "b.nii.gz", "sub/c.nrrd", "z.zip")]


def test_a_dicom_study_is_one_scan_however_its_series_are_filed(tmp_path):
    for series in ("s1", "s2"):
        write_series(tmp_path / series, hu_volume((2, 3, 4)), StudyInstanceUID="1.2.3")
    assert paths(list_scans([tmp_path])) == [tmp_path]


def test_dicom_studies_in_folders_are_a_scan_each(tmp_path):
    for study in ("p1", "p2"):
        write_series(tmp_path / study / "series", hu_volume((2, 3, 4)), StudyInstanceUID=f"1.2.{study[-1]}")
    touch(tmp_path / "p3.mha")
    assert paths(list_scans([tmp_path])) == [tmp_path / name for name in ("p1", "p2", "p3.mha")]


def test_a_table_gives_paths_beside_it_with_age_and_sex(tmp_path):
    touch(tmp_path / "a.mha", tmp_path / "b.mha")
    table = tmp_path / "scans.csv"
    table.write_text("path,age,sex\na.mha,41,F\nb.mha,,\n")
    assert list_scans([table], age=65, sex="M") == [
        Scan(tmp_path / "a.mha", 41.0, "F"),
        Scan(tmp_path / "b.mha", 65, "M"),
    ]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("file\na.mha\n", "has no column 'path'"),
        ("path,age\na.mha,old\n", "line 2: .*age"),
        ("path,sex\na.mha,X\n", "line 2: sex must be"),
        ("", "not a readable CSV"),
    ],
)
def test_a_table_that_cannot_be_used_says_why(tmp_path, content, reason):
    table = tmp_path / "scans.csv"
    table.write_text(content)
    with pytest.raises(InputError, match=reason):
        list_scans([table])


def test_a_missing_path_and_an_empty_folder_are_named(tmp_path):
    with pytest.raises(InputError, match=r"no such file or folder: .*nowhere"):
        list_scans([tmp_path / "nowhere"])
    with pytest.raises(InputError, match="no scan in"):
        list_scans([tmp_path])
