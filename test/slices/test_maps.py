"""Maps of the committed bundle depend on what its network has learned, not on edges that any network finds."""

import csv

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from balaitous.errors import WeightsError
from balaitous.networks.cam import grad_cam_pp
from balaitous.networks.classifier import Classifier
from balaitous.reading.pictures import read_picture
from balaitous.slices.pipeline import SliceClassifier

PICTURES = 24
MOST_ALIKE = 0.5  # |r|, median


@pytest.fixture(scope="module")
def model():
    try:
        return SliceClassifier("mini-slices", device="cpu")
    except WeightsError as error:
        pytest.skip(f"needs the bundle mini-slices: {error}")


@pytest.mark.data
def test_maps_of_a_network_with_random_weights_are_others(model, data):
    with (data / "covid_ct_slices/val_meta.csv").open(newline="") as file:
        names = [row["imgname"].rpartition(".")[0] for row in csv.DictReader(file) if row["CVD19"]][:PICTURES]
    torch.manual_seed(0)
    random = Classifier(model.bundle.networks["classifier"].architecture["timm_name"], 6).eval()
    alike = []
    for name in names:
        grey = read_picture(data / f"covid_ct_slices/images/{name}.png").grey
        image = model.input.images(model.input.picture(grey)[None])
        maps = [grad_cam_pp(each, [each.maps], image, 0).numpy().ravel() for each in (model.network.module, random)]
        if all(np.ptp(each) for each in maps):  # a map without any place has no ranks
            alike.append(abs(spearmanr(*maps).statistic))
    assert len(alike) >= PICTURES // 2
    assert np.median(alike) < MOST_ALIKE
