"""Where a bundle is found, and for which model."""

import os
import shutil

import pytest

from balaitous.errors import WeightsError
from balaitous.models import Model
from balaitous.weights import search as search_module
from balaitous.weights.pack import Facts, write_bundle
from balaitous.weights.search import find_bundle, search_places
from helpers import ROOT

OTHER = Model(name="other", title="", reads=("ct",), outputs={}, bundles=("mini-other",), where="")


def assert_one_line(error):
    assert error.value.exit_code == 4
    assert "\n" not in str(error.value)


def write_other(folder, model="other"):
    """A bundle of another model, which needs no networks."""
    return write_bundle(folder, Facts(folder.name), model=model, networks={})


def test_bundles_are_found_in_the_order_of_the_design(made_once, elsewhere, monkeypatch):
    for place in ("installed", "mini", "cache", "stoic", "model"):  # from last to first
        shutil.copytree(made_once, elsewhere[place])
        assert find_bundle() == elsewhere[place]
    monkeypatch.setenv("BALAITOUS_WEIGHTS", str(made_once))
    assert find_bundle() == made_once
    assert find_bundle(elsewhere["cache"]) == elsewhere["cache"]


def test_nothing_found_lists_every_place_and_what_to_do(elsewhere):
    with pytest.raises(WeightsError, match="no weights found") as error:
        find_bundle()
    assert_one_line(error)
    for folder in elsewhere.values():
        assert str(folder) in str(error.value)
    assert "balaitous weights fetch stoic" in str(error.value)


def test_a_name_is_looked_up_among_the_bundles(made_once, elsewhere):
    shutil.copytree(made_once, elsewhere["cache"])
    shutil.copytree(made_once, elsewhere["installed"])
    assert find_bundle("stoic") == elsewhere["cache"]
    assert find_bundle("mini") == elsewhere["installed"]
    shutil.copytree(made_once, elsewhere["stoic"].with_name("mine"))
    assert find_bundle("mine") == elsewhere["stoic"].with_name("mine")


@pytest.mark.parametrize("asked", ["stoic", "no/such/folder", "~/nowhere"])
def test_what_was_asked_for_and_is_not_there_never_falls_back(made_once, elsewhere, monkeypatch, asked):
    shutil.copytree(made_once, elsewhere["mini"])
    with pytest.raises(WeightsError, match=f"weights '{asked}': expected a weight bundle's name or folder") as error:
        find_bundle(asked)
    assert_one_line(error)
    monkeypatch.setenv("BALAITOUS_WEIGHTS", asked)
    with pytest.raises(WeightsError, match=r"\$BALAITOUS_WEIGHTS"):
        find_bundle()


def test_a_model_mount_may_be_empty_or_hold_the_bundle_in_its_only_sub_folder(made_once, elsewhere):
    shutil.copytree(made_once, elsewhere["mini"])
    elsewhere["model"].mkdir()
    assert find_bundle() == elsewhere["mini"]
    shutil.copytree(made_once, elsewhere["model"] / "stoic")
    assert find_bundle() == elsewhere["model"] / "stoic"


def test_a_model_mount_with_something_else_in_it_is_not_passed_over(made_once, elsewhere):
    shutil.copytree(made_once, elsewhere["mini"])
    elsewhere["model"].mkdir()
    (elsewhere["model"] / "checkpoint.pth").touch()
    with pytest.raises(WeightsError, match=r"expected bundle.json in it .* found checkpoint.pth") as error:
        find_bundle()
    assert_one_line(error)


def test_without_a_home_the_search_goes_on(made_once, elsewhere, monkeypatch):
    shutil.copytree(made_once, elsewhere["mini"])
    monkeypatch.delenv("BALAITOUS_CACHE")
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # what it does for a user without a home
    assert search_module.user_cache() is None
    assert find_bundle() == elsewhere["mini"]


# For which model


def test_a_model_s_own_names_are_searched_what_is_fetched_first_what_comes_along_last(elsewhere, tmp_path):
    resources, installed = elsewhere["mini"].parent, elsewhere["installed"].parent
    assert [folder for _, folder in search_places(OTHER)] == [
        elsewhere["model"],
        resources / "mini-other",
        installed / "mini-other",
    ]
    assert [folder for _, folder in search_places("severity")] == [
        elsewhere[place] for place in ("model", "stoic", "cache", "mini", "installed")
    ]
    with pytest.raises(WeightsError, match="no weights found") as error:
        find_bundle(model=OTHER)
    assert_one_line(error)
    assert "fetch" not in str(error.value), "there is nothing to be fetched for it"
    assert str(elsewhere["mini"].parent / "mini-other") in str(error.value)


def test_weights_that_were_asked_for_must_fit_the_model(made_once, elsewhere):
    shutil.copytree(made_once, elsewhere["mini"])
    theirs = write_other(elsewhere["mini"].with_name("mini-other"))
    assert find_bundle("mini-other", OTHER) == find_bundle(model=OTHER) == theirs
    for weights, model, message in (
        ("mini-other", "severity", "weights 'mini-other': expected a bundle of the model severity, found one of other"),
        (theirs, "severity", "expected a bundle of the model severity, found one of other"),
        ("mini", OTHER, "weights 'mini': expected a bundle of the model other, found one of severity"),
    ):
        with pytest.raises(WeightsError, match=message) as error:
            find_bundle(weights, model)
        assert_one_line(error)


@pytest.mark.parametrize("place", ["environment", "model"])
def test_what_is_meant_for_all_models_counts_for_the_one_that_its_bundle_names(
    made_once, elsewhere, monkeypatch, tmp_path, place
):
    ours = shutil.copytree(made_once, elsewhere["mini"])
    theirs = write_other(elsewhere["mini"].with_name("mini-other"))
    special = write_other(tmp_path / "special" if place == "environment" else elsewhere["model"])
    if place == "environment":
        monkeypatch.setenv("BALAITOUS_WEIGHTS", str(special))
    assert find_bundle(model=OTHER) == special
    assert find_bundle() == ours
    shutil.rmtree(special)
    shutil.copytree(made_once, special)
    assert find_bundle(model=OTHER) == theirs
    assert find_bundle() == special


def test_what_cannot_be_read_is_passed_over_for_no_model(made_once, elsewhere, monkeypatch):
    """Whose it is cannot be told: to open it says what is wrong with it."""
    shutil.copytree(made_once, elsewhere["mini"])
    elsewhere["model"].mkdir()
    (elsewhere["model"] / "bundle.json").write_text("{")
    assert find_bundle() == find_bundle(model=OTHER) == elsewhere["model"]
    monkeypatch.setenv("BALAITOUS_WEIGHTS", "nowhere")
    for model in ("severity", OTHER):
        with pytest.raises(WeightsError, match=r"\$BALAITOUS_WEIGHTS 'nowhere'"):
            find_bundle(model=model)


def test_a_bundle_of_format_1_is_severity_s(elsewhere):
    folder = shutil.copytree(ROOT / "resources/mini", elsewhere["model"])
    assert find_bundle() == folder
    with pytest.raises(WeightsError, match="found one of severity"):
        find_bundle(folder, OTHER)
