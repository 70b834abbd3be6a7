"""Reports: the metrics in the platform's form, tables, figures and the page."""

import json
import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from balaitous.evaluation.evaluate import evaluate
from balaitous.evaluation.report import metrics_of, write_evaluation
from balaitous.evaluation.tasks import Reference
from helpers.predictions import COVID, PATIENTS, REFERENCE, noisy


def test_metrics_have_the_platform_s_form_and_name_no_patient():
    metrics = metrics_of(evaluate(noisy("a.csv", 0.4), REFERENCE, bootstraps=200))
    for name in ("auc_covid", "auc_severe"):
        assert set(metrics["aggregates"][name]) == {"value", "ci_low", "ci_high"}
        assert metrics["aggregates"][name]["ci_low"] <= metrics["aggregates"][name]["value"]
    assert metrics["tasks"]["covid"]["patients"] == 120
    assert metrics["tasks"]["severe"]["patients"] == 60
    assert metrics["tasks"]["severe"]["positives"] == 30
    text = json.dumps(metrics, allow_nan=False)
    assert not any(f'"{patient}"' in text for patient in PATIENTS)
    assert "comparison" not in metrics


def test_two_models_are_compared_on_the_same_patients():
    metrics = metrics_of(evaluate(noisy("a.csv", 0.3), REFERENCE, noisy("other.csv", 2.0), bootstraps=200))
    difference = metrics["comparison"]["differences"]["covid"]
    areas = [metrics["tasks"]["covid"]["auc"]["value"], metrics["comparison"]["tasks"]["covid"]["auc"]["value"]]
    assert difference["value"] == pytest.approx(areas[0] - areas[1])
    assert difference["p_value"] < 0.001
    assert difference["bootstrap"]["ci_low"] > 0


def test_an_absent_class_gives_a_reason_instead_of_a_number(tmp_path):
    nobody = Reference(PATIENTS, COVID, np.zeros(120, bool))
    evaluation = evaluate(noisy("a.csv", 0.4), nobody, bootstraps=200)
    severe = metrics_of(evaluation)["aggregates"]["auc_severe"]
    assert severe["value"] is None
    assert severe["reason"].startswith("Severe outcome: needs patients with and without the outcome, found 0 with it")
    write_evaluation(evaluation, tmp_path)
    assert "found 0 with it among 60" in (tmp_path / "report.html").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("others", [[], [noisy("other.csv", 2.0)]])
def test_files_are_written_that_need_nothing_else_and_are_the_same_again(tmp_path, others):
    evaluation = evaluate(noisy("a <b>.csv", 0.4), REFERENCE, *others, thresholds=(0.3,), bootstraps=200)
    files = write_evaluation(evaluation, tmp_path / "out")
    names = {"metrics.json", "report.html", "roc.png", "roc.svg", "calibration.png", "calibration.svg"}
    assert {path.name for path in files} == names
    assert all(path.stat().st_size > 1000 for path in files)
    page = (tmp_path / "out/report.html").read_text()
    assert "a &lt;b&gt;.csv" in page
    assert "<b>" not in page
    assert "Research use only" in page
    assert not re.search(r'(?:src|href)="(?!data:)', page), "the page must need no other file"
    assert "threshold 0.3, given" in page
    assert ("Difference of the areas" in page) == bool(others)
    ElementTree.parse(tmp_path / "out/roc.svg")
    for path in write_evaluation(evaluation, tmp_path / "again"):
        if path.name != "report.html":  # which has the time in it
            assert path.read_bytes() == (tmp_path / "out" / path.name).read_bytes(), path.name


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"thresholds": (1.5,)}, r"thresholds must be in \[0, 1\]. Got 1.5"),
        ({"bootstraps": 10}, "bootstraps must be from 100 to 1000000. Got 10"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        evaluate(noisy("a.csv", 0.4), REFERENCE, **options)
