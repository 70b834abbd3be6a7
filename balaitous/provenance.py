"""Provenance of a number: versions, weights, device, warnings, and seconds."""

from __future__ import annotations

import logging
import platform
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version

import balaitous

PACKAGES = ("torch", "timm", "SimpleITK", "pydicom", "numpy", "scipy", "scikit-learn", "safetensors")


@dataclass(frozen=True)
class Provenance:
    """What made a prediction.

    Attributes
    ----------
    version : of balaitous
    versions : as `versions` tells them
    bundle, bundle_sha256, intended_use, demonstration : of the weights
    device : "cpu" or "cuda"
    device_name : of the GPU; of a CPU the instructions that its kernels are chosen by
    threads : of the networks on a CPU; another number shows in the last digits
    precision : "fp32", "fp16", "bf16" or "int8"
    int8_sha256 : of ``int8.json``, which holds the hashes of the quantised networks; None in other precisions
    calibration : how the bundle's was made, if it is applied
    seed : None, because nothing is drawn at random
    """

    version: str
    versions: Mapping[str, str]
    bundle: str
    bundle_sha256: str
    intended_use: str
    demonstration: bool
    device: str
    device_name: str
    threads: int
    precision: str
    int8_sha256: str | None
    calibration: str | None
    seed: None = None


def versions() -> dict[str, str]:
    """Versions of this package and of the libraries that the numbers depend on."""
    return {
        "balaitous": balaitous.__version__,
        "python": platform.python_version(),
        **{package: version(package) for package in PACKAGES},
    }


@contextmanager
def recorded_warnings() -> Iterator[list[str]]:
    """Record the warnings that the package logs in this thread meanwhile."""
    keeper = _Keeper()
    logger = logging.getLogger("balaitous")
    logger.addHandler(keeper)
    try:
        yield keeper.messages
    finally:
        logger.removeHandler(keeper)


class _Keeper(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.thread = threading.get_ident()
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.thread == self.thread and record.getMessage() not in self.messages:
            self.messages.append(record.getMessage())


class Stopwatch:
    """Wall-clock seconds of named stages."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[stage] = time.perf_counter() - start
