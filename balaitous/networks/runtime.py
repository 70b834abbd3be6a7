"""How networks run: device, precision, and slices in chunks that shrink when memory runs out."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import TypeVar

import torch

log = logging.getLogger(__name__)
Result = TypeVar("Result")

DEVICES = ("auto", "cpu", "cuda")
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
PRECISIONS = ("auto", *DTYPES, "int8")


def choose_device(device: str | torch.device | None = None) -> torch.device:
    """The device asked for; None or "auto": the GPU if there is one.

    Raises
    ------
    ValueError : unknown device, or a GPU was asked for and there is none
    """
    if device is None or device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError:
        raise ValueError(f"device must be one of {', '.join(DEVICES)}. Got {device!r} instead.") from None
    if chosen.type not in ("cpu", "cuda"):
        raise ValueError(f"device must be one of {', '.join(DEVICES)}. Got {device!r} instead.")
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise ValueError("device 'cuda' was asked for, but PyTorch sees no GPU. Use device 'cpu' or 'auto'.")
    return chosen


def choose_precision(precision: str, device: torch.device) -> tuple[str, torch.dtype]:
    """The precision's name and its dtype; "auto" is fp32 everywhere, so that devices agree unless asked otherwise.

    Raises
    ------
    ValueError : unknown precision, or one that this device or version does not run
    """
    if precision == "auto":
        precision = "fp32"
    if precision == "int8":
        raise ValueError("precision int8 is not in this version yet. Use fp32, or bf16 on a CPU with AMX.")
    if precision not in DTYPES:
        raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}. Got {precision!r} instead.")
    if precision == "bf16" and device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise ValueError(f"precision bf16 needs a GPU of compute 8.0 or newer ({device} is older). Use fp16.")
    return precision, DTYPES[precision]


def default_chunk(device: torch.device) -> int:
    """Slices a chunk: enough to fill the device, few enough that memory stays flat."""
    return 64 if device.type == "cuda" else 4


class Chunker:
    """Remembers how many slices fit at a time, and halves that number when memory runs out.

    Attributes
    ----------
    size : slices a chunk; only ever shrinks
    """

    def __init__(self, size: int) -> None:
        self.size = size

    def run(self, count: int, work: Callable[[slice], Result]) -> Iterator[Result]:
        """Yield ``work(chunk)`` for consecutive slices of ``range(count)``; on out of memory, halve and go on.

        Raises
        ------
        MemoryError or torch.OutOfMemoryError : if even one slice does not fit
        """
        start = 0
        while start < count:
            chunk = slice(start, min(start + self.size, count))
            try:
                result = work(chunk)
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error) or self.size == 1:
                    raise
                out_of_memory = True
            else:
                out_of_memory = False
            if out_of_memory:  # outside the handler: the traceback would keep the failed chunk's tensors alive
                self.size = max(self.size // 2, 1)
                log.warning("out of memory: going on with %d slices at a time", self.size)
                if torch.cuda.is_available():
                    torch.cuda.empty_cache()
                continue
            start = chunk.stop
            yield result


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on the host or on the GPU."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    # PyTorch's CPU allocator raises a plain RuntimeError
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
