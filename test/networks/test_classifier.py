"""A timm backbone with named outputs: shapes, what it is refused for, and how pictures reach it."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from balaitous.errors import WeightsError
from balaitous.networks.classifier import Classifier, resized, standardised
from balaitous.networks.loading import build_network, check_fit, load_strictly

LITE = {"kind": "timm", "timm_name": "tf_efficientnet_lite0", "outputs": 6}


@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "densenet121", "resnet18"])
def test_any_backbone_gives_a_logit_for_each_output(name):
    network = Classifier(name, 6).eval()
    with torch.no_grad():
        images = torch.randn(2, 3, 64, 64)
        assert network(images).shape == (2, 6)
        features = network.features(images)
    assert torch.allclose(network.head(features), network(images), atol=1e-6)
    assert network.head.in_features == features.shape[1]


def test_a_bundle_rebuilds_it_strictly():
    torch.manual_seed(0)
    state = Classifier("tf_efficientnet_lite0", 6).state_dict()
    network = build_network(LITE)
    load_strictly(network, state, source="test")
    assert torch.equal(network.head.weight, state["head.weight"])
    with pytest.raises(WeightsError, match=r"head\.bias: expected \(4,\), found \(6,\)"):
        check_fit(build_network(LITE | {"outputs": 4}), state, source="test")


def test_a_backbone_that_timm_does_not_know_is_refused():
    with pytest.raises(WeightsError, match=r"timm_name must be an architecture of timm\. Got 'hf-hub:x/y'"):
        build_network(LITE | {"timm_name": "hf-hub:x/y"})


@settings(max_examples=20)
@given(st.integers(16, 90), st.integers(16, 90), st.floats(0, 1))
def test_a_picture_of_one_grey_stays_it_at_any_size(rows, columns, grey):
    picture = resized(np.full((rows, columns), grey, np.float32), (32, 48))
    assert picture.shape == (32, 48)
    assert torch.allclose(picture, torch.tensor(grey, dtype=torch.float32), atol=1e-6)


def test_making_a_picture_smaller_takes_every_pixel_into_account():
    stripes = np.tile(np.array([0, 1], np.float32), (64, 32))
    assert torch.allclose(resized(stripes, (16, 16))[:, 1:-1], torch.tensor(0.5), atol=1e-3)


def test_grey_becomes_three_standardised_channels():
    images = standardised(torch.tensor([[[0.0, 1.0]]]), (0.5, 0.4, 0.3), (0.5, 0.5, 0.1))
    assert images.shape == (1, 3, 1, 2)
    assert torch.allclose(images[0, :, 0, 1], torch.tensor([1.0, 1.2, 7.0]))
