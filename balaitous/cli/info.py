"""``balaitous info``: what is installed, and what would be used."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from balaitous.cli.console import DISCLAIMER, out
from balaitous.errors import BalaitousError
from balaitous.provenance import versions

if TYPE_CHECKING:
    from balaitous.weights.bundle import Bundle


def info(as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False) -> None:
    """Versions, device and the weights that would be used."""
    import torch

    from balaitous.networks.runtime import choose_device, device_name
    from balaitous.weights.bundle import open_bundle
    from balaitous.weights.search import find_bundle

    device = choose_device()
    facts: dict[str, Any] = {
        "versions": versions(),
        "device": str(device),
        "device_name": device_name(device),
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


def bundle_facts(bundle: Bundle) -> dict[str, Any]:
    return {
        "name": bundle.name,
        "folder": str(bundle.folder),
        "sha256": bundle.sha256,
        "licence": bundle.licence,
        "intended_use": bundle.intended_use,
        "demonstration": bundle.demonstration,
    }
