"""``balaitous evaluate`` and ``weights calibrate`` of a model that is not severity, from tables to files."""

import json

import numpy as np
import pandas as pd
import pytest

from balaitous.evaluation.calibration import METHODS
from balaitous.models import MODELS
from balaitous.weights.bundle import open_bundle
from balaitous.weights.calibration import Temperature, stored_in
from balaitous.weights.pack import Facts, write_bundle
from helpers.commands import run_command
from helpers.outputs import FINDER, SORTER, write_classes, write_findings
from helpers.predictions import COVID, PATIENTS, SEVERE, noisy

pytestmark = pytest.mark.usefixtures("logging_as_it_was")


@pytest.fixture(autouse=True)
def rows(monkeypatch):
    """The finder and the sorter in the table of models."""
    for model in (FINDER, SORTER):
        monkeypatch.setitem(MODELS, model.name, model)


def evaluate(*arguments):
    return run_command("evaluate", "--bootstraps", 100, *arguments)


@pytest.mark.slow
def test_a_table_is_evaluated_with_a_threshold_chosen_on_validation(tmp_path, capsys):
    table, reference = write_findings(tmp_path)
    (tmp_path / "validation").mkdir()
    other = write_findings(tmp_path / "validation", noise=1.5)
    options = ["--validation", other[0], "--validation-reference", other[1]]
    out = tmp_path / "out"
    given = ("--model", "finder", "--predictions", table, "--reference", reference, "--out", out)
    assert evaluate(*given, *options) == 0
    metrics = json.loads((out / "metrics.json").read_text())
    chosen = [call["chosen"] for call in metrics["tasks"]["sick"]["calls"]]
    assert chosen == ["threshold 0.5, given", "largest sensitivity + specificity, on validation"]
    stems = {"roc", "precision_recall", "calibration", "confusion", "pairs"}
    assert {path.stem for path in out.glob("*.png")} == {path.stem for path in out.glob("*.svg")} == stems
    said = capsys.readouterr().out
    assert "found.csv: sick: AUC " in said
    assert "120 items, 60 with it" in said
    assert "pale spot: not measured (pale spot: too few: 3" in said


def test_what_cannot_be_evaluated_ends_in_one_line_and_its_exit_code(tmp_path, capsys):
    table, reference = write_findings(tmp_path)
    out = ("--out", tmp_path / "out")
    assert evaluate("--model", "finder", "--predictions", table, "--reference", tmp_path / "gone.csv", *out) == 3
    assert "gone.csv: expected a CSV with its columns; found: No such file" in capsys.readouterr().err
    assert evaluate("--model", "sorter", "--predictions", table, "--reference", reference, *out) == 3
    assert "expected the columns PatientID or path, and cat, dog, cow" in capsys.readouterr().err
    assert evaluate("--model", "bird", "--predictions", table, "--reference", reference, *out) == 2
    assert "model must be one of severity" in capsys.readouterr().err
    given = ("--model", "finder", "--predictions", table, "--reference", reference, *out)
    assert evaluate(*given, "--validation", table) == 2
    assert "--validation and --validation-reference together" in capsys.readouterr().err
    lines = pd.read_csv(table, dtype=str)
    pd.concat([lines, lines.iloc[:1]]).to_csv(tmp_path / "twice.csv", index=False)
    assert evaluate("--model", "finder", "--predictions", tmp_path / "twice.csv", "--reference", reference, *out) == 3
    assert "found several for 0/0.png" in capsys.readouterr().err
    assert list((tmp_path / "out").iterdir()) == []


# --- calibration


@pytest.fixture
def bundle(tmp_path):
    """Makes a bundle of a model, which has no network."""

    def make(model):
        facts = Facts("tests", licence="MIT", intended_use="Tests only.", demonstration=True)
        return write_bundle(
            tmp_path / model.name, facts, model=model.name, networks={}, arrays={"numbers": {"one": np.ones(1)}}
        )

    return make


def calibrate(model, table, reference, weights, out, *more):
    arguments = ("--model", model, "--predictions", table, "--reference", reference, "--weights", weights, "--out", out)
    return run_command("weights", "calibrate", *arguments, *more)


