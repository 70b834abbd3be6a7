"""Tables of predictions."""

import json
import math

import pandas as pd
import pytest

from balaitous.cohort.items import Item
from balaitous.cohort.table import row_of, write_table
from balaitous.container.submission import read_predictions
from balaitous.errors import InputError
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
