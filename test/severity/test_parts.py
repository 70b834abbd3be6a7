"""What must be in a bundle of the severity method, in format 2 and in format 1."""

import hashlib
import json
import shutil

import pytest
import torch

from balaitous.errors import WeightsError
from balaitous.networks.layouts import unet_from
from balaitous.networks.unet import UNet
from balaitous.severity.features import encoder_input
from balaitous.severity.pack import states_of, write_parts
from balaitous.severity.parts import INPUTS, KINDS, OUTPUTS, check_parts, load_heads, open_parts
from balaitous.weights.bundle import open_bundle
from balaitous.weights.format_1 import UNSAID, as_format_2
from balaitous.weights.pack import Facts
from balaitous.weights.search import find_bundle
from helpers import ROOT
from helpers.checkpoints import write_tiny_bundle

MINI = ROOT / "resources/mini"


@pytest.fixture(scope="module")
def made_once(tmp_path_factory):
    return write_tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny")


@pytest.fixture
def folder(made_once, tmp_path):
    """A bundle of its own for each test, to be changed."""
    return shutil.copytree(made_once, tmp_path / "tiny")


def change(folder, edit):
    path = folder / "bundle.json"
    facts = json.loads(path.read_text())
    edit(facts)
    path.write_text(json.dumps(facts))


def test_what_format_1_left_unsaid_is_what_the_method_does():
    assert set(UNSAID) == set(KINDS)
    for name, unsaid in UNSAID.items():
        assert unsaid == {"input": INPUTS[name], "outputs": list(OUTPUTS[name])}


def test_what_is_said_of_an_encoder_s_input_is_what_it_gets():
    said = INPUTS["encoder_full"]
    low, high = said["window"]
    seen = encoder_input(torch.tensor([low - 1.0, low, high, high + 1.0]).view(1, 1, 4))
    mean, std = (torch.tensor(said[key]) for key in ("mean", "std"))
    torch.testing.assert_close(seen[0, :, 0, 0], (0 - mean) / std)
    torch.testing.assert_close(seen[0, :, 0, 1], (0 - mean) / std)
    torch.testing.assert_close(seen[0, :, 0, 2], (1 - mean) / std)
    torch.testing.assert_close(seen[0, :, 0, 3], (1 - mean) / std)


def test_a_bundle_of_format_1_reads_as_it_would_in_format_2_with_the_hash_of_its_own_file(tmp_path):
    old = open_parts(MINI)
    facts = json.loads((MINI / "bundle.json").read_text())
    assert facts["format_version"] == 1
    assert old.sha256 == hashlib.sha256((MINI / "bundle.json").read_bytes()).hexdigest()
    assert old.model == "severity"
    new = open_parts(write_parts(tmp_path / "new", Facts("new"), states_of(old), load_heads(old)))
    assert json.loads((new.folder / "bundle.json").read_text())["format_version"] == 2
    assert (new.networks, new.arrays) == (old.networks, old.arrays), "the same bytes, and the same facts about them"
    assert as_format_2(facts)["arrays"] == {"heads": facts["heads"]}
    check_parts(MINI)
    check_parts(new.folder)


@pytest.mark.parametrize("fact", ["heads", "networks", "name"])
def test_what_is_missing_in_format_1_is_named(tmp_path, fact):
    folder = shutil.copytree(MINI, tmp_path / "mini")
    change(folder, lambda facts: facts.pop(fact))
    with pytest.raises(WeightsError, match=f"bundle.json: expected '{fact}' .* found nothing"):
        open_bundle(folder)


def test_a_network_that_is_missing_in_format_1_is_named(tmp_path):
    folder = shutil.copytree(MINI, tmp_path / "mini")
    change(folder, lambda facts: facts["networks"].pop("encoder_full"))
    with pytest.raises(WeightsError, match=r"expected 'encoder_full' .dict., found nothing"):
        open_bundle(folder)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda facts: facts.update(model="xray"), "expected a bundle of the model severity, found one of xray"),
        (
            lambda facts: facts["networks"].pop("encoder_lung"),
            "expected the networks lung_unet, encoder_full, encoder_lung, found lung_unet, encoder_full",
        ),
        (lambda facts: facts.update(arrays={}), "expected the arrays heads, found none"),
        (
            lambda facts: facts["networks"]["encoder_full"]["input"].update(window=[-1000, 400]),
            r"input of encoder_full must be .*-1024, 600.* Got .*-1000, 400",
        ),
        (lambda facts: facts["networks"]["lung_unet"].update(outputs=["lung"]), "outputs of lung_unet must be"),
        (lambda facts: facts["networks"]["lung_unet"].update(outputs=[1]), "outputs must be names"),
        (
            lambda facts: facts["networks"]["lung_unet"]["architecture"].update(classes=6),
            "lung_unet must have the classes background, right_lung, left_lung",
        ),
    ],
)
def test_a_bundle_that_is_not_the_method_s_is_refused_in_one_line(folder, edit, message):
    change(folder, edit)
    with pytest.raises(WeightsError, match=message) as error:
        open_parts(folder)
    assert "\n" not in str(error.value)


def test_a_lung_network_with_other_classes_is_not_packed(made_once, tmp_path):
    base = open_parts(made_once)
    states = dict(states_of(base)) | {"lung_unet": unet_from(UNet(6, 3, 4).state_dict(), source="lobes")}
    with pytest.raises(WeightsError, match=r"must have the classes background, right_lung, left_lung. Got 6"):
        write_parts(tmp_path / "lobes", Facts("lobes"), states, load_heads(base))


def test_the_default_bundle_is_found_for_the_method():
    assert open_parts(find_bundle("mini")).model == "severity"
