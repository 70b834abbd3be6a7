"""What --save writes: a folder an item, whole or not at all, by the names of a list, and nobody else's files."""

import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from balaitous.cohort.items import Item
from balaitous.cohort.saving import PAGE, RECORD, SavedFolders, names_like
from balaitous.cohort.table import columns_of, read_table
from balaitous.models import MODELS
from helpers.commands import run_command
from helpers.toy import TOY, write_toy_bundle

pytestmark = pytest.mark.usefixtures("logging_as_it_was")

COLUMNS = columns_of(TOY)


@pytest.fixture
def place(monkeypatch, tmp_path) -> Path:
    """Where the toy is known, with four pictures, two of one name and one that is none."""
    monkeypatch.setitem(MODELS, TOY.name, TOY)
    monkeypatch.setenv("BALAITOUS_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("BALAITOUS_WEIGHTS", raising=False)
    write_toy_bundle(tmp_path / "cache/toy")
    for seed, name in enumerate(("a/grey.png", "b/grey.png", "b/Grey.tif", "b/last.png")):
        write_picture(tmp_path / "in" / name, seed)
    (tmp_path / "in/b/broken.png").write_text("no picture")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_picture(path, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (32, 40), np.uint8)).save(
        path, "TIFF" if path.suffix == ".tif" else "PNG"
    )


def predict(*options):
    return run_command("predict", *options, "--model", "toy")


def saved_by_path(table="t.csv"):
    return {row["path"]: row["saved"] for row in read_table(Path(table), COLUMNS)}


def files_below(folder):
    return {str(each.relative_to(folder)): each.read_bytes() for each in sorted(folder.rglob("*")) if each.is_file()}


def test_each_item_gets_a_folder_in_the_order_of_the_list_and_a_page_lists_all(place):
    assert predict("in", "--out", "t.csv", "--save", "out", "--workers", "2") == 5
    assert saved_by_path() == {
        "in/a/grey.png": "out/grey",
        "in/b/Grey.tif": "out/Grey_2",
        "in/b/broken.png": None,
        "in/b/grey.png": "out/grey_3",
        "in/b/last.png": "out/last",
    }
    assert sorted(os.listdir("out")) == ["Grey_2", "grey", "grey_3", "index.html", "last"]
    assert sorted(os.listdir("out/grey")) == [RECORD, "grey.png", PAGE]
    case = Path("out/grey/index.html").read_text()
    assert case.count("Research use only. Not a medical device") == 1, "the bundle's words are those of the page"
    page = Path("out/index.html").read_text()
    assert re.findall(r'href="([^"]+)">[^<]', page) == [
        f"{name}/{PAGE}" for name in ("grey", "Grey_2", "grey_3", "last")
    ]
    assert "5 cases, 1 of them failed" in page
    assert "failed: in/b/broken.png: expected PNG" in page
    assert page.count("data:image/jpeg") == 4


def test_several_workers_save_what_one_does(place):
    for workers in "12":
        predict("in", "--save", f"out{workers}", "--workers", workers)
    one, two = (files_below(place / f"out{workers}") for workers in "12")
    assert one.keys() == two.keys()
    assert all(one[name] == two[name] for name in one if not name.endswith(PAGE))


@pytest.mark.parametrize("harm", ["gone", "a file gone", "a file cut", "of another input", "no record"])
def test_a_row_counts_as_done_only_if_its_folder_is_whole(place, capsys, harm):
    predict("in", "--out", "t.csv", "--save", "out")
    before = files_below(Path("out"))
    match harm:
        case "gone":
            shutil.rmtree("out/grey")
        case "a file gone":
            Path("out/grey/grey.png").unlink()
        case "a file cut":
            os.truncate("out/grey/grey.png", 20)
        case "no record":
            shutil.rmtree("out/grey")
            Path("out/.grey.0123abcd.partial").mkdir()
            Path("out/.grey.0123abcd.partial/grey.png").write_bytes(b"half")
        case "of another input":
            record = json.loads(Path("out/grey", RECORD).read_text()) | {"input_sha256": "0"}
            Path("out/grey", RECORD).write_text(json.dumps(record))
    capsys.readouterr()
    assert predict("in", "--out", "t.csv", "--save", "out", "--resume") == 5
    assert "5 scans: 1 done, 3 done before, 1 failed" in capsys.readouterr().err
    assert files_below(Path("out")).keys() == before.keys()
    assert saved_by_path()["in/a/grey.png"] == "out/grey"


def test_resume_keeps_names_and_gives_new_items_the_next(place, capsys):
    predict("in/b", "--out", "t.csv", "--save", "out")
    assert saved_by_path()["in/b/grey.png"] == "out/grey_2"
    Path("out").rename("moved")
    capsys.readouterr()
    predict("in", "--out", "t.csv", "--save", "moved", "--resume")
    assert "5 scans: 1 done, 3 done before" in capsys.readouterr().err
    assert saved_by_path() == {
        "in/a/grey.png": "moved/grey_3",
        "in/b/Grey.tif": "moved/Grey",
        "in/b/broken.png": None,
        "in/b/grey.png": "moved/grey_2",
        "in/b/last.png": "moved/last",
    }


