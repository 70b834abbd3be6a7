"""Reports: the metrics in the platform's form, tables, figures and the page."""

import json
import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from balaitous.evaluation.evaluate import evaluate
from balaitous.evaluation.figures import figures_of
from balaitous.evaluation.page import page
from balaitous.evaluation.report import metrics_of, write_evaluation
from balaitous.evaluation.tables import read_reference_of, read_table
from balaitous.evaluation.tasks import Reference
from helpers.outputs import FINDER, SORTER, write_classes, write_findings
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
    nobody = Reference(PATIENTS, {"covid": COVID.astype(float), "severe": np.zeros(120)})
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
    text = (tmp_path / "out/report.html").read_text()
    assert "a &lt;b&gt;.csv" in text
    assert "<b>" not in text
    assert "Research use only" in text
    assert not re.search(r'(?:src|href)="(?!data:)', text), "the page must need no other file"
    assert "threshold 0.3, given" in text
    assert ("Difference of the areas" in text) == bool(others)
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


# --- other models


@pytest.fixture
def findings(tmp_path):
    """Two evaluated models of the finder."""
    table, reference = write_findings(tmp_path)
    other, _ = write_findings(tmp_path, noise=4.0, name="other.csv")
    models = [read_table(path, FINDER.outputs, "path") for path in (table, other)]
    return evaluate(models[0], read_reference_of(reference, FINDER), models[1], model=FINDER, bootstraps=100)


def test_metrics_of_another_model_tell_counts_rankings_calls_findings_and_sources(findings):
    metrics = json.loads(json.dumps(metrics_of(findings), allow_nan=False))
    assert list(metrics["aggregates"]) == ["auc_sick", "auc_round", "auc_pale"]
    assert metrics["method"]["groups"] == 60
    spots = metrics["tasks"]["round"]
    assert (spots["items"], spots["positives"], spots["not_known"]) == (119, 20, 1)
    assert spots["average_precision"]["ci_low"] < spots["average_precision"]["value"]
    assert sum(map(sum, spots["calls"][0]["confusion"])) == 119
    assert {"accuracy", "precision", "recall", "specificity", "f1", "threshold"} < set(spots["calls"][0])
    assert "operating_points" not in spots
    assert metrics["tasks"]["pale"]["reason"] == "pale spot: too few: 3 with it among 120 items, at least 10 are needed"
    assert metrics["findings"]["round"]["among_bearing"]["items"] == 22
    assert metrics["findings"]["pale"]["everywhere"]["average_precision"]["value"] is None
    assert list(metrics["sources"]) == ["here", "there"]
    assert metrics["sources"]["here"]["sick"]["items"] == 70
    difference = metrics["comparison"]["differences"]["sick"]
    assert difference["average_precision"]["value"] > 0
    assert difference["value"] > 0


def test_the_page_of_another_model_shows_what_was_measured_and_why_not(findings):
    text = page(findings, {})
    for expected in (
        "Findings",
        "of sick",
        "too few: 3 with it",
        "Source by source",
        "there",
        "60 groups",
        "Obuchowski",
    ):
        assert expected in text
    assert "Severity" not in text


def test_figures_of_two_models_show_the_outputs_that_were_measured(findings):
    figures = figures_of(findings)
    assert set(figures) == {"roc", "precision_recall", "calibration", "confusion", "pairs", "pairs_of_second"}
    confusions = [axes.get_title() for axes in figures["confusion"].axes if axes.get_title()]
    assert confusions == [
        f"{what}, from 0.5\n{of}" for of in ("found.csv", "other.csv") for what in ("sick", "round spot")
    ]
    assert [axes.get_xlabel() for axes in figures["pairs"].axes[-2:]] == ["round spot", "pale spot"]
    (legend,) = figures["pairs"].legends
    assert [text.get_text() for text in legend.get_texts()] == ["with it (60)", "without it (60)"]


def test_classes_have_a_confusion_of_their_own(tmp_path):
    table, reference = write_classes(tmp_path)
    found = evaluate(
        read_table(table, SORTER.outputs), read_reference_of(reference, SORTER), model=SORTER, bootstraps=100
    )
    classes = metrics_of(found)["classes"]
    assert np.sum(classes["confusion"]) == 119
    assert classes["not_known"] == 1
    assert classes["accuracy"]["value"] == np.trace(classes["confusion"]) / 119
    assert "findings" not in metrics_of(found)
    (axes,) = figures_of(found)["confusion"].axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a cat", "a dog", "a cow"]
    assert len(figures_of(found)["pairs"].axes) == 9
    assert "macro F1" in page(found, {})
