"""Class activation maps beside their closed forms."""

import pytest
import torch
from torch import nn

from balaitous.networks.cam import grad_cam, grad_cam_pp
from balaitous.networks.classifier import Classifier


class Pooled(nn.Module):
    """Feature maps, mean-pooled, and a linear layer: of which the maps are known."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(inplace=True))
        self.maps = nn.Conv2d(4, 5, 3, stride=2, padding=1)
        self.after = nn.ReLU(inplace=True)
        self.head = nn.Linear(5, 3)

    def forward(self, images):
        return self.head(self.after(self.maps(self.first(images))).mean((2, 3)))


@pytest.fixture
def network():
    torch.manual_seed(0)
    return Pooled().eval()


@pytest.fixture
def images():
    return torch.randn(2, 3, 12, 10, generator=torch.Generator().manual_seed(1))


def test_of_a_pooled_linear_head_grad_cam_is_the_weighted_sum_of_the_maps(network, images):
    for output in range(3):
        with torch.no_grad():
            features = network.after(network.maps(network.first(images)))
            expected = torch.einsum("k,bkhw->bhw", network.head.weight[output], features).relu() / 30
        found = grad_cam(network, [network.after], images, output)
        assert found.shape == (2, 6, 5)
        assert torch.allclose(found, expected, atol=1e-6)


def test_of_a_pooled_linear_head_grad_cam_pp_has_its_closed_form(network, images):
    with torch.no_grad():
        features = network.after(network.maps(network.first(images)))
        gradient = network.head.weight[1] / 30
        share = gradient**2 / (2 * gradient**2 + gradient**3 * features.sum((2, 3)))
        expected = torch.einsum("bk,bkhw->bhw", 30 * share * gradient.relu(), features).relu()
    assert torch.allclose(grad_cam_pp(network, [network.after], images, 1), expected, atol=1e-6)


def test_layers_that_are_written_over_give_what_they_gave(network, images):
    """`after` writes in place into what `maps` gave."""
    found = grad_cam(network, [network.maps], images, 0)
    with torch.no_grad():
        features = network.maps(network.first(images))
    weights = (network.head.weight[0][:, None, None] * (features > 0) / 30).mean((2, 3))
    assert torch.allclose(found, torch.einsum("bk,bkhw->bhw", weights, features).relu(), atol=1e-6)


def test_maps_of_several_layers_are_averaged_at_the_largest_size(network, images):
    found = grad_cam_pp(network, [network.first, network.after], images, 2)
    assert found.shape == (2, 12, 10)
    assert found.min() >= 0
    assert found.max() <= 1 + 1e-6


def test_a_network_is_left_as_it_was(network, images):
    network.requires_grad_(False)
    before = network(images)
    grad_cam(network, [network.after], images, 0)
    assert torch.equal(network(images), before)
    assert not any(each.requires_grad for each in network.parameters())
    assert not network.after._forward_hooks


def test_the_last_maps_of_a_classifier_are_to_be_had_of_any_output():
    torch.manual_seed(0)
    network = Classifier("resnet18", 2).eval().requires_grad_(False)
    images = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        features = network.backbone.forward_features(images)
    for output in range(2):
        expected = torch.einsum("k,bkhw->bhw", network.head.weight[output], features).relu() / 6
        assert torch.allclose(grad_cam(network, [network.maps], images, output), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("layers", "output", "says"),
    [([], 0, "at least one layer"), (["after"], 3, r"output must be in 0…2. Got 3"), (["head"], 0, "feature maps")],
)
def test_what_has_no_map_is_refused(network, images, layers, output, says):
    with pytest.raises(ValueError, match=says):
        grad_cam(network, [getattr(network, each) for each in layers], images, output)
