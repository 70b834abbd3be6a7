"""Networks in int8 on a CPU, run by OpenVINO: how they are quantised and run.

The lung U-Net: weights per output channel and activations per tensor, over the ranges that real crops take (static
quantisation, NNCF).

The encoders: weights per output channel, activations of each token as they come, in groups of `GROUP` channels, so that
no range has to be known beforehand. Three things keep the features true to fp32:

* The hidden neurons of each MLP that reach the largest activations on real slices stay in fp32, an eighth of them.
  They would coarsen the step of whatever shares their group.
* The last block stays in fp32. Almost all of it runs on the class token alone and costs nothing.
* The mean difference from fp32 over real slices is added to the class token. What is left differs from slice to slice
  and mostly cancels out in the mean over a scan.

References
----------
Dettmers et al. 2022, arXiv:2208.07339 (few large activations, which are computed in higher precision).
"""

from __future__ import annotations

import contextlib
import io
import logging
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from balaitous.errors import needs_extra
from balaitous.networks.unet import UNet
from balaitous.networks.vit import ClassTokenEncoder

GROUP = 64  # channels of a token that share a scale: as fast as larger groups, and half their error
OUTLIER_SHARE = 8  # one in that many hidden neurons stays in fp32
BATCH = 4  # images at a time while quantising

OPENVINO_IS_MISSING = needs_extra("precision int8", "OpenVINO", "int8")


# --- running ---------------------------------------------------------------------------------------------------------


class Int8Network:
    """A network that OpenVINO runs on the CPU, with the call of the PyTorch networks; it is not thread-safe either.

    Parameters
    ----------
    model : an OpenVINO model, or the path of its ``.xml`` beside which the ``.bin`` lies (memory-mapped)
    """

    device = torch.device("cpu")
    dtype = torch.float32

    def __init__(self, model: Any) -> None:
        settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "ENABLE_CPU_PINNING": False,  # several processes on one machine would be pinned to the same cores
            "INFERENCE_PRECISION_HINT": "f32",  # what is not quantised; the default would be bf16 on some CPUs
            "DYNAMIC_QUANTIZATION_GROUP_SIZE": GROUP,
        }
        self.request = import_openvino().Core().compile_model(model, "CPU", settings).create_infer_request()

    def __call__(self, images: Tensor) -> Tensor:
        """Outputs (B, …) of images (B, C, H, W), both float32 on the CPU."""
        array = np.ascontiguousarray(images.numpy())
        return torch.from_numpy(self.request.infer([array], share_inputs=True)[0])


def import_openvino() -> Any:
    """Import the runtime without its telemetry, which would report every conversion to its makers.

    Raises
    ------
    ValueError : not installed
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # as if not installed
    try:
        import openvino
    except ImportError:
        raise ValueError(OPENVINO_IS_MISSING) from None
    return openvino


def save_model(model: Any, path: Path) -> None:
    """Write an OpenVINO model as `path` (``.xml``) and the ``.bin`` beside it, weights as they are."""
    import_openvino().save_model(model, path, compress_to_fp16=False)


# --- quantising ------------------------------------------------------------------------------------------------------


def quantize_unet(unet: UNet, crops: Tensor) -> Any:
    """The U-Net as an OpenVINO model in int8.

    Parameters
    ----------
    unet : in fp32 on the CPU
    crops : (N, 1, H, W), scaled to [0, 1], as the network sees them

    Raises
    ------
    ValueError : OpenVINO or NNCF is not installed
    """
    nncf = import_nncf()
    model = convert(unet, crops[:2])
    with quietly():
        return nncf.quantize(
            model,
            nncf.Dataset([crop[None].numpy() for crop in crops]),
            preset=nncf.QuantizationPreset.MIXED,  # activations may have a zero point: after batch norm they need it
            subset_size=len(crops),
            fast_bias_correction=False,  # layer by layer, each after those before it
            advanced_parameters=nncf.AdvancedQuantizationParameters(
                overflow_fix=nncf.OverflowFix.DISABLE,  # it halves the first layer's precision for CPUs without VNNI
                activations_range_estimator_params=nncf.quantization.range_estimator.RangeEstimatorParametersSet.HISTOGRAM,
            ),
        )


@torch.no_grad()
def quantize_encoder(encoder: ClassTokenEncoder, images: Tensor) -> Any:
    """The encoder as an OpenVINO model in int8.

    Parameters
    ----------
    encoder : in fp32 on the CPU; its MLPs are taken apart on the way, so use it no more
    images : (N, 3, H, W), as the network sees them

    Raises
    ------
    ValueError : OpenVINO or NNCF is not installed
    """
    nncf = import_nncf()
    expected, largest = embed_and_watch(encoder, images)
    for block, mlp, activations in zip(encoder.blocks[:-1], mlps(encoder), largest, strict=False):
        block.mlp = SplitMlp(mlp, activations)
    model = convert(encoder, images[:2])
    with quietly():
        model = nncf.compress_weights(
            model,
            mode=nncf.CompressWeightsMode.INT8_SYM,
            ignored_scope=nncf.IgnoredScope(names=kept_in_fp32(model, last=len(encoder.blocks) - 1)),
        )
    quantised = Int8Network(model)
    found = torch.cat([quantised(batch) for batch in images.split(BATCH)])
    return add_offset(model, (expected.double() - found.double()).mean(0).float().numpy())


def embed_and_watch(encoder: ClassTokenEncoder, images: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Class tokens (N, width) of images, and the largest activation of each hidden neuron of each block's MLP."""
    second_layers = [mlp.fc2 for mlp in mlps(encoder)]
    largest = [torch.zeros(fc2.in_features) for fc2 in second_layers]

    def watch(fc2: nn.Module, inputs: tuple[Tensor]) -> None:
        seen = largest[second_layers.index(fc2)]
        torch.maximum(seen, inputs[0].abs().amax((0, 1)), out=seen)

    hooks = [fc2.register_forward_pre_hook(watch) for fc2 in second_layers]
    embeddings = torch.cat([encoder(batch) for batch in images.split(BATCH)])
    for hook in hooks:
        hook.remove()
    return embeddings, largest


