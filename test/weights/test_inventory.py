"""What `weights verify` and `weights list` show."""

import hashlib
import json
import os
import shutil
from dataclasses import replace

import pytest
import safetensors.numpy

from balaitous.models import MODELS
from balaitous.weights.inventory import list_bundles, verify
from balaitous.weights.pack import Facts, write_bundle
from helpers.checkpoints import heads_arrays


@pytest.fixture
def folder(made_once, tmp_path):
    """A bundle of its own for each test, to be damaged."""
    return shutil.copytree(made_once, tmp_path / "tiny")


def rewrite(folder, **changes):
    path = folder / "bundle.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_verify_finds_nothing_wrong_with_a_whole_bundle(folder):
    assert [check.problem for check in verify(folder)] == [None] * 5


def test_verify_reports_each_file_and_is_not_fooled_by_an_old_modification_time(folder):
    assert all(check.ok for check in verify(folder))
    path = folder / "encoder_full.safetensors"
    before = path.stat()
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    (folder / "heads.safetensors").unlink()
    problems = {check.file: check.problem for check in verify(folder) if not check.ok}
    assert set(problems) == {"encoder_full.safetensors", "heads.safetensors"}
    assert "expected SHA-256" in problems["encoder_full.safetensors"]


def test_verify_builds_the_networks(folder):
    networks = json.loads((folder / "bundle.json").read_text())["networks"]
    networks["encoder_full"]["architecture"]["blocks"] = 3
    rewrite(folder, networks=networks)
    problems = {check.file: check.problem for check in verify(folder) if not check.ok}
    assert list(problems) == ["encoder_full.safetensors"]
    assert "missing (blocks.2.norm1.weight" in problems["encoder_full.safetensors"]


def test_verify_of_a_folder_without_bundle_says_so(tmp_path):
    (check,) = verify(tmp_path)
    assert check.file == "bundle.json"
    assert "No such file" in check.problem


def test_the_list_shows_every_place_and_which_bundle_is_in_use(made_once, elsewhere):
    shutil.copytree(made_once, elsewhere["mini"])
    shutil.copytree(made_once, elsewhere["mini"].with_name("mine"))
    (elsewhere["cache"]).mkdir(parents=True)
    (elsewhere["cache"] / "bundle.json").write_text("{}")
    listed = {entry.folder: entry for entry in list_bundles()}
    assert set(elsewhere.values()) <= set(listed)
    assert listed[elsewhere["mini"]].bundle.name == "tiny"
    assert listed[elsewhere["mini"]].size_bytes == sum(
        path.stat().st_size for path in made_once.iterdir() if path.name != "CARD.md"
    )
    assert listed[elsewhere["mini"].with_name("mine")].place == "by name"
    assert "format_version" in listed[elsewhere["cache"]].problem
    assert listed[elsewhere["stoic"]].bundle is None
    assert [entry.folder for entry in listed.values() if entry.in_use] == [elsewhere["cache"]]


def test_the_list_shows_why_the_bundle_of_the_environment_is_not_there(made_once, elsewhere, monkeypatch):
    monkeypatch.setenv("BALAITOUS_WEIGHTS", "nowhere")
    first = list_bundles()[0]
    assert first.place == "$BALAITOUS_WEIGHTS"
    assert "found no bundle.json" in first.problem
    monkeypatch.setenv("BALAITOUS_WEIGHTS", str(made_once))
    assert list_bundles()[0].in_use


def test_verify_asks_the_model_whether_whole_parts_belong_together(folder):
    safetensors.numpy.save_file(heads_arrays(width=384), folder / "heads.safetensors")
    digest = hashlib.sha256((folder / "heads.safetensors").read_bytes()).hexdigest()
    rewrite(folder, arrays={"heads": {"file": "heads.safetensors", "sha256": digest}})
    problems = {check.file: check.problem for check in verify(folder) if not check.ok}
    assert list(problems) == ["bundle.json"]
    assert "Were these heads fitted on this encoder" in problems["bundle.json"]


def test_verify_of_a_model_that_this_version_does_not_know_looks_at_its_files(tmp_path):
    out = write_bundle(tmp_path / "x", Facts("x"), model="unknown", networks={})
    assert [(check.file, check.problem) for check in verify(out)] == [("bundle.json", None)]


def test_each_model_s_list_shows_its_places_and_the_bundles_that_name_it(made_once, elsewhere, monkeypatch):
    other = replace(MODELS["severity"], name="other", bundles=("mini-other",), published="")
    monkeypatch.setitem(MODELS, "other", other)
    resources = elsewhere["mini"].parent
    ours = shutil.copytree(made_once, elsewhere["mini"])
    theirs, more, nobodys = (
        write_bundle(resources / name, Facts(name), model=model, networks={})
        for name, model in (("mini-other", "other"), ("more-other", "other"), ("nobodys", "unknown"))
    )
    listed = {name: {each.folder: each for each in list_bundles(MODELS[name])} for name in ("severity", "other")}
    assert [folder for folder, each in listed["severity"].items() if each.bundle] == [ours, nobodys]
    assert [folder for folder, each in listed["other"].items() if each.bundle] == [theirs, more]
    assert [folder for folder, each in listed["other"].items() if each.in_use] == [theirs]
    monkeypatch.setenv("BALAITOUS_WEIGHTS", str(more))
    assert list_bundles(other)[0].in_use
    assert "$BALAITOUS_WEIGHTS" not in {each.place for each in list_bundles()}
