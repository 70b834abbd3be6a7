"""A zip of pictures is a folder of them; a zip of anything else stays what it was."""

import csv
import zipfile
from pathlib import Path

import pytest

from balaitous.cohort.items import list_items
from balaitous.cohort.zips import split_at_zip
from balaitous.models import MODELS
from helpers import PHANTOM
from helpers.commands import run_command
from helpers.slices import write_phantom_slice, write_slices_bundle

pytestmark = pytest.mark.usefixtures("logging_as_it_was")


@pytest.fixture
def archive(tmp_path) -> Path:
    one, other = (write_phantom_slice(tmp_path / f"slice_{index}.png", index) for index in (30, 34))
    with zipfile.ZipFile(tmp_path / "slices.zip", "w") as file:
        file.write(other, "ward/b.png")
        file.write(one, "a.png")
        file.writestr("ward/notes.txt", "nothing")
        file.writestr("__MACOSX/._a.png", "nothing")
    return tmp_path / "slices.zip"


def test_pictures_in_a_zip_are_items_by_name_for_models_that_read_pictures(archive):
    slices, severity = MODELS["slices"], MODELS["severity"]
    assert [item.path for item in list_items([archive], slices)] == [archive / "a.png", archive / "ward/b.png"]
    assert [item.name for item in list_items([archive], slices)] == ["a", "b"]
    assert [item.path for item in list_items([archive], severity)] == [archive]
    assert split_at_zip(archive / "ward/b.png") == (archive, "ward/b.png")
    assert split_at_zip(archive) is None
    assert split_at_zip(PHANTOM) is None


def test_what_is_no_zip_of_pictures_stays_an_item(tmp_path):
    with zipfile.ZipFile(tmp_path / "empty.zip", "w"):
        pass
    (tmp_path / "damaged.zip").write_bytes(b"PK no zip")
    for name in ("empty.zip", "damaged.zip"):
        assert [item.path for item in list_items([tmp_path / name], MODELS["slices"])] == [tmp_path / name]


def test_the_command_predicts_a_zip_a_row_a_picture_and_goes_on(archive, tmp_path, capsys):
    bundle = write_slices_bundle(tmp_path / "bundle")
    table = tmp_path / "table.csv"
    words = ("predict", archive, "--model", "slices", "--weights", bundle, "--out", table)
    assert run_command(*words) == 0
    with table.open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["PatientID"], row["path"]) for row in rows] == [
        ("a", str(archive / "a.png")),
        ("b", str(archive / "ward/b.png")),
    ]
    assert run_command(*words, "--resume") == 0
    assert "2 done before" in capsys.readouterr().err
    # the same picture outside of the zip has the same content, and so the same answer
    assert run_command("predict", tmp_path / "slice_30.png", "--model", "slices", "--weights", bundle) == 0


def test_an_empty_zip_and_a_hostile_one_end_in_one_line(tmp_path, capsys):
    bundle = write_slices_bundle(tmp_path / "bundle")
    with zipfile.ZipFile(tmp_path / "empty.zip", "w"):
        pass
    with zipfile.ZipFile(tmp_path / "hostile.zip", "w") as file:
        file.writestr("../outside.png", "x")
    for name in ("empty.zip", "hostile.zip"):
        assert run_command("predict", tmp_path / name, "--model", "slices", "--weights", bundle) == 3
        assert capsys.readouterr().err.count("ERROR") == 1
