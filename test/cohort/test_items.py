"""Which scans a command line means."""

from pathlib import Path

import fsspec
import pytest

from balaitous.cohort.items import Scan, list_scans
from balaitous.errors import InputError
from helpers.dicom import hu_volume, write_series


def touch(*files: Path) -> None:
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()


@pytest.fixture
def memory():
    """fsspec's file system in memory, empty before and after."""
    files = fsspec.filesystem("memory")
    files.store.clear()
    files.pseudo_dirs[:] = [""]
    yield files
    files.store.clear()


def paths(scans: list[Scan]) -> list[Path | str]:
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


def test_an_address_of_a_file_stays_an_address(memory):
    memory.pipe("/bucket/a.mha", b"")
    assert list_scans(["memory://bucket/a.mha"], age=50) == [Scan("memory://bucket/a.mha", 50)]


def test_a_folder_at_an_address_gives_the_scans_that_the_same_folder_gives_here(memory, tmp_path):
    touch(*(tmp_path / "top" / name for name in ("b.nii.gz", "a.MHA", "sub/c.nrrd", "notes.txt", "z.zip", "a.raw")))
    write_series(tmp_path / "top/study/series", hu_volume((2, 3, 4)), StudyInstanceUID="1.2.3")
    memory.put(str(tmp_path / "top"), "/bucket", recursive=True)
    here = [each.relative_to(tmp_path / "top").as_posix() for each in paths(list_scans([tmp_path / "top"]))]
    assert here == ["a.MHA", "b.nii.gz", "study", "sub/c.nrrd", "z.zip"]
    here[2] = "study/series"  # headers are not opened over a network
    for address in ("memory://bucket", "memory://bucket/"):
        assert paths(list_scans([address])) == [f"memory://bucket/{name}" for name in here]
    assert paths(list_scans([f"file://{tmp_path}/top"])) == [f"file://{tmp_path}/top/{name}" for name in here]


def test_dicom_folders_at_an_address_are_known_by_names_or_by_the_mark_in_files_without_ending(memory):
    marked = bytes(128) + b"DICM"
    memory.pipe(
        {
            "/b/README": b"no DICOM",
            "/b/by_ending/1.DCM": b"",
            "/b/by_ending/notes.txt": b"",
            "/b/by_mark/IM0001": marked,
            "/b/by_uid/1.2.840.113619.2": marked,
            "/b/with_image/1.dcm": b"",
            "/b/with_image/a.mha": b"",
            "/b/other/DATA": b"nonsense",
        }
    )
    assert paths(list_scans(["memory://b"])) == [
        f"memory://b/{name}" for name in ("by_ending", "by_mark", "by_uid", "with_image/a.mha")
    ]
    assert paths(list_scans(["memory://b/by_mark"])) == ["memory://b/by_mark"]


def test_a_table_at_an_address_gives_paths_beside_it_addresses_and_local_paths(memory):
    memory.pipe("/b/lists/scans.csv", b"path,age,sex\na.mha,41,F\n../c/d.mha,,\ns3://x/y.mha,,\n/data/z.mha,,\n")
    assert list_scans(["memory://b/lists/scans.csv"], age=65) == [
        Scan("memory://b/lists/a.mha", 41.0, "F"),
        Scan("memory://b/c/d.mha", 65),
        Scan("s3://x/y.mha", 65),
        Scan(Path("/data/z.mha"), 65),
    ]


def test_a_table_here_may_hold_addresses(tmp_path):
    table = tmp_path / "scans.csv"
    table.write_text("path\na.mha\ns3://bucket/b.mha\n")
    assert paths(list_scans([table])) == [tmp_path / "a.mha", "s3://bucket/b.mha"]


def test_a_missing_address_and_one_without_scans_are_named(memory):
    memory.pipe("/empty/notes.txt", b"")
    for missing in ("memory://nowhere", "memory://nowhere/a.mha", "memory://nowhere/scans.csv"):
        with pytest.raises(InputError, match=f"no such file or folder: {missing}"):
            list_scans([missing])
    with pytest.raises(InputError, match="no scan in memory://empty"):
        list_scans(["memory://empty"])
