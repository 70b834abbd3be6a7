"""What a bundle of the severity method holds: three networks, what each of them sees, and the four heads."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from balaitous.ct.lungs import UNET_GRID, WINDOW_HU
from balaitous.errors import WeightsError
from balaitous.networks.loading import check_architecture
from balaitous.severity.crops import VIEW_GRID
from balaitous.severity.features import IMAGENET_MEAN, IMAGENET_STD
from balaitous.severity.heads import OUTCOMES
from balaitous.severity.heads_file import check_heads, encoder_widths
from balaitous.weights.bundle import BUNDLE_FILE, RESTORE, Bundle, open_bundle
from balaitous.weights.calibration import stored_in

MODEL = "severity"
HEADS = "heads"  # the set of arrays
KINDS = {"lung_unet": "unet", "encoder_full": "vit", "encoder_lung": "vit"}  # of the networks

# as `NetworkRecord` has them, in the form of JSON
LUNGS = ("background", "right_lung", "left_lung")
_ENCODER_INPUT = {
    "size": [3, VIEW_GRID, VIEW_GRID],
    "window": list(WINDOW_HU),
    "mean": list(IMAGENET_MEAN),
    "std": list(IMAGENET_STD),
}
INPUTS: Mapping[str, Mapping[str, Any]] = {
    "lung_unet": {"size": [1, UNET_GRID, UNET_GRID], "window": list(WINDOW_HU)},
    "encoder_full": _ENCODER_INPUT,
    "encoder_lung": _ENCODER_INPUT,
}
OUTPUTS = {"lung_unet": LUNGS, "encoder_full": ("class_token",), "encoder_lung": ("class_token",)}


def open_parts(folder: str | Path) -> Bundle:
    """A bundle of the severity method, with the networks that it needs. Their files are hashed when they are loaded.

    Raises
    ------
    WeightsError : as `open_bundle`; the bundle is another model's; a network is missing, unknown, of another kind, or
        made for another input than the method gives it
    """
    bundle = open_bundle(folder)
    path = bundle.folder / BUNDLE_FILE
    if bundle.model != MODEL:
        raise WeightsError(f"{path}: expected a bundle of the model {MODEL}, found one of {bundle.model}.")
    for what, expected, found in (("networks", KINDS, bundle.networks), ("arrays", (HEADS,), bundle.arrays)):
        if set(found) != set(expected):
            names = ", ".join(found) or "none"
            raise WeightsError(f"{path}: expected the {what} {', '.join(expected)}, found {names}. {RESTORE}")
    for name, kind in KINDS.items():
        record = bundle.networks[name]
        if record.architecture.get("kind") != kind:
            raise WeightsError(
                f"{path}: {name} must be of kind {kind}. Got {record.architecture.get('kind')!r} instead. {RESTORE}"
            )
        check_architecture(record.architecture, source=f"{path}: {name}")
        if record.architecture.get("classes", len(OUTPUTS[name])) != len(OUTPUTS[name]):
            raise WeightsError(f"{path}: {name} must have the classes {', '.join(OUTPUTS[name])}. {RESTORE}")
        said = {"input": (record.input, INPUTS[name]), "outputs": (record.outputs, OUTPUTS[name])}
        for fact, (has, gets) in said.items():
            if has != gets:
                raise WeightsError(f"{path}: {fact} of {name} must be {gets}. Got {has} instead. {RESTORE}")
    return bundle


def load_heads(bundle: Bundle) -> dict[str, np.ndarray]:
    """``coef_*``, ``intercept_*`` and the averaging weights ``alpha_*`` of the four heads, as `check_heads` says.

    Raises
    ------
    WeightsError : as `Bundle.load_arrays`, and where an array is missing or does not fit its encoder
    """
    architectures = {name: record.architecture for name, record in bundle.networks.items()}
    arrays = bundle.load_arrays(HEADS)
    source = str(bundle.folder / bundle.arrays[HEADS].file)
    return check_heads(arrays, encoder_widths(architectures), source=source)


def check_parts(folder: str | Path) -> None:
    """Whether networks, heads and calibration of a bundle belong together.

    Raises
    ------
    WeightsError : as `open_parts`, `load_heads` and `stored_in`
    """
    bundle = open_parts(folder)
    load_heads(bundle)
    stored_in(bundle, OUTCOMES)