def test_a_table_without_folders_gets_them_and_a_changed_picture_a_new_one(place, capsys):
    predict("in", "--out", "t.csv")
    predict("in", "--out", "t.csv", "--save", "out", "--resume")
    assert "4 done, 1 failed" in capsys.readouterr().err
    write_picture(place / "in/b/last.png", 9)
    old = Path("out/last/grey.png").read_bytes()
    predict("in", "--out", "t.csv", "--save", "out", "--resume")
    assert "1 done, 3 done before" in capsys.readouterr().err
    assert Path("out/last/grey.png").read_bytes() != old
    assert sorted(os.listdir("out")) == ["Grey_2", "grey", "grey_3", "index.html", "last"]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--save", "full"), r"--save must be an empty folder.*Found full/theirs\.txt"),
        (("--save", "saved"), r"saved holds 4 saved cases already\. Add --resume"),
        (("--save", "in/out"), r"apart from what is read.*Got in/out for in"),
        (("--save", "."), r"apart from what is read"),
        (("--save", "t.csv"), r"--save must be a folder\. Got t\.csv, which is a file"),
        (("--save", "no/where"), r"--save must lie in an existing folder"),
        (("--save", "new", "--engine", "ray"), r"--save is for --engine local"),
        (("--compare", "toy"), r"--compare needs --save"),
    ],
)
def test_a_folder_that_is_no_place_for_it_is_refused_before_anything_is_done(place, capsys, options, says):
    Path("full").mkdir()
    Path("full/theirs.txt").write_text("theirs")
    predict("in", "--out", "t.csv", "--save", "saved")
    before = files_below(place)
    assert predict("in", *options) == 2
    assert re.search(says, capsys.readouterr().err)
    assert files_below(place) == before


def test_a_page_of_others_is_not_overwritten_and_own_tables_may_lie_there(place, capsys):
    Path("out").mkdir()
    Path("out/index.html").write_text("<title>theirs</title>")
    assert predict("in", "--save", "out") == 2
    Path("out/index.html").unlink()
    options = ("in", "--save", "out", "--out", "out/t.csv", "--report", "out/run.json")
    assert predict(*options) == 5
    assert predict(*options, "--resume") == 5
    assert "4 done before" in capsys.readouterr().err


def test_a_model_that_shows_nothing_says_so(place, capsys):
    assert run_command("predict", "in", "--model", "severity", "--save", "out") == 2
    assert "--save is not for the model severity, which shows nothing yet" in capsys.readouterr().err
    assert not Path("out").exists()


def test_a_folder_that_cannot_be_written_fails_its_item_alone_and_leaves_no_half(place, monkeypatch, capsys):
    from helpers import toy

    real = toy.save

    def full(prediction, folder, beside=None):
        shown = real(prediction, folder, beside)
        if prediction.path.endswith("last.png"):
            raise OSError(28, "No space left on device")
        return shown

    monkeypatch.setattr(toy, "save", full)
    assert predict("in", "--out", "t.csv", "--save", "out") == 5
    assert sorted(os.listdir("out")) == ["Grey_2", "grey", "grey_3", "index.html"]
    errors = {row["PatientID"]: row["error"] for row in read_table(Path("t.csv"), COLUMNS) if row["error"]}
    assert re.search(r"No space left on device: '.*out/last'", errors["last"])


def test_two_runs_do_not_write_into_one_folder(place):
    first = SavedFolders(place / "out", TOY)
    with pytest.raises(ValueError, match="expected to be the only run that writes there"):
        SavedFolders(place / "out", TOY)
    first.finish([])
    SavedFolders(place / "out", TOY).finish([])


@pytest.mark.parametrize("name", ["", ".", "..", ".lock", ".hidden", "é" * 200, "a" * 250])
def test_no_name_leads_out_of_the_folder_or_is_too_long_for_one(tmp_path, name):
    for made, _ in zip(names_like(name), range(3), strict=False):
        folder = tmp_path / f".{made}.01234567.partial"
        folder.mkdir()
        assert folder.parent == tmp_path
        assert Path(made).name == made
        assert not made.startswith(".")


def test_an_item_called_like_the_page_gets_another_folder(place, tmp_path):
    write_picture(place / "in/b/index.html.png")
    predict("in", "--out", "t.csv", "--save", "out")
    assert saved_by_path()["in/b/index.html.png"] == "out/index.html_2"
    assert Item(Path("...png")).name == ".."
    write_picture(place / "in/b/...png")
    predict("in/b/...png", "--out", "t2.csv", "--save", "out2")
    assert saved_by_path("t2.csv")["in/b/...png"] == "out2/_.."
