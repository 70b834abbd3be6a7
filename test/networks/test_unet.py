"""The lung U-Net against one that is written out operation by operation."""

import torch
import torch.nn.functional as F

from balaitous.networks.unet import UNet, without_unused_keys


def randomised(module: torch.nn.Module) -> torch.nn.Module:
    """The module with seeded weights and batch statistics that are all different."""
    torch.manual_seed(0)
    for tensor in module.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(torch.rand_like(tensor) * 0.2 + 0.02)
    return module.eval()


def reference_unet(state: dict, x: torch.Tensor) -> torch.Tensor:
    """R231 written out operation by operation, upsampling first as it was published."""

    def block(prefix: str, x: torch.Tensor) -> torch.Tensor:
        for convolution, norm in (("0", "2"), ("3", "5")):
            x = F.conv2d(x, state[f"{prefix}.{convolution}.weight"], state[f"{prefix}.{convolution}.bias"], padding=1)
            names = ("running_mean", "running_var", "weight", "bias")
            x = F.batch_norm(x.relu(), *(state[f"{prefix}.{norm}.{name}"] for name in names))
        return x

    skips = []
    for level in range(5):
        x = block(f"down_path.{level}.block", F.avg_pool2d(x, 2) if level else x)
        skips.append(x)
    for level in range(4):
        x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
        x = F.conv2d(x, state[f"up_path.{level}.up.1.weight"], state[f"up_path.{level}.up.1.bias"])
        x = block(f"up_path.{level}.conv_block.block", torch.cat([x, skips[3 - level]], 1))
    return F.conv2d(x, state["last.weight"], state["last.bias"])


@torch.inference_mode()
def test_unet_is_the_published_network():
    network = randomised(UNet(width=4))
    x = torch.rand(2, 1, 64, 48)
    expected = reference_unet(network.state_dict(), x)
    assert torch.allclose(network(x), expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item())


def test_unet_of_the_published_size_has_the_published_channels():
    with torch.device("meta"):
        state = UNet().state_dict()
    assert state["down_path.0.block.0.weight"].shape == (64, 1, 3, 3)
    assert state["down_path.4.block.3.weight"].shape == (1024, 1024, 3, 3)
    assert state["up_path.0.up.1.weight"].shape == (512, 1024, 1, 1)
    assert state["last.weight"].shape == (3, 64, 1, 1)


def test_only_residual_tensors_are_left_out():
    state = {"down_path.0.block.0.weight": 1, "down_path.0.residual_batchnorm.weight": 2, "last.bias": 3}
    assert list(without_unused_keys(state)) == ["down_path.0.block.0.weight", "last.bias"]
