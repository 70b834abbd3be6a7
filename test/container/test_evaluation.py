"""The evaluation container."""

import json

import pytest

from balaitous.container.evaluation import evaluate_submission
from balaitous.errors import InputError
from balaitous.evaluation.evaluate import evaluate
from balaitous.evaluation.matching import MissingPredictionsError
from balaitous.evaluation.report import metrics_of
from helpers.predictions import COVID, PATIENTS, REFERENCE, SEVERE, noisy


@pytest.fixture
def submission(tmp_path):
    """/input of an evaluation with its ground truth, and an empty /output."""
    predictions = noisy("a.csv", 0.4)
    jobs = []
    for i, patient in enumerate(PATIENTS):
        outputs = {
            "probability-covid-19": predictions.probabilities["covid"][i],
            "probability-severe-covid-19": predictions.probabilities["severe"][i],
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
    expected = metrics_of(evaluate(noisy("a.csv", 0.4), REFERENCE))
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
