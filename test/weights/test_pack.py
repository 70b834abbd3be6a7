"""Bundles written from memory, and state dicts read from files."""

import json
import shutil

import numpy as np
import pytest
import torch

from balaitous.errors import WeightsError
from balaitous.networks.layouts import unet_from, vit_from
from balaitous.severity.heads_file import read_heads
from balaitous.weights.bundle import open_bundle
from balaitous.weights.inventory import verify
from balaitous.weights.pack import read_state, write_bundle
from helpers.checkpoints import heads_arrays, unet_state, vit_state


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


def test_networks_from_memory_are_written_with_their_facts(tmp_path):
    out = write_bundle(
        tmp_path / "mini",
        name="mini",
        licence="research use only",
        intended_use="demonstration",
        demonstration=True,
        networks={
            "lung_unet": unet_from(unet_state(), source="unet"),
            "encoder_full": vit_from(vit_state(2), 2, source="full"),
            "encoder_lung": vit_from(vit_state(3), 1, source="lung"),
        },
        heads={name: array.reshape(1, -1) for name, array in heads_arrays().items()},  # as scikit-learn has them
        training={"seed": 1},
        metrics={"auc_covid": {"value": 0.9, "ci_low": 0.8, "ci_high": 0.95}},
    )
    bundle = open_bundle(out)
    assert bundle.demonstration
    assert (bundle.licence, bundle.intended_use) == ("research use only", "demonstration")
    assert bundle.training == {"seed": 1}
    assert bundle.metrics["auc_covid"]["ci_low"] == 0.8
    assert all(check.ok for check in verify(out))
    assert json.loads((out / "bundle.json").read_text())["format_version"] == 1


def test_a_training_that_states_another_architecture_is_refused(tmp_path):
    state, architecture = vit_from(vit_state(2), 2, source="full")
    with pytest.raises(WeightsError, match="encoder_lung: expected exactly"):
        write_bundle(
            tmp_path / "out",
            name="out",
            licence="",
            intended_use="",
            demonstration=True,
            networks={
                "lung_unet": unet_from(unet_state(), source="unet"),
                "encoder_full": (state, architecture),
                "encoder_lung": (state, architecture | {"blocks": 1}),
            },
            heads=heads_arrays(),
        )
    assert not any(tmp_path.iterdir())
