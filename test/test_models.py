"""The table of models drives command, tables, bundles and clusters: a row more, and a model runs everywhere."""

from __future__ import annotations

import csv
import importlib
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from balaitous.cohort.items import KINDS, list_items
from balaitous.cohort.table import TYPES, columns_of, read_table
from balaitous.errors import WeightsError
from balaitous.models import MODELS, Model, Settings, find_model, imported, load_model
from balaitous.weights.search import find_bundle
from helpers import ROOT
from helpers.commands import run_command, run_python
from helpers.toy import TOY, write_toy_bundle

pytestmark = pytest.mark.usefixtures("logging_as_it_was")

COLUMNS = columns_of(TOY)
ROWS = [*MODELS.values(), TOY]


@pytest.fixture
def pictures(tmp_path) -> Path:
    """Three pictures of known grey, one file that is none, and one that is no picture."""
    folder = tmp_path / "pictures"
    (folder / "deep").mkdir(parents=True)
    for name, grey in (("dark.png", 0), ("grey.jpg", 128), ("deep/white.tif", 255)):
        noise = np.random.default_rng(0).integers(0, 2, (32, 40))
        Image.fromarray((abs(grey - 40 * noise)).astype(np.uint8)).save(folder / name)
    (folder / "broken.png").write_text("no picture")
    (folder / "notes.txt").write_text("not read")
    return folder


def grey_of(name: str) -> float:
    noise = np.random.default_rng(0).integers(0, 2, (32, 40))
    return float(abs({"dark": 0, "grey": 128, "white": 255}[name] - 40 * noise).mean() / 255)


# --- the rows ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_a_row_names_only_what_there_is(row):
    assert set(row.reads) <= set(KINDS)
    assert set(row.columns.values()) <= set(TYPES)
    assert row == imported(row.where).MODEL
    if row.preparing:
        importlib.import_module(row.preparing)
    for where in filter(None, (row.quantizing, row.limits, row.same_request, row.published, row.checking, row.saving)):
        assert imported(where) is not None
    assert set(row.counted.values()) <= set(row.columns)
    assert bool(row.counted) == bool(row.grouped_by)
    assert all((row.title, row.outputs, row.bundles, row.citation, row.good_for))
    empty = dict.fromkeys(columns_of(row), 0.5)
    assert all(form.format_map(empty) for form in row.shown.values())


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_a_row_survives_json_and_no_column_is_there_twice(row):
    assert Model.from_dict(json.loads(json.dumps(row.to_dict()))) == row
    names = [*columns_of(row)]
    assert len(names) == len(row.outputs) + len(row.columns) + 4 + 17
    assert names[:2] == ["PatientID", "path"]
    assert names[2 : len(row.outputs) + 4] == [*(f"probability_{output}" for output in row.outputs), "status", "error"]


def test_the_table_imports_nothing_heavy():
    script = "import sys, balaitous.models; print(sorted({'torch', 'numpy', 'SimpleITK', 'pandas'} & set(sys.modules)))"
    assert run_python("-c", script).stdout.strip() == "[]"


def test_an_unknown_model_is_refused_with_those_there_are():
    with pytest.raises(ValueError, match=r"model must be one of severity.*Got 'toy' instead"):
        find_model("toy")


# --- the toy ----------------------------------------------------------------------------------------------------------


def test_a_model_of_one_row_predicts_resumes_reports_and_is_shown(toy, pictures, tmp_path, capsys):
    table, report = tmp_path / "table.csv", tmp_path / "report.json"
    assert run_command("predict", pictures, "--model", "toy", "--out", table, "--report", report) == 5
    said = capsys.readouterr()
    assert "[1/4] broken: failed" in said.err
    assert "dark: bright 0.0" in said.err
    assert "mean grey" in said.out
    rows = read_table(table, COLUMNS)
    assert {row["PatientID"]: row["status"] for row in rows} == {
        **{"broken": "failed", "dark": "ok"},
        **{"grey": "ok", "white": "ok"},
    }
    for row in rows:
        if row["status"] == "ok":
            assert row["mean_grey"] == pytest.approx(grey_of(row["PatientID"]), abs=0.01)
            assert row["probability_bright"] == pytest.approx(0.5 * row["mean_grey"])
            assert (row["bundle"], row["quality"], row["rows"]) == ("toy", "ok", 32)
    told = json.loads(report.read_text())
    assert (told["model"], told["bundle"]["licence"]) == ("toy", "MIT")
    assert [check["name"] for check in told["scans"][1]["checks"]] == ["contrast"]

    Image.fromarray(np.tile(np.arange(40, dtype=np.uint8), (32, 1))).save(pictures / "broken.png")
    assert run_command("predict", pictures, "--model", "toy", "--out", table, "--resume") == 0
    assert "4 scans: 1 done, 3 done before" in capsys.readouterr().err
    assert Counter(row["status"] for row in read_table(table, COLUMNS)) == {"ok": 4}


def test_several_workers_give_the_rows_of_one_and_predictions_are_kept(toy, pictures):
    from balaitous.cohort.local import predict_items

    items, kept = list_items([pictures], TOY), []
    model = load_model(TOY, Settings())
    alone = list(predict_items(model, items))
    assert list(predict_items(model, items, workers=2, keep=kept.append)) == alone
    assert sorted(Path(each.path).stem for each in kept) == ["dark", "grey", "white"]


