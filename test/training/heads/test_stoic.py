"""The folder that heads are trained on: every patient with the scan that is meant."""

import pytest

from balaitous.errors import InputError
from balaitous.training.heads.stoic import read_stoic


def stoic(folder, *scans, reference="PatientID,probCOVID,probSevere\n1,0,0\n2,1,1\n"):
    for scan in scans:
        (folder / "data/mha" / scan).parent.mkdir(parents=True, exist_ok=True)
        (folder / "data/mha" / scan).touch()
    (folder / "metadata").mkdir()
    (folder / "metadata/reference.csv").write_text(reference)
    return folder


@pytest.mark.parametrize("again", ["site/1.mha", "1.nii.gz"])
def test_two_scans_of_one_name_are_refused_with_both_paths(tmp_path, again):
    with pytest.raises(InputError, match=rf"several of 1, such as .*(1\.mha and .*{again}|{again} and .*1\.mha)"):
        read_stoic(stoic(tmp_path, "1.mha", "2.mha", again))


def test_scans_without_an_outcome_may_have_one_name(tmp_path, caplog):
    cohort = read_stoic(stoic(tmp_path, "1.mha", "2.mha", "a/3.mha", "b/3.mha"))
    assert [scan.name for scan in cohort.scans] == ["1", "2"]
    assert "scans without an outcome are left out: 3" in caplog.text


def test_columns_of_a_reference_may_have_spaces_and_others_are_named(tmp_path, caplog):
    reference = "patientid, probCOVID , PROBSEVERE,sex\n1,0,0,F\n2,1,1,M\n"
    cohort = read_stoic(stoic(tmp_path, "1.mha", "2.mha", reference=reference))
    assert cohort.reference.outcomes["covid"].tolist() == [0, 1]
    assert "columns that are not used: sex" in caplog.text


def test_a_shifted_reference_is_refused_with_the_line(tmp_path):
    reference = "PatientID,probCOVID,probSevere\n1,0,0\n2,x,1,1\n"
    with pytest.raises(InputError, match=r"reference\.csv, line 3: expected 3 fields"):
        read_stoic(stoic(tmp_path, "1.mha", "2.mha", reference=reference))
