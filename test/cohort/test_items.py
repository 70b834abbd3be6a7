"""Which scans a command line means."""

from pathlib import Path

import pytest

from balaitous.cohort.items import Item, list_items
from balaitous.errors import InputError
from helpers.dicom import hu_volume, write_series
from helpers.rows import SEVERITY


def touch(*files: Path) -> None:
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()


def paths(scans: list[Item]) -> list[Path | str]:
    return [scan.path for scan in scans]


def test_a_file_is_a_scan_with_the_age_and_sex_given(tmp_path):
    touch(tmp_path / "a.mha")
    assert list_items([tmp_path / "a.mha"], SEVERITY, {"age": 50, "sex": "F"}) == [
        Item(tmp_path / "a.mha", {"age": 50, "sex": "F"})
    ]


def test_a_folder_gives_its_image_files_by_name_and_nothing_else(tmp_path):
    touch(*(tmp_path / name for name in ("b.nii.gz", "a.MHA", "sub/c.nrrd", "notes.txt", "z.zip", "a.raw")))
    assert paths(list_items([tmp_path], SEVERITY)) == [
        tmp_path / name for name in ("a.MHA", "b.nii.gz", "sub/c.nrrd", "z.zip")
    ]


def test_a_dicom_study_is_one_scan_however_its_series_are_filed(tmp_path):
    for series in ("s1", "s2"):
        write_series(tmp_path / series, hu_volume((2, 3, 4)), StudyInstanceUID="1.2.3")
    assert paths(list_items([tmp_path], SEVERITY)) == [tmp_path]


def test_dicom_studies_in_folders_are_a_scan_each(tmp_path):
    for study in ("p1", "p2"):
        write_series(tmp_path / study / "series", hu_volume((2, 3, 4)), StudyInstanceUID=f"1.2.{study[-1]}")
    touch(tmp_path / "p3.mha")
    assert paths(list_items([tmp_path], SEVERITY)) == [tmp_path / name for name in ("p1", "p2", "p3.mha")]


def test_a_table_gives_paths_beside_it_with_age_and_sex(tmp_path):
    touch(tmp_path / "a.mha", tmp_path / "b.mha")
    table = tmp_path / "scans.csv"
    table.write_text("path,age,sex\na.mha,41,F\nb.mha,,\n")
    assert list_items([table], SEVERITY, {"age": 65, "sex": "M"}) == [
        Item(tmp_path / "a.mha", {"age": 41.0, "sex": "F"}),
        Item(tmp_path / "b.mha", {"age": 65, "sex": "M"}),
    ]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("scan\na.mha\n", "has no column 'path'"),
        ("path,file\na.mha,b.mha\n", "several columns for path"),
        ("path,age\na.mha,old\n", "line 2: .*age"),
        ("path,sex\na.mha,X\n", "line 2: sex must be"),
        ("", "not a readable CSV"),
    ],
)
def test_a_table_that_cannot_be_used_says_why(tmp_path, content, reason):
    table = tmp_path / "scans.csv"
    table.write_text(content)
    with pytest.raises(InputError, match=reason):
        list_items([table], SEVERITY)


def test_a_missing_path_and_an_empty_folder_are_named(tmp_path):
    with pytest.raises(InputError, match=r"no such file or folder: .*nowhere"):
        list_items([tmp_path / "nowhere"], SEVERITY)
    with pytest.raises(InputError, match="no scan in"):
        list_items([tmp_path], SEVERITY)


def test_an_address_of_a_file_stays_an_address(memory):
    memory.pipe("/bucket/a.mha", b"")
    assert list_items(["memory://bucket/a.mha"], SEVERITY, {"age": 50}) == [Item("memory://bucket/a.mha", {"age": 50})]


def test_a_folder_at_an_address_gives_the_scans_that_the_same_folder_gives_here(memory, tmp_path):
    touch(*(tmp_path / "top" / name for name in ("b.nii.gz", "a.MHA", "sub/c.nrrd", "notes.txt", "z.zip", "a.raw")))
    write_series(tmp_path / "top/study/series", hu_volume((2, 3, 4)), StudyInstanceUID="1.2.3")
    memory.put(str(tmp_path / "top"), "/bucket", recursive=True)
    here = [each.relative_to(tmp_path / "top").as_posix() for each in paths(list_items([tmp_path / "top"], SEVERITY))]
    assert here == ["a.MHA", "b.nii.gz", "study", "sub/c.nrrd", "z.zip"]
    here[2] = "study/series"  # headers are not opened over a network
    for address in ("memory://bucket", "memory://bucket/"):
        assert paths(list_items([address], SEVERITY)) == [f"memory://bucket/{name}" for name in here]
    assert paths(list_items([f"file://{tmp_path}/top"], SEVERITY)) == [f"file://{tmp_path}/top/{name}" for name in here]


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
    assert paths(list_items(["memory://b"], SEVERITY)) == [
        f"memory://b/{name}" for name in ("by_ending", "by_mark", "by_uid", "with_image/a.mha")
    ]
    assert paths(list_items(["memory://b/by_mark"], SEVERITY)) == ["memory://b/by_mark"]


def test_a_table_at_an_address_gives_paths_beside_it_addresses_and_local_paths(memory):
    memory.pipe("/b/lists/scans.csv", b"path,age,sex\na.mha,41,F\n../c/d.mha,,\ns3://x/y.mha,,\n/data/z.mha,,\n")
    assert list_items(["memory://b/lists/scans.csv"], SEVERITY, {"age": 65}) == [
        Item("memory://b/lists/a.mha", {"age": 41.0, "sex": "F"}),
        Item("memory://b/c/d.mha", {"age": 65}),
        Item("s3://x/y.mha", {"age": 65}),
        Item(Path("/data/z.mha"), {"age": 65}),
    ]


def test_a_table_here_may_hold_addresses(tmp_path):
    table = tmp_path / "scans.csv"
    table.write_text("path\na.mha\ns3://bucket/b.mha\n")
    assert paths(list_items([table], SEVERITY)) == [tmp_path / "a.mha", "s3://bucket/b.mha"]


def test_a_missing_address_and_one_without_scans_are_named(memory):
    memory.pipe("/empty/notes.txt", b"")
    for missing in ("memory://nowhere", "memory://nowhere/a.mha", "memory://nowhere/scans.csv"):
        with pytest.raises(InputError, match=f"no such file or folder: {missing}"):
            list_items([missing], SEVERITY)
    with pytest.raises(InputError, match="no scan in memory://empty"):
        list_items(["memory://empty"], SEVERITY)
