"""How networks run: device, precision, and slices in chunks that shrink when memory runs out."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from balaitous.memory import is_out_of_memory

log = logging.getLogger(__name__)
Result = TypeVar("Result")

DEVICES = ("auto", "cpu", "cuda")
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
PRECISIONS = ("auto", *DTYPES, "int8")

# one slice's activations of the U-Net fit into memory that is at hand; the ViT's weights serve several slices at a time
CPU_CHUNK = {"unet": 1, "vit": 4, "timm": 4}
LARGEST_CHUNK = 64
SLICE_BYTES = 256 << 20  # what the published U-Net needs for a slice, and ViT-L for its two orientations, in fp32


class Network(Protocol):
    """A network ready to run: it maps float32 images (B, C, H, W) on its device to outputs there."""

    @property
    def device(self) -> torch.device: ...

    def __call__(self, images: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class TorchNetwork:
    """A network that PyTorch runs, made by `ready`."""

    module: nn.Module
    device: torch.device
    dtype: torch.dtype

    def __call__(self, images: Tensor) -> Tensor:
        return self.module(images.to(self.device, self.dtype))


def ready(module: nn.Module, device: torch.device, dtype: torch.dtype = torch.float32) -> TorchNetwork:
    """A network on its device, in its precision, for inference."""
    # channels last: convolutions of small images run 1.5 to 6 times as fast on a CPU; other layers do not care
    module = module.to(device, dtype).to(memory_format=torch.channels_last).eval().requires_grad_(False)
    return TorchNetwork(module, device, dtype)


def to_device(array: NDArray, device: torch.device) -> Tensor:
    """An array as a tensor on a device; to a GPU it travels from pinned memory, while this process goes on."""
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    return tensor if device.type == "cpu" else tensor.pin_memory().to(device, non_blocking=True)


def choose_device(device: str | torch.device | None = None) -> torch.device:
    """The device asked for; None or "auto": the GPU if there is one that this PyTorch runs on.

    Raises
    ------
    ValueError : unknown device, or a GPU was asked for and there is none that this PyTorch runs on
    """
    if device is None or device == "auto":
        missing = no_gpu_because()
        if missing and torch.cuda.is_available():
            log.warning("%s: going on with the CPU", missing)
        return torch.device("cpu" if missing else "cuda")
    try:
        chosen = torch.device(device)
    except RuntimeError:
        raise ValueError(f"device must be one of {', '.join(DEVICES)}. Got {device!r} instead.") from None
    if chosen.type not in ("cpu", "cuda"):
        raise ValueError(f"device must be one of {', '.join(DEVICES)}. Got {device!r} instead.")
    if chosen.type == "cuda" and (missing := no_gpu_because()):
        raise ValueError(f"device 'cuda' was asked for, but {missing}. Use device 'cpu' or 'auto'.")
    return chosen


def no_gpu_because() -> str | None:
    """Why there is no GPU to run on; None if there is one."""
    if not torch.cuda.is_available():
        return "PyTorch sees no GPU"
    capability = torch.cuda.get_device_capability()
    if not built_for(capability, torch.cuda.get_arch_list()):
        return f"PyTorch {torch.__version__} has no code for this GPU (compute {capability[0]}.{capability[1]})"
    return None


def device_name(device: torch.device) -> str:
    """The GPU's name, or the instruction set that PyTorch's kernels use on a CPU, because digits depend on it."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU, {torch.backends.cpu.get_cpu_capability()}"


def built_for(capability: tuple[int, int], architectures: list[str]) -> bool:
    """Whether a PyTorch built for these architectures ("sm_90", "compute_80", …) has code for a GPU.

    Code for compute x.y ("sm") runs on GPUs of the same x and at least that y; portable code ("compute") on all newer.
    """
    major, minor = capability
    for name in architectures:
        kind, _, number = name.partition("_")
        digits = "".join(filter(str.isdigit, number))
        built_major, built_minor = int(digits[:-1]), int(digits[-1])
        if kind == "sm" and built_major == major and built_minor <= minor:
            return True
        if kind == "compute" and (built_major, built_minor) <= (major, minor):
            return True
    return False


def choose_precision(precision: str, device: torch.device) -> tuple[str, torch.dtype]:
    """The precision's name and its dtype; "auto" is fp32 everywhere, so that devices agree unless asked otherwise.

    Raises
    ------
    ValueError : unknown precision, or one that this device or version does not run
    """
    if precision == "auto":
        precision = "fp32"
    if precision == "int8" and device.type == "cpu":
        if not has_vnni():
            log.warning("this CPU has no VNNI instructions: int8 will be slower and further from fp32 than elsewhere")
        return precision, torch.float32  # outside of the networks
    if precision == "int8":
        raise ValueError(f"precision int8 is for the CPU, not for {device}. Use --device cpu, or fp16 or bf16.")
    if precision not in DTYPES:
        raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}. Got {precision!r} instead.")
    if precision == "bf16" and device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise ValueError(f"precision bf16 needs a GPU of compute 8.0 or newer ({device} is older). Use fp16.")
    return precision, DTYPES[precision]


def has_vnni() -> bool:
    """Whether the CPU adds up products of 8-bit numbers in 32 bits; other makes than x86 do."""
    able = torch.cpu.get_capabilities()
    return able["architecture"] != "x86_64" or able["avx512_vnni"] or able["avx_vnni"]


def default_chunk(kind: str, device: torch.device) -> int:
    """Slices a chunk of a network (a key of `CPU_CHUNK`): few on a CPU; on a GPU as many as half its memory holds.

    All of its memory, not what is free: the size shows in the last digits, and they shall not depend on neighbours.
    """
    if device.type == "cpu":
        return CPU_CHUNK[kind]
    _, total_bytes = torch.cuda.mem_get_info(device)
    return int(min(max(total_bytes / 2 // SLICE_BYTES, 1), LARGEST_CHUNK))


def use_allotted_cores() -> None:
    """Run no more threads than the container may use: PyTorch counts the machine's cores, not a quota on them."""
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        allotted = math.ceil(int(quota) / int(period))
    except (OSError, ValueError):  # no control groups here, or no quota ("max")
        return
    if allotted < torch.get_num_threads():
        torch.set_num_threads(allotted)


@dataclass(frozen=True)
class Chunker:
    """Runs work on the slices of a scan in chunks, which are halved when memory runs out.

    The next scan starts with whole chunks again: its digits do not depend on what ran before.

    Attributes
    ----------
    size : slices a chunk
    """

    size: int

    def run(self, count: int, work: Callable[[slice], Result]) -> Iterator[Result]:
        """Yield ``work(chunk)`` for consecutive slices of ``range(count)``; on out of memory, halve and go on.

        Raises
        ------
        MemoryError or torch.OutOfMemoryError : if even one slice does not fit
        """
        start, size = 0, self.size
        while start < count:
            chunk = slice(start, min(start + size, count))
            try:
                result = work(chunk)
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error) or size == 1:
                    raise
                out_of_memory = True
            else:
                out_of_memory = False
            if out_of_memory:  # outside the handler: the traceback would keep the failed chunk's tensors alive
                size = max(size // 2, 1)
                log.warning("out of memory: going on with %d slices at a time", size)
                if torch.cuda.is_available():
                    torch.cuda.empty_cache()
                continue
            start = chunk.stop
            yield result
