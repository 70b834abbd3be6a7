"""The second table: what all slices of a patient say together."""

import csv
from pathlib import Path

import numpy as np
import pytest

from balaitous.cohort.groups import group_columns, group_rows, group_table
from balaitous.cohort.items import Item
from balaitous.cohort.table import columns_of
from balaitous.models import MODELS
from helpers import PHANTOM
from helpers.commands import run_command
from helpers.slices import write_phantom_slice, write_slices_bundle

SLICES = MODELS["slices"]
NAMES = [f"probability_{name}" for name in SLICES.outputs]


def row(probability, status="ok", slices_used=1, **values):
    told = dict.fromkeys(NAMES, probability) if status == "ok" else {}
    return dict.fromkeys(columns_of(SLICES)) | told | {"status": status, "slices_used": slices_used} | values


def test_a_patient_gets_mean_maximum_and_the_numbers_of_slices_done_and_failed():
    rows = [row(0.2), row(0.9), row(None, "failed"), row(0.4), row(0.7), row(None, "failed")]
    items = [Item(Path(f"{k}.png"), {}, group) for k, group in enumerate(("p2", "p1", "p2", "p2", "", "p3"))]
    found = group_rows(items, rows, SLICES)
    assert [list(each) for each in found] == [list(group_columns(SLICES))] * 3
    assert [each["patient"] for each in found] == ["p2", "p1", "p3"]
    assert found[0]["probability_ggo"] == pytest.approx(0.3)
    assert (found[0]["probability_ggo_max"], found[0]["slices"], found[0]["failed"]) == (0.4, 2, 1)
    assert (found[1]["probability_covid"], found[1]["slices"], found[1]["failed"]) == (0.9, 1, 0)
    assert (found[2]["probability_covid"], found[2]["probability_covid_max"]) == (None, None)
    assert (found[2]["slices"], found[2]["failed"]) == (0, 1)


def test_a_ct_counts_for_its_slices_and_a_maximum_that_nobody_knows_is_none():
    rows = [row(0.1, slices_used=9, probability_covid_max=0.5), row(0.6)]
    (found,) = group_rows([Item(Path("ct.mha"), {}, "p"), Item(Path("s.png"), {}, "p")], rows, SLICES)
    assert found["probability_covid"] == pytest.approx((9 * 0.1 + 0.6) / 10)
    assert (found["probability_covid_max"], found["probability_ggo_max"], found["slices"]) == (0.6, None, 10)


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_the_second_table_lies_beside_the_first(ending):
    assert group_table(Path(f"out/t.{ending}"), SLICES) == Path(f"out/t_patients.{ending}")


@pytest.fixture
def listed(tmp_path):
    """A list of two patients, a slice that is none, and a bundle."""
    write_slices_bundle(tmp_path / "tiny")
    for index in (30, 34):
        write_phantom_slice(tmp_path / f"{index}.png", index)
    (tmp_path / "scan.mha").write_bytes(PHANTOM.read_bytes())
    lines = ("path,patient", "30.png,=p1", "34.png,=p1", "gone.png,=p1", "scan.mha,p2", "30.png,")
    (tmp_path / "list.csv").write_text("\n".join(lines))
    return tmp_path


@pytest.mark.usefixtures("logging_as_it_was")
def test_a_list_with_patients_gives_a_second_table_also_with_resume(listed, capsys):
    words = ("predict", listed / "list.csv", "--model", "slices", "--weights", listed / "tiny")
    words = (*words, "--out", listed / "t.csv")
    assert run_command(*words) == 5
    said = capsys.readouterr()
    assert "t_patients.csv: failed items, which are not in the means: 1, of =p1" in said.err
    assert "t_patients.csv: items without a patient, which are in none of its rows: 1" in said.err
    assert "t_patients.csv (2 rows)" in said.out
    (one, two), text = read(listed / "t_patients.csv"), (listed / "t_patients.csv").read_text()
    rows = {row["path"]: row for row in read(listed / "t.csv")}
    single = [float(rows[str(listed / f"{index}.png")]["probability_ggo"]) for index in (30, 34)]
    assert one["patient"] == "'=p1"  # no formula
    assert float(one["probability_ggo"]) == pytest.approx(np.mean(single))
    assert float(one["probability_ggo_max"]) == max(single)
    assert (one["slices"], one["failed"], two["failed"]) == ("2", "1", "0")
    assert int(two["slices"]) == int(rows[str(listed / "scan.mha")]["slices_used"])
    write_phantom_slice(listed / "gone.png", 32)
    assert run_command(*words, "--resume") == 0
    assert [row["slices"] for row in read(listed / "t_patients.csv")] == ["3", two["slices"]]
    assert (listed / "t_patients.csv").read_text() != text


@pytest.mark.usefixtures("logging_as_it_was")
def test_another_file_of_that_name_is_not_overwritten(listed, capsys):
    (listed / "t_patients.csv").write_text("theirs\n")
    words = ("predict", listed / "list.csv", "--model", "slices", "--weights", listed / "tiny")
    assert run_command(*words, "--out", listed / "t.csv") == 2
    assert "t_patients.csv is there already" in capsys.readouterr().err
    assert (listed / "t_patients.csv").read_text() == "theirs\n"


def read(path):
    with path.open() as file:
        return list(csv.DictReader(file))
