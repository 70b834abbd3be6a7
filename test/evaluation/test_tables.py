"""Tables of predictions."""

import json
import math

import numpy as np
import pandas as pd
import pytest

from balaitous.cohort.items import Item
from balaitous.cohort.table import row_of, write_table
from balaitous.container.submission import read_predictions, read_predictions_of
from balaitous.errors import InputError
from balaitous.evaluation.tables import read_reference_of
from balaitous.models import MODELS
from helpers.outputs import FINDER, SORTER, write_classes, write_findings
from helpers.predictions import pairs
from helpers.rows import COLUMNS, SEVERITY


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


@pytest.mark.parametrize("ending", ["csv", "parquet", "json"])
def test_a_table_of_the_predict_command_is_read(tmp_path, short_prediction, ending):
    path = tmp_path / f"table.{ending}"
    rows = [
        row_of(Item("a/0012.mha"), short_prediction, SEVERITY),
        row_of(Item("a/gone.nii.gz"), InputError("no such file"), SEVERITY),
    ]
    write_table(rows, path, COLUMNS)
    found = read_predictions(path)
    assert pairs(found) == {"0012": (short_prediction.probability_covid, short_prediction.probability_severe)}
    assert found.failed == {"gone": "no such file"}
    assert found.bundles == {short_prediction.provenance.bundle_sha256: "mini"}


@pytest.mark.parametrize("ending", ["csv", "parquet", "json"])
def test_any_table_with_the_three_columns_will_do_and_numbers_may_be_names(tmp_path, ending):
    path = tmp_path / f"t.{ending}"
    table = pd.DataFrame({"probability_severe": [0.5, None], "PatientID": [7, 8], "probability_covid": [0.25, 1]})
    writers = {"csv": table.to_csv, "parquet": table.to_parquet, "json": table.to_json}
    writers[ending](path, **({"orient": "records"} if ending == "json" else {"index": False}))
    found = read_predictions(path)
    assert list(found.patients) == ["7", "8"]
    assert found.probabilities["covid"].tolist() == [0.25, 1]
    assert found.probabilities["severe"][0] == 0.5
    assert math.isnan(found.probabilities["severe"][1])


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("PatientID,probability_covid,probability_severe\n1,0,93,0,81\n", 2),  # decimal commas
        ("PatientID,probability_covid,probability_severe\n1,0.9,0.8\n2,0.1,0.2,F\n", 3),  # a column without a name
        ("PatientID,probability_severe,probability_covid\n0,1,0.9,0.8\n", 2),  # a first one, which shifts the others
        ("PatientID;probability_covid;probability_severe\n1;0,93;0,81\n", 1),
    ],
)
def test_a_table_whose_lines_say_more_than_the_first_is_refused_with_the_line(tmp_path, content, line):
    with pytest.raises(InputError, match=rf"t\.csv, line {line}: expected"):
        read_predictions(write(tmp_path / "t.csv", content))


def test_columns_are_found_in_any_case_and_lines_that_hold_nothing_left_out(tmp_path):
    content = "patientid, Probability_Covid ,PROBABILITY_SEVERE,Status,error\n1,0.9,0.8,ok,\n,,,,\n2,,,failed,no lung\n"
    found = read_predictions(write(tmp_path / "t.csv", content))
    assert pairs(found) == {"1": (0.9, 0.8)}
    assert found.failed == {"2": "no lung"}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("t.csv", "PatientID,probCOVID,probSevere\n1,1,1\n"),
        ("t.parquet", "no parquet"),
        ("t.json", "no json"),
        ("t.json", {"PatientID": 1}),
        ("t.json", [{"PatientID": 1}]),
        ("t.json", []),
        ("t.txt", "text"),
    ],
)
def test_what_is_no_table_of_predictions_is_refused_with_what_is_expected(tmp_path, name, content):
    path = write(tmp_path / name, content)
    with pytest.raises(InputError, match=rf"{name}: .*PatientID, probability_covid, probability_severe"):
        read_predictions(path)


# --- other models


