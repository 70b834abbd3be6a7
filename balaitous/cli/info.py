"""``balaitous info``: what is installed, and what would be used."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from balaitous.cli.console import DISCLAIMER, out
from balaitous.errors import BalaitousError
from balaitous.models import DEFAULT, MODELS, Model
from balaitous.provenance import versions

if TYPE_CHECKING:
    from balaitous.weights.bundle import Bundle


def info(as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False) -> None:
    """What this package can do, with which weights; versions and device."""
    import torch

    from balaitous.networks.runtime import choose_device, device_name

    device = choose_device()
    facts: dict[str, Any] = {
        "versions": versions(),
        "device": str(device),
        "device_name": device_name(device),
        "threads": torch.get_num_threads(),
        "models": {model.name: model_facts(model) for model in MODELS.values()},
    }
    if as_json:
        print(json.dumps({**facts, "bundle": facts["models"][DEFAULT]["bundle"]}, indent=1))
        return
    show(facts)
    out.print(DISCLAIMER)


def show(facts: Mapping[str, Any], indent: str = "") -> None:
    """Facts in facts, a line each."""
    for key, value in facts.items():
        if isinstance(value, Mapping):
            out.print(f"{indent}{key}:")
            show(value, indent + "  ")
        else:
            told = ", ".join(value) if isinstance(value, list) else value
            out.print(f"{indent}{key}: {told}")


def model_facts(model: Model) -> dict[str, Any]:
    """What a user should know of a model: what it reads and answers, its weights, their licence, what to cite."""
    from balaitous.cohort.items import KINDS
    from balaitous.weights.bundle import open_bundle
    from balaitous.weights.search import find_bundle

    try:
        bundle = bundle_facts(open_bundle(find_bundle(None, model)))
    except BalaitousError as error:  # `info` is what one runs when something is wrong: it shows what it can
        bundle = {"error": str(error)}
    return {
        "title": model.title,
        "reads": [KINDS[kind].rule for kind in model.reads],
        "takes": list(model.given),
        "answers": [f"probability_{name}" for name in model.outputs],
        "good_for": model.good_for,
        "citation": model.citation,
        "bundle": bundle,
    }


def bundle_facts(bundle: Bundle) -> dict[str, Any]:
    """What `info` says of the bundle in use, as JSON."""
    return {
        "name": bundle.name,
        "folder": str(bundle.folder),
        "sha256": bundle.sha256,
        "licence": bundle.licence,
        "intended_use": bundle.intended_use,
        "demonstration": bundle.demonstration,
    }
