"""Which scans a command line means."""

from pathlib import Path

import pytest

from balaitous.cohort.addresses import local_copy
from balaitous.cohort.items import Item, list_items
from balaitous.ct.volume import read_ct
from balaitous.errors import InputError
from balaitous.reading.dicom.studies import Origin
from balaitous.reading.patient import Patient, resolve
from helpers.dicom import hu_volume, write_series
from helpers.rows import SEVERITY

OTHER = "1.2.840.10008.5.1.4.1.1.88.67"  # X-Ray Radiation Dose SR Storage: no image


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
    same = {"StudyInstanceUID": "1.2.3", "FrameOfReferenceUID": "1.2.4"}
    for series in ("s1", "s2"):
        write_series(tmp_path / series, hu_volume((2, 3, 4)), **same)
    localizer = {"StudyInstanceUID": "1.2.3", "ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}
    write_series(tmp_path / "scout", hu_volume((1, 3, 4)), **localizer)
    write_series(tmp_path / "report", hu_volume((1, 3, 4)), StudyInstanceUID="1.2.3", SOPClassUID=OTHER, Modality="SR")
    assert paths(list_items([tmp_path], SEVERITY)) == [tmp_path]


def test_a_series_in_several_folders_is_one_scan(tmp_path):
    files = write_series(tmp_path / "a", hu_volume((4, 3, 4)), StudyInstanceUID=None)
    (tmp_path / "b").mkdir()
    for file in files[2:]:
        file.rename(tmp_path / "b" / file.name)
    assert paths(list_items([tmp_path], SEVERITY)) == [tmp_path]


@pytest.mark.parametrize(
    "tags",
    [
        {"StudyInstanceUID": "1.2.3"},
        {"StudyInstanceUID": None},
        {"StudyInstanceUID": "1.2.3", "FrameOfReferenceUID": "1.2.4", "PatientID": "{patient}"},
        {"StudyInstanceUID": "1.2.3", "FrameOfReferenceUID": "1.2.4.{patient}"},
        {"StudyInstanceUID": "1.2.3.{patient}", "FrameOfReferenceUID": "1.2.4", "PatientID": "ANON"},
    ],
)
def test_patients_whose_studies_an_anonymiser_left_one_number_are_a_scan_each(tmp_path, tags):
    for patient in ("1", "2"):
        own = {name: value and value.format(patient=patient) for name, value in tags.items()}
        write_series(tmp_path / f"cohort/P{patient}/series", hu_volume((2, 3, 4)), **own)
    found = paths(list_items([tmp_path / "cohort"], SEVERITY))
    assert [Path(each).relative_to(tmp_path).parts[1] for each in found] == ["P1", "P2"]


def test_folders_that_name_one_study_and_are_a_scan_each_are_told(tmp_path, caplog):
    for name in ("a_soft", "b_sharp"):
        write_series(tmp_path / "study" / name, hu_volume((2, 3, 4)), StudyInstanceUID="1.2.3")
    for name in (".", "thin"):
        write_series(tmp_path / "own" / name, hu_volume((2, 3, 4)), StudyInstanceUID="1.2.4")
    found = paths(list_items([tmp_path], SEVERITY))
    assert found == [tmp_path / "own", tmp_path / "study/a_soft", tmp_path / "study/b_sharp"]
    (said,) = caplog.messages
    assert "a scan each, as they name one study" in said
    assert "study/a_soft, study/b_sharp" in said


@pytest.mark.parametrize("tag", ["StudyInstanceUID", "SeriesInstanceUID", "SOPClassUID", "PatientID"])
@pytest.mark.parametrize("value", ["", None])
def test_a_series_without_an_identifier_is_a_scan(tmp_path, tag, value):
    write_series(tmp_path / "a", hu_volume((2, 3, 4)), **{"StudyInstanceUID": "1.2.3", tag: value})
    assert paths(list_items([tmp_path], SEVERITY)) == [tmp_path]


def test_dicom_without_a_preamble_is_a_scan(tmp_path):
    for file in write_series(tmp_path / "a", hu_volume((2, 3, 4)), StudyInstanceUID="1.2.3"):
        file.write_bytes(file.read_bytes()[132:])
    assert paths(list_items([tmp_path], SEVERITY)) == [tmp_path]


def test_image_files_beside_a_dicom_series_are_scans_and_so_is_the_series(tmp_path):
    same = {"StudyInstanceUID": "1.2.3", "FrameOfReferenceUID": "1.2.4"}
    write_series(tmp_path / "flat", hu_volume((2, 3, 4)), StudyInstanceUID="1.1")
    write_series(tmp_path / "study/s1", hu_volume((2, 3, 4)), **same)
    write_series(tmp_path / "study/s2", hu_volume((2, 3, 4)), **same)
    touch(*(tmp_path / name for name in ("flat/mask.nii.gz", "flat/seg/b.mha", "study/a.nrrd", "a.mha")))
    assert paths(list_items([tmp_path], SEVERITY)) == [
        tmp_path / name for name in ("a.mha", "flat", "flat/mask.nii.gz", "flat/seg/b.mha", "study", "study/a.nrrd")
    ]
    assert paths(list_items([tmp_path / "flat"], SEVERITY))[0] == tmp_path / "flat"


def test_a_structure_set_beside_an_image_file_is_no_scan(tmp_path):
    touch(tmp_path / "a.mha")
    write_series(tmp_path, hu_volume((1, 3, 4)), StudyInstanceUID="1.2.3", SOPClassUID=OTHER, Modality="RTSTRUCT")
    assert paths(list_items([tmp_path], SEVERITY)) == [tmp_path / "a.mha"]


def test_studies_in_one_folder_are_an_item_that_is_refused_and_those_below_it_are_scans(tmp_path):
    for study in ("1", "2"):
        write_series(tmp_path / "flat", hu_volume((2, 3, 4)), prefix=study, StudyInstanceUID=f"1.2.{study}")
    write_series(tmp_path / "nested", hu_volume((2, 3, 4)), StudyInstanceUID="1.3.1")
    write_series(tmp_path / "nested/other", hu_volume((2, 3, 4)), StudyInstanceUID="1.3.2")
    found = paths(list_items([tmp_path], SEVERITY))
    assert found == [tmp_path / name for name in ("flat", "nested", "nested/other")]
    for each in found[:2]:
        with pytest.raises(InputError, match="expected one study of one patient, found several"):
            read_ct(each)
    assert read_ct(found[2]).series_uid


def test_a_cd_is_listed_by_its_studies_whatever_the_size_of_its_directory(tmp_path):
    for patient in ("1", "2"):
        series = tmp_path / f"DICOM/PAT{patient}/STU/SER"
        for file in write_series(series, hu_volume((2, 3, 4)), StudyInstanceUID=f"1.2.{patient}"):
            file.rename(series / f"IM_{file.stem[-3:]}")
    (tmp_path / "DICOMDIR").write_bytes(bytes(128) + b"DICM" + bytes(3 * 2**20))
    found = paths(list_items([tmp_path], SEVERITY))
    assert found == [tmp_path / f"DICOM/PAT{patient}" for patient in ("1", "2")]
    (tmp_path / "DICOMDIR").rename(tmp_path / "DICOM/PAT1/DICOMDIR")
    assert [read_ct(each).hu.shape for each in found] == [(2, 3, 4)] * 2


LITTER = ("._a.mha", ".DS_Store", "Thumbs.db", "__MACOSX/._b.mha", "__MACOSX/c.mha", ".Trash/d.mha", "series/._x.dcm")


def test_what_systems_leave_beside_scans_is_no_scan_here_nor_at_an_address(memory, tmp_path):
    write_series(tmp_path / "top/series", hu_volume((2, 3, 4)), StudyInstanceUID="1.2.3")
    touch(*(tmp_path / "top" / name for name in ("b.mha", *LITTER)))
    expected = ["b.mha", "series"]
    assert paths(list_items([tmp_path / "top"], SEVERITY)) == [tmp_path / "top" / name for name in expected]
    memory.put(str(tmp_path / "top"), "/bucket", recursive=True)
    assert paths(list_items(["memory://bucket"], SEVERITY)) == [f"memory://bucket/{name}" for name in expected]
    with local_copy("memory://bucket") as local:
        assert sorted(each.name for each in local.iterdir()) == ["b.mha", "series"]
    assert paths(list_items([tmp_path / "top/._a.mha"], SEVERITY)) == [tmp_path / "top/._a.mha"]  # it was asked for


def test_large_cohorts_are_listed_without_looking_at_every_pair_of_folders(tmp_path, monkeypatch):
    count = 300
    compared = []
    monkeypatch.setattr(Origin, "contradicts", lambda one, other: compared.append(1) or one.study != other.study)
    monkeypatch.setattr(
        "balaitous.reading.dicom.studies.origin_in", lambda files: Origin(b"", str(files[0]).encode(), b"", b"")
    )
    for number in range(count):
        touch(tmp_path / f"{number:03d}" / "slice")
    assert len(list_items([tmp_path], SEVERITY)) == count
    assert len(compared) < 5 * count


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


@pytest.mark.parametrize("head", ["path,age,sex", "path, age, sex", "Path,Age,Sex", "FILE ,age,gender"])
@pytest.mark.parametrize(("age", "sex"), [("20", "F"), ("020Y", "female"), (" 20.0", " f "), ("240M", "W")])
def test_age_and_sex_of_a_table_are_taken_however_they_are_written(tmp_path, caplog, head, age, sex):
    (tmp_path / "scans.csv").write_text(f"{head}\na.mha,{age},{sex}\n")
    (item,) = list_items([tmp_path / "scans.csv"], SEVERITY, {"age": 65, "sex": "M"})
    assert resolve(Patient(), **item.given) == Patient(20.0, "argument", 0.0, "argument")
    assert not caplog.text


@pytest.mark.parametrize("age", ["", "n/a", "000Y", "000D", "0", "nan"])
@pytest.mark.parametrize("sex", ["", "unknown", "NA"])
def test_unknown_age_and_sex_of_a_table_are_not_given(tmp_path, caplog, age, sex):
    (tmp_path / "scans.csv").write_text(f"path,age,sex\na.mha,{age},{sex}\n")
    assert list_items([tmp_path / "scans.csv"], SEVERITY) == [Item(tmp_path / "a.mha")]
    assert ("line 2: an age of 0 counts as unknown" in caplog.text) == age.startswith("0")


def test_columns_of_a_table_that_are_not_used_are_named(tmp_path, caplog):
    (tmp_path / "scans.csv").write_text("path,Alter,Geschlecht,label\na.mha,20,F,1\n")
    list_items([tmp_path / "scans.csv"], SEVERITY)
    assert "columns that are not used: Alter, Geschlecht (known: path, age, sex, series)" in caplog.text


def test_lines_of_a_table_that_hold_nothing_are_left_out_with_a_word(tmp_path, caplog):
    (tmp_path / "scans.csv").write_text("path,age,sex\na.mha,,\n,,\n\nb.mha,,\n")
    assert paths(list_items([tmp_path / "scans.csv"], SEVERITY)) == [tmp_path / "a.mha", tmp_path / "b.mha"]
    assert "lines that hold nothing are left out: 3" in caplog.text


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("scan\na.mha\n", "has no column 'path'"),
        ("path,file\na.mha,b.mha\n", "several columns for path"),
        ("path,age\na.mha,old\n", "line 2: .*age"),
        ("path,sex\na.mha,X\n", "line 2: sex must be"),
        ("", "not a readable CSV"),
        ("path,age\na.mha,20\n,30\n", "line 3: expected the path of a scan, found none"),
        ("path,age\na.mha,20,5\n", "line 2: expected 2 fields"),
        ("path;age\na.mha;20\n", "line 1: expected commas .* found semicolons"),
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
            "/b/DICOMDIR": marked,
        }
    )
    assert paths(list_items(["memory://b"], SEVERITY)) == [
        f"memory://b/{name}" for name in ("by_ending", "by_mark", "by_uid", "with_image", "with_image/a.mha")
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


def test_a_name_that_a_table_of_ours_made_harmless_is_read_back(tmp_path):
    (tmp_path / "=1+1.mha").write_bytes(b"")
    (tmp_path / "list.csv").write_text("path\n'=1+1.mha\n")
    assert paths(list_items([tmp_path / "list.csv"], SEVERITY)) == [tmp_path / "=1+1.mha"]