def test_each_output_that_can_be_calibrated_gets_a_temperature_and_the_others_are_named(tmp_path, bundle, capsys):
    table, reference = write_findings(tmp_path)
    folder = bundle(FINDER)
    lines = pd.read_csv(table)
    lines.assign(bundle_sha256=open_bundle(folder).sha256).to_csv(table, index=False)
    assert calibrate("finder", table, reference, folder, tmp_path / "new") == 0
    stored = open_bundle(tmp_path / "new")
    assert stored.calibration["sick"].keys() == {"method", "temperature"}
    assert stored.calibrated_by == "temperature"
    maps = stored_in(stored, FINDER.outputs)
    assert set(maps) == {"sick", "round"}
    assert all(isinstance(each, Temperature) for each in maps.values())
    facts = stored.calibration["facts"]
    assert facts["items"] == {"sick": 120, "round": 119}
    assert "too few: 3" in facts["left_out"]["pale"]
    assert "not calibrated: pale spot: too few" in capsys.readouterr().err
    assert (tmp_path / "new/calibration.png").exists()


def test_outputs_that_exclude_each_other_share_a_temperature(tmp_path, bundle):
    table, reference = write_classes(tmp_path)
    assert calibrate("sorter", table, reference, bundle(SORTER), tmp_path / "new") == 0
    maps = stored_in(open_bundle(tmp_path / "new"), SORTER.outputs)
    assert set(maps) == set(SORTER.outputs)
    assert len({each.temperature for each in maps.values()}) == 1
    assert 1.2 < maps["cat"].temperature < 3.5  # its logits are twice what they should be


def test_calibrated_predictions_other_weights_and_other_methods_are_refused(tmp_path, bundle, capsys):
    table, reference = write_findings(tmp_path)
    folder, out = bundle(FINDER), tmp_path / "new"
    assert calibrate("finder", table, reference, folder, out) == 3
    assert "expected predictions of the bundle tests" in capsys.readouterr().err
    pd.read_csv(table).assign(calibration="temperature").to_csv(table, index=False)
    assert calibrate("finder", table, reference, folder, out) == 3
    assert "found calibrated ones. Predict without --calibrated" in capsys.readouterr().err
    assert calibrate("finder", table, reference, folder, out, "--method", METHODS[0]) == 2
    assert "method must be one of temperature for finder" in capsys.readouterr().err
    assert calibrate("sorter", table, reference, folder, out) == 4
    assert "expected a bundle of the model sorter, found one of finder" in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.slow
def test_severity_is_evaluated_and_calibrated_from_the_same_files_as_ever(tmp_path):
    found = noisy("a.csv", 0.5)
    table = pd.DataFrame(
        {"PatientID": PATIENTS, **{f"probability_{key}": each for key, each in found.probabilities.items()}}
    )
    table.to_csv(tmp_path / "a.csv", index=False)
    reference = pd.DataFrame({"PatientID": PATIENTS, "probCOVID": COVID.astype(int), "probSevere": SEVERE.astype(int)})
    reference.to_csv(tmp_path / "reference.csv", index=False)
    given = ("--predictions", tmp_path / "a.csv", "--reference", tmp_path / "reference.csv")
    assert evaluate(*given, "--out", tmp_path / "out") == 0
    tasks = json.loads((tmp_path / "out/metrics.json").read_text())["tasks"]
    assert set(tasks["severe"]) == {
        *("patients", "positives", "auc", "operating_points", "brier", "brier_of_prevalence", "calibration")
    }
    assert run_command("weights", "calibrate", *given, "--weights", "mini", "--out", tmp_path / "new") == 0
    assert open_bundle(tmp_path / "new").calibrated_by == "platt"


def test_where_no_output_can_be_calibrated_one_is_named_with_the_reason(tmp_path, bundle, capsys):
    table, reference = write_findings(tmp_path)
    lines = pd.read_csv(table).drop(columns="bundle_sha256")
    for output in FINDER.outputs:
        lines[f"probability_{output}"] = 0.5
    lines.to_csv(table, index=False)
    assert calibrate("finder", table, reference, bundle(FINDER), tmp_path / "new") == 3
    assert "no output can be calibrated, such as sick: expected predictions that rise" in capsys.readouterr().err
