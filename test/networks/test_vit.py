"""The encoders against timm."""

import pytest
import timm
import torch

from balaitous.networks.vit import ClassTokenEncoder, linear


@pytest.fixture
def images():
    return torch.randn(3, 3, 224, 224, generator=torch.Generator().manual_seed(0))


@torch.inference_mode()
@pytest.mark.parametrize("blocks", [1, 3])
def test_encoder_gives_the_class_token_of_timm_before_the_norm(blocks, images):
    vit = timm.create_model("vit_tiny_patch16_224", num_classes=0, depth=4).eval()
    encoder = ClassTokenEncoder("vit_tiny_patch16_224", blocks).eval()
    kept = encoder.state_dict()
    encoder.load_state_dict({key: tensor for key, tensor in vit.state_dict().items() if key in kept})
    tokens = vit.forward_intermediates(images, [blocks - 1], return_prefix_tokens=True, norm=False, output_fmt="NLC")
    (_, prefix) = tokens[1][0]
    assert torch.allclose(encoder(images), prefix[:, 0], atol=1e-5)


@pytest.mark.parametrize("bias", [True, False])
def test_a_linear_layer_on_a_cpu_is_the_matrix_product(bias):
    torch.manual_seed(0)
    x, layer = torch.randn(3, 5, 24), torch.nn.Linear(24, 17, bias=bias)
    with torch.no_grad():
        assert torch.allclose(linear(x, layer.weight, layer.bias), layer(x), rtol=0, atol=1e-5)
        double = layer.double()
        assert torch.equal(linear(x.double(), double.weight, double.bias), double(x.double()))


def test_encoder_holds_no_weight_that_never_runs():
    names = ClassTokenEncoder("vit_tiny_patch16_224", 2).state_dict()
    assert not [name for name in names if name.startswith(("norm", "head", "blocks.2"))]