def mlps(encoder: ClassTokenEncoder) -> list[Any]:
    """The MLP of each block, timm's `Mlp`."""
    return [block.mlp for block in encoder.blocks]


class SplitMlp(nn.Module):
    """An MLP as the sum of two: of the hidden neurons with the largest activations, and of the others."""

    def __init__(self, mlp: Any, largest: Tensor) -> None:
        super().__init__()
        outliers = len(largest) // OUTLIER_SHARE // GROUP * GROUP  # what is left is whole groups too
        order = largest.argsort(descending=True, stable=True)
        self.outlier_fc1, self.outlier_fc2 = of_neurons(mlp, order[:outliers].sort().values)
        self.fc1, self.fc2 = of_neurons(mlp, order[outliers:].sort().values)
        self.outlier_fc2.bias = mlp.fc2.bias  # it is added once
        self.act = mlp.act

    def forward(self, x: Tensor) -> Tensor:
        return self.outlier_fc2(self.act(self.outlier_fc1(x))) + self.fc2(self.act(self.fc1(x)))


def of_neurons(mlp: Any, neurons: Tensor) -> tuple[nn.Linear, nn.Linear]:
    """Both layers of an MLP for some of its hidden neurons; the second one without bias."""
    with torch.device("meta"):
        fc1 = nn.Linear(mlp.fc1.in_features, len(neurons))
        fc2 = nn.Linear(len(neurons), mlp.fc2.out_features, bias=False)
    fc1.weight, fc1.bias = nn.Parameter(mlp.fc1.weight[neurons]), nn.Parameter(mlp.fc1.bias[neurons])
    fc2.weight = nn.Parameter(mlp.fc2.weight[:, neurons].contiguous())
    return fc1, fc2


def kept_in_fp32(model: Any, last: int) -> list[str]:
    """Names of the layers with weights that are not quantised: all but the linear ones of the blocks before `last`."""
    layers = [op.get_friendly_name() for op in model.get_ops() if op.get_type_name() in ("MatMul", "Convolution")]
    blocks = tuple(f"__module.blocks.{i}." for i in range(last))
    return [name for name in layers if not name.startswith(blocks) or ".outlier_fc2/" in name]


def add_offset(model: Any, offset: NDArray[np.float32]) -> Any:
    """The model with a constant added to its output (B, width)."""
    ops = import_openvino().opset13
    (result,) = model.get_results()
    shifted = ops.add(result.input_value(0), ops.constant(offset[None]))
    result.input(0).replace_source_output(shifted.output(0))
    model.validate_nodes_and_infer_types()
    return model


def convert(network: nn.Module, example: Tensor) -> Any:
    """A traced network as an OpenVINO model with any number of images a batch.

    Parameters
    ----------
    example : (2, C, H, W); with one image, tracing would take the batch for a constant
    """
    openvino = import_openvino()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", torch.jit.TracerWarning)  # of checks of shapes, which do not change
        warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch\.jit")  # OpenVINO traces with it
        return openvino.convert_model(
            network, example_input=example, input=[openvino.PartialShape([-1, *example.shape[1:]])]
        )


def import_nncf() -> Any:
    """The quantiser.

    Raises
    ------
    ValueError : not installed
    """
    import_openvino()
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # says that there is no CUDA compiler
    try:
        with quietly():
            import nncf
    except ImportError:
        raise ValueError(needs_extra("quantising to int8", "NNCF", "int8")) from None
    nncf.set_log_level(30)
    return nncf


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Silence the progress bars of NNCF."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield
