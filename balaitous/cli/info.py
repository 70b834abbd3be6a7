"""``balaitous info``: what is installed, and what would be used."""

from __future__ import annotations

import json
import platform
from typing import TYPE_CHECKING, Annotated, Any

import typer

import balaitous
from balaitous.cli.console import DISCLAIMER, out
from balaitous.errors import BalaitousError

if TYPE_CHECKING:
    from balaitous.weights.bundle import Bundle


def info(as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False) -> None:
    """Versions, device and the weights that would be used."""
    import torch

    from balaitous.networks.runtime import choose_device
    from balaitous.weights.bundle import find_bundle, open_bundle

    device = choose_device()
    facts: dict[str, Any] = {
        "versions": versions(),
        "device": str(device),
        "device_name": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or "CPU",
        "threads": torch.get_num_threads(),
    }
    try:
        facts["bundle"] = bundle_facts(open_bundle(find_bundle()))
    except BalaitousError as error:  # `info` is what one runs when something is wrong: it shows what it can
        facts["bundle"] = {"error": str(error)}
    if as_json:
        print(json.dumps(facts, indent=1))
        return
    for key, value in facts.items():
        if isinstance(value, dict):
            out.print(f"{key}:")
            for name, fact in value.items():
                out.print(f"  {name}: {fact}", markup=False)
        else:
            out.print(f"{key}: {value}", markup=False)
    out.print(DISCLAIMER)


def versions() -> dict[str, str]:
    """Of ourselves and of what the numbers depend on."""
    from importlib.metadata import version

    packages = ("torch", "timm", "SimpleITK", "numpy", "scipy", "scikit-learn", "safetensors")
    return {
        "balaitous": balaitous.__version__,
        "python": platform.python_version(),
        **{package: version(package) for package in packages},
    }


def bundle_facts(bundle: Bundle) -> dict[str, Any]:
    return {
        "name": bundle.name,
        "folder": str(bundle.folder),
        "sha256": bundle.sha256,
        "licence": bundle.licence,
        "intended_use": bundle.intended_use,
        "demonstration": bundle.demonstration,
    }