def test_a_table_of_another_model_has_its_outputs_by_path_or_by_name(tmp_path):
    table, _ = write_findings(tmp_path)
    found = read_predictions_of(FINDER, table, "path")
    assert list(found.probabilities) == ["sick", "round", "pale"]
    assert found.patients[1] == "/data/1/1.png"
    assert read_predictions_of(FINDER, table).patients[1] == "1"
    assert not found.calibrated
    with pytest.raises(InputError, match="probability_cat, probability_dog, probability_cow not found"):
        read_predictions_of(SORTER, table)
    with pytest.raises(InputError, match=r"json: .* with PatientID, probability_cat"):
        read_predictions_of(SORTER, write(tmp_path / "t.json", "no json"))


@pytest.mark.parametrize("ending", ["csv", "parquet", "json"])
def test_a_table_tells_that_a_calibration_was_applied(tmp_path, short_prediction, ending):
    row = row_of(Item("a.mha"), short_prediction, SEVERITY)
    for calibration in (None, "platt"):
        write_table([row | {"calibration": calibration}], tmp_path / f"t.{ending}", COLUMNS)
        assert read_predictions(tmp_path / f"t.{ending}").calibrated == (calibration is not None)


def test_a_reference_has_a_column_an_output_groups_and_sources(tmp_path):
    _, path = write_findings(tmp_path)
    reference = read_reference_of(path, FINDER)
    assert (reference.key, reference.unit, reference.exclusive) == ("path", "items", False)
    assert reference.outcomes["sick"].tolist()[:3] == [0, 1, 0]
    assert math.isnan(reference.outcomes["round"][5])
    assert reference.groups.tolist()[:4] == [0, 0, 1, 1]
    assert reference.sources.tolist()[::119] == ["here", "there"]


def test_labels_are_names_or_titles_of_the_one_output_that_is_true(tmp_path):
    _, path = write_classes(tmp_path)
    reference = read_reference_of(path, SORTER)
    assert reference.exclusive
    assert reference.sources is None
    assert len(set(reference.groups.tolist())) == 120  # every item for itself
    each = np.stack(list(reference.outcomes.values()), axis=1)
    assert np.isnan(each[7]).all()
    assert (np.delete(each, 7, axis=0).sum(axis=1) == 1).all()


def test_items_of_no_patient_stand_for_themselves(tmp_path):
    path = write(tmp_path / "r.csv", "PatientID,sick,patient\n1,1,a\n2,0,\n3,0,a \n4,1,\n")
    groups = read_reference_of(path, FINDER).groups.tolist()
    assert groups[0] == groups[2]
    assert len(set(groups)) == 3


def test_what_a_reference_does_not_say_or_is_not_asked_is_named(tmp_path, caplog):
    read_reference_of(write(tmp_path / "r.csv", "PatientID,sick,rond\n1,1,0\n"), FINDER)
    assert "columns that are not used: rond" in caplog.text
    assert "outputs without a column are not evaluated: round, pale" in caplog.text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("sick\n1\n", r"expected the columns PatientID or path, and sick, round, pale \(1, 0 or empty\) or label"),
        ("PatientID,other\n1,1\n", "found: PatientID, other"),
        ("PatientID,sick,label\n1,1,sick\n", "found: PatientID, sick, label"),
        (
            "PatientID,sick\n1,1\n1,0\n",
            "every PatientID once, found twice or more: 1. Remove lines, or name them by path",
        ),
        ("path,sick\na.png,1\na.png,0\n", r"every path once, found twice or more: a\.png\. Remove lines\."),
        ("PatientID,sick\n", "expected a line with a PatientID for every item"),
        ("PatientID,sick\n,1\n", "expected a line with a PatientID for every item, found one without"),
        ("PatientID,sick\n1,1\n2,0.5\n3,yes\n4,nan\n", "1, 0 or nothing as sick, found something else for 2, 3, 4"),
        ("PatientID,label\n1,sick\n2,cat\n", "one of sick, round, pale as label, or nothing; .* else for 2"),
    ],
)
def test_what_is_wrong_with_a_reference_is_said(tmp_path, content, message):
    with pytest.raises(InputError, match=message):
        read_reference_of(write(tmp_path / "r.csv", content), FINDER)


def test_severity_keeps_the_reference_of_its_challenge(tmp_path):
    reference = read_reference_of(
        write(tmp_path / "r.csv", "PatientID,probCOVID,probSevere\n1,1,0\n"), MODELS["severity"]
    )
    assert (reference.groups, reference.unit) == (None, "patients")