def test_what_cannot_be_kept_fails_its_item(toy, pictures):
    from balaitous.cohort.local import predict_items

    def full(_):
        raise OSError(28, "No space left on device")

    rows = list(predict_items(load_model(TOY, Settings()), list_items([pictures / "dark.png"], TOY), keep=full))
    assert (rows[0]["status"], rows[0]["error_kind"]) == ("failed", "OSError")


def test_a_list_gives_facts_that_the_model_takes_and_names_what_is_not_used(toy, pictures, tmp_path, caplog):
    table = tmp_path / "films.csv"
    table.write_text(" File ,Gain,patient,bright,view\npictures/dark.png,2,p1,0,PA\n")
    (item,) = list_items([table], TOY)
    assert (item.path, item.given) == (tmp_path / "pictures/dark.png", {"gain": "2"})
    assert "films.csv: columns that are not used: view (known: path, gain)" in caplog.text
    out = tmp_path / "table.csv"
    assert run_command("predict", table, "--model", "toy", "--out", out) == 0
    (row,) = csv.DictReader(out.open())
    assert float(row["probability_bright"]) == pytest.approx(float(row["mean_grey"]))


@pytest.mark.parametrize("option", [("--age", "65"), ("--sex", "M"), ("--series", "1.2")])
def test_a_fact_that_a_model_does_not_take_is_refused(toy, pictures, capsys, option):
    assert run_command("predict", pictures, "--model", "toy", *option) == 2
    assert f"{option[0]} is not for the model toy, which takes --gain" in capsys.readouterr().err


def test_an_answer_that_is_no_probability_is_a_failure(toy, pictures, tmp_path, capsys):
    write_toy_bundle(tmp_path / "loud", gain=100.0)
    assert run_command("predict", pictures / "grey.jpg", "--model", "toy", "--weights", tmp_path / "loud") == 3
    assert "expected probability_bright in [0, 1], found " in capsys.readouterr().err


def test_strict_refuses_what_a_check_warns_of(toy, tmp_path, capsys):
    Image.fromarray(np.full((32, 32), 7, np.uint8)).save(tmp_path / "flat.png")
    assert run_command("predict", tmp_path / "flat.png", "--model", "toy") == 0
    assert (
        "; check: standard deviation of grey: 0, expected at least 0.01: a picture of nothing"
        in capsys.readouterr().err
    )
    assert run_command("predict", tmp_path / "flat.png", "--model", "toy", "--strict") == 3


def test_int8_is_refused_where_nothing_quantises(toy, pictures, capsys):
    assert run_command("predict", pictures / "dark.png", "--model", "toy", "--precision", "int8") == 2
    assert "precision int8 is not to be had of the model toy" in capsys.readouterr().err


def test_weights_belong_to_their_model(toy, pictures, tmp_path, capsys, monkeypatch):
    assert run_command("predict", pictures / "dark.png", "--model", "toy", "--weights", "mini") == 4
    assert "expected a bundle of the model toy, found one of severity" in capsys.readouterr().err
    loud = write_toy_bundle(tmp_path / "loud")
    with pytest.raises(WeightsError, match="expected a bundle of the model severity, found one of toy"):
        find_bundle(loud)
    monkeypatch.setenv("BALAITOUS_WEIGHTS", str(loud))  # meant for the model that it names, passed over for others
    assert (find_bundle(None, TOY), find_bundle(None).name) == (loud, "mini")
    monkeypatch.setenv("BALAITOUS_WEIGHTS", "mini")
    assert find_bundle(None, TOY) == tmp_path / "cache" / "toy"


def test_info_and_the_list_of_weights_tell_of_every_model(toy, capsys):
    assert run_command("info", "--json") == 0
    told = json.loads(capsys.readouterr().out)["models"]
    assert list(told) == [*MODELS]
    assert (told["toy"]["good_for"], told["toy"]["bundle"]["licence"]) == ("nothing but tests", "MIT")
    assert told["severity"]["citation"].startswith("Lassau")
    assert run_command("info") == 0
    assert "a picture: a file (.png, .jpg" in capsys.readouterr().out
    assert run_command("weights", "list") == 0
    assert "toy, 0.0 MB" in capsys.readouterr().out


@pytest.mark.slow
def test_a_model_of_one_row_runs_on_a_cluster(toy, pictures, tmp_path, monkeypatch):
    pytest.importorskip("ray")
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}:{ROOT / 'test'}")  # where workers find what the row names
    table = tmp_path / "table.csv"
    assert run_command("predict", pictures, "--model", "toy", "--engine", "ray", "--workers", "1", "--out", table) == 5
    rows = {row["PatientID"]: row for row in read_table(table, COLUMNS)}
    assert {name: row["status"] for name, row in rows.items()} == {
        **{"broken": "failed", "dark": "ok"},
        **{"grey": "ok", "white": "ok"},
    }
    assert rows["white"]["probability_bright"] == pytest.approx(0.5 * grey_of("white"), abs=0.01)
