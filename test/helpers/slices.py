"""A bundle of the slices model that is small and untrained, and slices of the phantom as pictures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from balaitous.ct.volume import read_ct
from balaitous.networks.classifier import Classifier
from balaitous.slices.hounsfield import lung_window
from balaitous.slices.lesions import OUTPUTS
from balaitous.slices.parts import MODEL, NETWORK, InputRecord
from balaitous.weights.pack import Facts, NetworkWeights, write_bundle
from helpers import PHANTOM

TIMM_NAME = "test_efficientnet"  # of timm: 0.4 million weights
INPUT = InputRecord((64, 64), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def untrained_network(seed: int = 0) -> Classifier:
    torch.manual_seed(seed)
    return Classifier(TIMM_NAME, len(OUTPUTS)).eval()


def write_slices_bundle(folder: Path, seed: int = 0, calibration: Mapping[str, Any] | None = None) -> Path:
    """A bundle with random weights."""
    architecture = {"kind": "timm", "timm_name": TIMM_NAME, "outputs": len(OUTPUTS)}
    weights = NetworkWeights(untrained_network(seed).state_dict(), architecture, INPUT.to_dict(), tuple(OUTPUTS))
    facts = Facts(folder.name, licence="MIT", intended_use="Tests only.", demonstration=True)
    return write_bundle(folder, facts, model=MODEL, networks={NETWORK: weights}, calibration=calibration)


def phantom_slice(index: int = 34) -> np.ndarray:
    """An axial slice (Y, X) of the phantom in HU."""
    return read_ct(PHANTOM).hu[index]


def write_phantom_slice(path: Path, index: int = 34) -> Path:
    """That slice as a picture of 8 bits in the lung window."""
    Image.fromarray(np.round(255 * lung_window(phantom_slice(index))).astype(np.uint8)).save(path)
    return path
