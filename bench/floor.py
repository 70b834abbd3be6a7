"""The least time a scan can take here: the operations its networks need ÷ the rate of a plain matrix product.

usage: python bench/floor.py
"""

from __future__ import annotations

import json
import time

import torch
from torch.utils.flop_counter import FlopCounterMode

from balaitous.ct.lungs import UNET_GRID
from balaitous.networks.loading import build_network
from balaitous.networks.vit import linear
from balaitous.weights.bundle import Bundle

ROWS, INNER, COLUMNS = 1576, 1024, 4096  # the product that a ViT-L spends most of its time in, eight images at a time
REPEATS = 30


def matrix_gflops() -> float:
    """Billion float32 operations a second of the faster of PyTorch's two matrix products, in its best run."""
    x, weight = torch.randn(1, ROWS, INNER), torch.randn(COLUMNS, INNER)
    best = float("inf")
    with torch.inference_mode():
        for product in (torch.nn.functional.linear, linear):
            for _ in range(REPEATS):
                start = time.perf_counter()
                product(x, weight, None)
                best = min(best, time.perf_counter() - start)
    return 2 * ROWS * INNER * COLUMNS / best / 1e9


def scan_gflop(bundle: Bundle, slices: int, slices_used: int) -> float:
    """Billion operations of a scan's networks.

    Parameters
    ----------
    slices : axial slices after resampling, which the lung U-Net sees
    slices_used : of those, what the encoders see, each in two orientations
    """
    total = 0.0
    images = {"lung_unet": slices, "encoder_full": 2 * slices_used, "encoder_lung": 2 * slices_used}
    for name, count in images.items():
        shape = (1, 1, UNET_GRID, UNET_GRID) if name == "lung_unet" else (1, 3, 224, 224)
        network = build_network(bundle.networks[name].architecture).eval()
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            network(torch.empty(shape, device="meta"))
        total += count * counter.get_total_flops() / 1e9
    return total


if __name__ == "__main__":
    print(json.dumps({"matrix_gflops": matrix_gflops()}))
