"""The reference of the challenge."""

import json

import pytest

from balaitous.errors import InputError
from balaitous.evaluation.tasks import read_reference


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_a_reference_is_read_as_the_challenge_publishes_it(tmp_path):
    reference = read_reference(write(tmp_path / "r.csv", "\ufeffPatientID,probCOVID,probSevere\n007,1,1.0\nNA, 0,\n"))
    assert list(reference.patients) == ["007", "NA"]
    assert reference.outcomes["covid"].tolist() == [1, 0]
    assert reference.outcomes["severe"].tolist() == [1, 0]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("PatientID,probCOVID\n1,1\n", r"expected the columns PatientID, probCOVID, probSevere; probSevere not found"),
        ("PatientID,probCOVID,probSevere\n1,1,2\n2,0.5,0\n3,1,0\n", r"something else for 1, 2\. Correct these lines"),
        ("PatientID,probCOVID,probSevere\n1,1,\n", "something else for 1"),
        ("PatientID,probCOVID,probSevere\n1,1,1\n1,0,0\n", "found twice or more: 1"),
        ("PatientID,probCOVID,probSevere\n", "expected a line for every patient, found none"),
        ("", r"r\.csv is not a readable CSV \(it is empty\)"),
    ],
)
def test_what_is_wrong_with_a_reference_is_said(tmp_path, content, message):
    with pytest.raises(InputError, match=message):
        read_reference(write(tmp_path / "r.csv", content))


def test_a_reference_that_is_not_there_is_said(tmp_path):
    with pytest.raises(InputError, match=r"gone\.csv: expected a CSV .* found: No such file"):
        read_reference(tmp_path / "gone.csv")
