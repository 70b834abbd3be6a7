"""An evaluation as it is written: metrics.json, figures, a page; and the challenge's evaluation container."""

import json
import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from balaitous.container.evaluation import evaluate_submission
from balaitous.errors import InputError
from balaitous.evaluation.predictions import MissingPredictionsError, Predictions, Reference
from balaitous.evaluation.report import evaluate, metrics_of, write_evaluation

PATIENTS = [f"{i:03d}" for i in range(120)]
RNG = np.random.default_rng(0)
COVID = np.arange(120) % 2 == 0
SEVERE = COVID & (np.arange(120) % 4 == 0)
REFERENCE = Reference(PATIENTS, COVID, SEVERE)


def model(name, noise):
    """Predictions that know the outcome, and add noise to it."""
    drawn = np.random.default_rng(len(name)).uniform(-noise, noise, (2, 120))
    covid, severe = np.clip(np.stack([COVID, SEVERE]) * 0.5 + 0.25 + drawn, 0, 1)
    return Predictions(name, PATIENTS, covid, severe, bundles={"ab" * 32: "mini"})


def test_metrics_have_the_platform_s_form_and_name_no_patient():
    metrics = metrics_of(evaluate(model("a.csv", 0.4), REFERENCE, bootstraps=200))
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
    metrics = metrics_of(evaluate(model("a.csv", 0.3), REFERENCE, model("other.csv", 2.0), bootstraps=200))
    difference = metrics["comparison"]["differences"]["covid"]
    areas = [metrics["tasks"]["covid"]["auc"]["value"], metrics["comparison"]["tasks"]["covid"]["auc"]["value"]]
    assert difference["value"] == pytest.approx(areas[0] - areas[1])
    assert difference["p_value"] < 0.001
    assert difference["bootstrap"]["ci_low"] > 0


def test_an_absent_class_gives_a_reason_instead_of_a_number(tmp_path):
    nobody = Reference(PATIENTS, COVID, np.zeros(120, bool))
    evaluation = evaluate(model("a.csv", 0.4), nobody, bootstraps=200)
    severe = metrics_of(evaluation)["aggregates"]["auc_severe"]
    assert severe["value"] is None
    assert severe["reason"].startswith("Severe outcome: needs patients with and without the outcome, found 0 with it")
    write_evaluation(evaluation, tmp_path)
    assert "found 0 with it among 60" in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize("others", [[], [model("other.csv", 2.0)]])
def test_files_are_written_that_need_nothing_else_and_are_the_same_again(tmp_path, others):
    evaluation = evaluate(model("a <b>.csv", 0.4), REFERENCE, *others, thresholds=(0.3,), bootstraps=200)
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
        ({"bootstraps": 10}, "bootstraps must be at least 100. Got 10"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        evaluate(model("a.csv", 0.4), REFERENCE, **options)


# --- the evaluation container


@pytest.fixture
def submission(tmp_path):
    """/input of an evaluation with its ground truth, and an empty /output."""
    predictions = model("a.csv", 0.4)
    jobs = []
    for i, patient in enumerate(PATIENTS):
        outputs = {
            "probability-covid-19": predictions.covid[i],
            "probability-severe-covid-19": predictions.severe[i],
        }
        folder = tmp_path / f"input/job{i}/output"
        folder.mkdir(parents=True)
        for slug, value in outputs.items():
            (folder / f"{slug}.json").write_text(json.dumps(value))
        jobs.append(
            {
                "pk": f"job{i}",
                "status": "Succeeded",
                "inputs": [{"socket": {"slug": "ct-image"}, "image": {"name": f"{patient}.mha"}}],
                "outputs": [{"socket": {"slug": slug, "relative_path": f"{slug}.json"}} for slug in outputs],
            }
        )
    (tmp_path / "input/predictions.json").write_text(json.dumps(jobs))
    lines = [f"{patient},{COVID[i]:d},{SEVERE[i]:d}" for i, patient in enumerate(PATIENTS)]
    (tmp_path / "truth/inner").mkdir(parents=True)
    (tmp_path / "truth/inner/reference.csv").write_text("\n".join(["PatientID,probCOVID,probSevere", *lines]))
    (tmp_path / "output").mkdir()
    return tmp_path


def run(folder):
    evaluate_submission(folder / "input", folder / "output", folder / "truth")


def test_a_submission_is_evaluated_as_its_table_would_be(submission):
    run(submission)
    metrics = json.loads((submission / "output/metrics.json").read_text())
    expected = metrics_of(evaluate(model("a.csv", 0.4), REFERENCE))
    assert metrics["aggregates"] == expected["aggregates"]
    assert [path.name for path in (submission / "output").iterdir()] == ["metrics.json"]


def test_a_submission_with_a_failed_job_is_refused_and_leaves_no_old_metrics(submission):
    run(submission)
    path = submission / "input/predictions.json"
    jobs = json.loads(path.read_text())
    jobs[3]["status"] = "Failed"
    path.write_text(json.dumps(jobs))
    with pytest.raises(MissingPredictionsError, match=r"none for 003 \(1 failed; 003: job job3 is Failed\)"):
        run(submission)
    assert not list((submission / "output").iterdir())


def test_a_ground_truth_without_or_with_two_references_is_refused(submission):
    (submission / "truth/reference.csv").write_text("PatientID,probCOVID,probSevere\n")
    with pytest.raises(InputError, match=r"expected one reference\.csv in it or below, found 2"):
        run(submission)
