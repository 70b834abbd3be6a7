"""The fuzz targets of test/fuzz: they run, and find nothing in their first mutations."""

from __future__ import annotations

import importlib
import re

import pytest

from balaitous.ct.volume import read_ct
from balaitous.errors import InputError
from fuzz.mutation import mutated
from fuzz.run import TARGETS
from helpers import ROOT
from helpers.commands import run_python

MUTATIONS = 30  # of each target in the test suite; the targets themselves run for as long as one likes


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.filterwarnings("ignore:Expected (im|ex)plicit VR", "ignore:VR lookup failed")
def test_a_fuzz_target_finds_nothing_in_its_first_mutations(target, tmp_path, monkeypatch):
    module = importlib.import_module(f"fuzz.{target}")
    monkeypatch.setattr("fuzz.reading.MAXIMUM_MIB", float("inf"))  # of a process that other tests share
    seeds = module.seeds()
    for number in range(MUTATIONS):
        module.check(mutated(number, seeds, module.TOKENS), tmp_path)


@pytest.mark.parametrize("target", [each for each in TARGETS if each != "pictures"])  # test_pictures.py reads those
def test_the_seeds_of_a_fuzz_target_are_read_but_for_those_in_methods_that_are_refused(target, tmp_path):
    module, read = importlib.import_module(f"fuzz.{target}"), 0
    path = {"nifti": "scan.nii", "dicom": ".", "enhanced": ".", "archive": "series.zip", "sidecar": "scan.mha"}
    for seed in module.seeds():
        module.check(seed, tmp_path)
        try:
            read_ct(tmp_path / path.get(target, "scan.mhd" if target == "metaimage" else "scan.nhdr"))
            read += 1
        except InputError:
            pass
    assert read >= len(module.seeds()) - 2


@pytest.mark.slow
def test_the_command_that_fuzzes_reports_what_it_did(tmp_path):
    done = run_python(ROOT / "test/fuzz/run.py", "--plain", "--seconds", "2", "sidecar", cwd=tmp_path)
    assert re.fullmatch(r"sidecar: [\d,]+ inputs in 2 s, 0 findings\n", done.stdout)
