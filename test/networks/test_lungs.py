"""The one way from a CT to its lung labels."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from balaitous.ct.lungs import LEFT, RIGHT
from balaitous.errors import WeightsError
from balaitous.networks.lungs import label_crops, segment_lungs, windowed
from balaitous.networks.runtime import Chunker, TorchNetwork
from balaitous.severity.crops import crop_to_lungs
from balaitous.severity.preparation import prepare, upright
from helpers.phantoms import committed_phantom


@pytest.mark.parametrize(("hu", "unit"), [(-2000, 0.0), (-1024, 0.0), (-212, 0.5), (600, 1.0), (3000, 1.0)])
def test_the_window_of_the_networks_is_the_unit_interval(hu, unit):
    assert windowed(torch.tensor([hu], dtype=torch.int16)).tolist() == [unit]


def test_prediction_sees_the_lungs_that_everybody_else_segments(model, prediction):
    prepared = prepare(committed_phantom())
    labels = segment_lungs(prepared.ct.hu, *model.network("lung_unet"))
    assert set(np.unique(labels)) == {0, RIGHT, LEFT}
    image, mask, _ = crop_to_lungs(*upright(prepared.ct, labels))
    assert np.array_equal(image, prediction.image)
    assert np.array_equal(mask, prediction.mask)


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_a_network_that_answers_with_no_numbers_labels_nothing(number):
    def broken(images):
        logits = torch.zeros(len(images), 3, 256, 256)
        logits[-1, 1, 7, 9] = number
        return logits

    network = TorchNetwork(broken, torch.device("cpu"), torch.float32)
    with pytest.raises(WeightsError, match="expected numbers from the network that finds lungs, found NaN"):
        label_crops(np.zeros((3, 256, 256), np.int16), network, Chunker(2))
