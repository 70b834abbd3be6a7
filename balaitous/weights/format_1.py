"""Bundles of format 1, which were the severity method's alone, and left unsaid what was the same in all of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_WINDOW = [-1024, 600]  # HU
_ENCODER = {
    "input": {
        "size": [3, 224, 224],
        "window": _WINDOW,
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
    },
    "outputs": ["class_token"],
}
# of each network of such a bundle: what `balaitous.severity.parts` says of it, and a test compares
UNSAID: Mapping[str, Mapping[str, Any]] = {
    "lung_unet": {
        "input": {"size": [1, 256, 256], "window": _WINDOW},
        "outputs": ["background", "right_lung", "left_lung"],
    },
    "encoder_full": _ENCODER,
    "encoder_lung": _ENCODER,
}


def as_format_2(facts: Mapping[str, Any]) -> dict[str, Any]:
    """What a ``bundle.json`` of format 1 would be in format 2. What is missing or amiss in it stays so."""
    networks = facts.get("networks")
    if isinstance(networks, dict):
        networks = {
            name: networks[name] | unsaid if isinstance(networks.get(name), dict) else networks.get(name)
            for name, unsaid in UNSAID.items()
        }
    kept = {key: value for key, value in facts.items() if key != "heads"}
    arrays = {"heads": facts.get("heads")}
    return kept | {"format_version": 2, "model": "severity", "networks": networks, "arrays": arrays}
