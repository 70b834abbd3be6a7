"""Networks against plain references, and how they run when memory is short."""

import pytest
import timm
import torch
import torch.nn.functional as F

from balaitous.networks.runtime import Chunker, built_for, choose_device, choose_precision
from balaitous.networks.unet import UNet, without_unused_keys
from balaitous.networks.vit import ClassTokenEncoder, linear


@pytest.fixture
def images():
    return torch.randn(3, 3, 224, 224, generator=torch.Generator().manual_seed(0))


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


def test_a_chunk_that_does_not_fit_is_halved_and_nothing_is_lost():
    tried = []

    def work(chunk: slice) -> list[int]:
        size = chunk.stop - chunk.start
        tried.append(size)
        if size > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return list(range(chunk.start, chunk.stop))

    chunker = Chunker(12)
    assert [i for chunk in chunker.run(10, work) for i in chunk] == list(range(10))
    assert tried == [10, 6, 3, 3, 3, 1]
    assert list(chunker.run(2, work)) == [[0, 1]]
    assert chunker.size == 12  # the next scan's digits do not depend on this one


def test_other_faults_are_not_taken_for_memory():
    def work(chunk: slice) -> None:
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes"):
        list(Chunker(8).run(8, work))


def test_memory_that_does_not_even_hold_one_slice_is_an_error():
    tried = []

    def work(chunk: slice) -> None:
        tried.append(chunk.stop)
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")

    with pytest.raises(RuntimeError, match="can't allocate"):
        list(Chunker(8).run(8, work))
    assert tried == [8, 4, 2, 1]


def test_a_gpu_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto").type == "cpu"
    with pytest.raises(ValueError, match="no GPU"):
        choose_device("cuda")


@pytest.mark.parametrize(
    ("capability", "architectures", "runs"),
    [
        ((9, 0), ["sm_80", "sm_90"], True),
        ((8, 6), ["sm_80"], True),  # code for 8.0 runs on 8.6
        ((8, 0), ["sm_86"], False),
        ((7, 0), ["sm_75", "sm_80", "sm_90a"], False),
        ((12, 0), ["sm_75", "sm_120"], True),
        ((12, 0), ["sm_90", "compute_90"], True),  # compiled when it is loaded
        ((7, 5), ["compute_80"], False),
        ((7, 5), [], False),
    ],
)
def test_a_gpu_runs_what_was_built_for_it(capability, architectures, runs):
    assert built_for(capability, architectures) is runs


@pytest.mark.parametrize("device", ["gpu", "mps", "cuda:x"])
def test_an_unknown_device_is_refused(device):
    with pytest.raises(ValueError, match="device must be one of auto, cpu, cuda"):
        choose_device(device)


def test_an_unknown_precision_is_refused():
    with pytest.raises(ValueError, match="precision must be one of"):
        choose_precision("fp8", torch.device("cpu"))


def test_automatic_precision_is_single():
    assert choose_precision("auto", torch.device("cpu")) == ("fp32", torch.float32)
