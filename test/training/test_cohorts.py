"""Synthetic patients, and the lists that the bundle mini is made from."""

import csv

import numpy as np
import pytest
from PIL import Image

from balaitous.ct.lungs import LEFT, RIGHT
from balaitous.ct.volume import read_ct, write_mha
from balaitous.synthetic.phantom import make_phantom
from balaitous.training.cohorts import make_patient, make_stoic_folder, vary
from balaitous.training.heads.stoic import read_stoic
from balaitous.training.lungs.cases import LungCase
from tools.make_mini import COHORTS, HOSTS, HOSTS_HELD_OUT, LUNG_SCANS, write_lists


def phantom(seed):
    """A coarse one."""
    drawn = make_phantom(seed, spacing_mm=(3, 3, 8))
    return LungCase(drawn.ct.name, drawn.ct.hu, drawn.lungs, drawn.ct.grid.spacing_mm, real=False)


@pytest.fixture(scope="module")
def patients():
    host = phantom(1)
    return [make_patient(host, (4, number)) for number in range(12)]


def test_a_patient_is_the_same_for_the_same_seed(patients):
    again = make_patient(phantom(1), (4, 3))
    assert np.array_equal(again.ct.hu, patients[3].ct.hu)
    assert again.ct.patient == patients[3].ct.patient
    assert (again.covid, again.severe, again.burden) == (patients[3].covid, patients[3].severe, patients[3].burden)
    assert not np.array_equal(patients[3].ct.hu, patients[4].ct.hu)


def test_opacities_are_those_of_patients_with_covid_and_severe_outcomes_too(patients):
    assert {patient.covid for patient in patients} == {True, False}
    for patient in patients:
        assert patient.lesions.any() == (patient.burden > 0) == patient.covid
        assert patient.covid or not patient.severe
        assert patient.ct.hu.dtype == np.int16
        assert patient.ct.hu.min() >= -1024


def test_opacities_lie_in_the_lung_and_are_denser_than_it(patients):
    number = int(np.argmax([each.burden for each in patients]))
    patient, lungs = patients[number], vary(phantom(1), np.random.default_rng((4, number))).labels
    assert not (patient.lesions & (lungs != RIGHT) & (lungs != LEFT)).any()
    healthy = (lungs > 0) & ~patient.lesions
    assert patient.ct.hu[patient.lesions].mean() > patient.ct.hu[healthy].mean() + 200


@pytest.mark.slow
def test_a_cohort_is_made_of_real_lungs_and_phantoms_in_turn(tmp_path):
    write_mha(tmp_path / "host.mha", make_phantom(5, spacing_mm=(3, 3, 8)).ct)
    folder = make_stoic_folder(tmp_path / "cohort", 3, seed=1, hosts=[tmp_path / "host.mha"])
    cohort = read_stoic(folder)
    assert list(cohort.reference.patients) == ["0000", "0001", "0002"]
    first, second, third = (read_ct(scan.path) for scan in cohort.scans)
    assert first.hu.shape == third.hu.shape != second.hu.shape
    assert first.patient.age_source == "header"
    again = make_stoic_folder(tmp_path / "again", 2, seed=1, hosts=[tmp_path / "host.mha"])
    for scan in cohort.scans[:2]:
        assert (again / "data/mha" / scan.path.name).read_bytes() == scan.path.read_bytes()


def test_nothing_that_mini_is_tested_on_is_in_what_it_is_trained_on(tmp_path):
    data, work = tmp_path / "data", tmp_path / "work"
    for folder in ("ct", "covid_ct_slices/images", "sars_cov_2_ct_slices/COVID"):
        (data / folder).mkdir(parents=True)
    work.mkdir()
    Image.new("L", (8, 8)).save(data / "sars_cov_2_ct_slices/COVID/one.png")
    for split in ("train", "val", "test"):
        (data / f"covid_ct_slices/{split}_meta.csv").write_text(f"imgname,CVD19\n{split}1.jpg,CVD19\n{split}2.png,\n")
        for number in (1, 2):
            Image.new("L", (8, 8)).save(data / f"covid_ct_slices/images/{split}{number}.png")
    write_lists(data, work)

    def column(name, key):
        with (work / name).open(newline="") as file:
            return [row[key].rpartition("/")[2] for row in csv.DictReader(file)]

    images = column("images.csv", "path")
    assert sorted(images) == ["one.png", "train1.png", "train2.png", "val1.png", "val2.png"]
    probe = dict(zip(column("probe.csv", "path"), column("probe.csv", "split"), strict=True))
    assert {image for image, split in probe.items() if split == "test"} == {"test1.png", "test2.png"}
    assert column("probe.csv", "label") == ["1", "0", "1", "0"]
    assert set(column("volumes.csv", "path")) == set(HOSTS)
    assert not set(HOSTS) & set(HOSTS_HELD_OUT)
    assert COHORTS["held_out"][2] == HOSTS_HELD_OUT
    held_out = [
        path
        for path, flag in zip(column("lungs.csv", "path"), column("lungs.csv", "held_out"), strict=True)
        if flag == "1"
    ]
    assert held_out == ["lowres_id003.nii.gz"]
    assert "cap_001_5mm.mha" not in [*LUNG_SCANS, *HOSTS, *HOSTS_HELD_OUT]
