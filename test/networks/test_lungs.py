"""The one way from a CT to its lung labels."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from balaitous.ct.lungs import LEFT, RIGHT
from balaitous.networks.lungs import segment_lungs, windowed
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
