"""Slices to features."""

import numpy as np
import pytest
import torch

from balaitous.networks.runtime import Chunker, TorchNetwork, ready
from balaitous.networks.vit import ClassTokenEncoder
from balaitous.severity.features import encoder_input, scan_features


@pytest.fixture(scope="module")
def encoder() -> TorchNetwork:
    torch.manual_seed(0)
    encoder = ClassTokenEncoder("vit_tiny_patch16_224", 2)
    for parameter in encoder.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.05)
    return ready(encoder, torch.device("cpu"))


@pytest.fixture(scope="module")
def scan() -> np.ndarray:
    return np.random.default_rng(0).integers(-1024, 1000, (7, 224, 224)).astype(np.int16)


@torch.inference_mode()
def test_features_are_the_mean_over_slices_and_flips(encoder, scan):
    images = encoder_input(torch.from_numpy(scan))
    expected = torch.cat([encoder(images), encoder(images.flip(2))]).mean(0)
    assert np.allclose(scan_features(scan, encoder, Chunker(3)), expected, atol=1e-5)


def test_features_do_not_change_when_the_scan_is_turned_upside_down(encoder, scan):
    upright, turned = (scan_features(each, encoder, Chunker(4)) for each in (scan, scan[:, ::-1]))
    assert np.allclose(upright, turned, rtol=0, atol=1e-6)


def test_features_do_not_depend_on_chunks_or_order(encoder, scan):
    whole = scan_features(scan, encoder, Chunker(7))
    assert np.allclose(scan_features(scan, encoder, Chunker(1)), whole, rtol=0, atol=1e-6)
    assert np.allclose(scan_features(scan[::-1], encoder, Chunker(2)), whole, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("hu", "unit"), [(-3000, 0), (-1024, 0), (-212, 0.5), (600, 1), (3000, 1)])
def test_encoder_input_is_windowed_then_normalised_as_imagenet(hu, unit):
    image = encoder_input(torch.full((1, 2, 2), hu))
    expected = [(unit - 0.485) / 0.229, (unit - 0.456) / 0.224, (unit - 0.406) / 0.225]
    assert image.shape == (1, 3, 2, 2)
    assert image[0, :, 0, 0].tolist() == pytest.approx(expected, abs=1e-6)
