"""Bundles written from memory, and state dicts read from files."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from balaitous.errors import WeightsError
from balaitous.networks.layouts import vit_from
from balaitous.networks.loading import build_network, load_strictly
from balaitous.severity.heads_file import read_heads
from balaitous.weights.bundle import open_bundle
from balaitous.weights.inventory import verify
from balaitous.weights.pack import Facts, NetworkWeights, read_state, write_bundle
from helpers.checkpoints import vit_state


class Surprise:
    """Unpickling this would run code."""

    def __reduce__(self):
        return (shutil.rmtree, ("/nowhere",))


@pytest.mark.parametrize("name", ["file.pth", "file.safetensors"])
@pytest.mark.parametrize(
    "content", [b"", b"<html>404</html>", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", b"PK\x03\x04"]
)
def test_bytes_that_are_no_weights_are_refused_in_one_line(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(WeightsError, match=name) as error:
        read_state(tmp_path / name)
    assert "\n" not in str(error.value)


def test_a_pickle_is_never_executed(tmp_path):
    torch.save({"cls_token": Surprise()}, tmp_path / "surprise.pth")
    with pytest.raises(WeightsError, match=r"surprise.pth: expected a network's state dict"):
        read_state(tmp_path / "surprise.pth")
    np.savez(tmp_path / "surprise.npz", coef_full_covid=np.array([Surprise()], dtype=object))
    with pytest.raises(WeightsError, match=r"surprise\.npz"):
        read_heads(tmp_path / "surprise.npz")


def weights(**changes):
    """A network to be stored; changes are those of its architecture."""
    state, architecture = vit_from(vit_state(2), 2, source="vit")
    return NetworkWeights(state, architecture | changes, {"size": [3, 224, 224], "range": [0, 255]}, ["class_token"])


def test_networks_and_arrays_from_memory_are_written_with_their_facts(tmp_path):
    numbers = {"mean": np.arange(3.0), "counts": np.array([[1, 2]], np.int32)}
    facts = Facts("some", "mine", "to try it out", True, {"seed": 1}, {"auc": {"value": 0.9, "ci_low": 0.8}})
    out = write_bundle(tmp_path / "x", facts, model="new", networks={"encoder": weights()}, arrays={"norms": numbers})
    bundle = open_bundle(out)
    assert json.loads((out / "bundle.json").read_text())["format_version"] == 2
    assert (bundle.name, bundle.model, bundle.licence, bundle.demonstration) == ("some", "new", "mine", True)
    assert (bundle.training, bundle.metrics) == (facts.training, facts.metrics)
    record = bundle.networks["encoder"]
    assert record.input == {"size": [3, 224, 224], "range": [0, 255]}
    assert record.outputs == ("class_token",)
    for name, array in bundle.load_arrays("norms").items():
        assert array.tobytes() == numbers[name].tobytes()
        assert (array.dtype, array.shape) == (numbers[name].dtype, numbers[name].shape)
    assert [check.problem for check in verify(out)] == [None] * 3


def test_networks_are_stored_in_float16_unless_asked_otherwise_and_widened_on_loading(tmp_path):
    whole = weights()
    for dtype, expected in ((None, torch.float32), ("float32", torch.float32), ("float16", torch.float16)):
        given = {} if dtype == "float16" else {"dtype": dtype}
        out = write_bundle(tmp_path / str(dtype), Facts("x"), model="new", networks={"encoder": whole}, **given)
        state = open_bundle(out).load_state("encoder")
        assert {tensor.dtype for tensor in state.values()} == {expected}
        network = build_network(whole.architecture)
        load_strictly(network, state, source="encoder")
        for key, tensor in network.state_dict().items():
            assert tensor.dtype == torch.float32
            assert torch.equal(tensor, whole.state[key].to(expected).float())


def test_every_bundle_has_a_card_which_says_what_its_facts_say_or_what_it_was_given(tmp_path):
    facts = Facts("some", "CC BY 4.0", "to try it out", training={"data": "phantoms"}, metrics={"auc": 0.75})
    out = write_bundle(tmp_path / "made", facts, model="new", networks={"encoder": weights()})
    card = (out / "CARD.md").read_text()
    for words in ("`some`", "`new`", "CC BY 4.0", "to try it out", "phantoms", "0.75", "not for diagnosis", "blocks 2"):
        assert words in card
    assert "demonstration" not in card.lower()
    lineage = {"of": {"name": "first", "training": {"of": {"name": "before the first"}}}}
    shown = replace(facts, demonstration=True, training=lineage)
    out = write_bundle(tmp_path / "demonstration", shown, model="new", networks={"encoder": weights()})
    card = (out / "CARD.md").read_text()
    assert "mean nothing for a patient" in card
    assert "first" in card
    assert "before the first" not in card, "a card is short"
    out = write_bundle(tmp_path / "given", facts, model="new", networks={"encoder": weights()}, card="# Mine\n")
    assert (out / "CARD.md").read_text() == "# Mine\n"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"blocks": 1}, "encoder: expected exactly"),
        ({"kind": "resnet"}, "encoder: kind must be one of unet, vit, timm. Got 'resnet'"),
        ({"heads": 3}, "encoder: the architecture of kind vit must have timm_name, blocks. Got"),
        ({"blocks": True}, "encoder: blocks must be of type int. Got True"),
    ],
)
def test_a_training_that_states_another_architecture_is_refused(tmp_path, changes, message):
    with pytest.raises(WeightsError, match=message):
        write_bundle(tmp_path / "out", Facts("out"), model="new", networks={"encoder": weights(**changes)})
    assert not any(tmp_path.iterdir())
