"""The model card that lies beside a bundle's weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import balaitous

RESEARCH_USE = "Research use only. Not a medical device; not for diagnosis, treatment or triage."


def card_of(facts: Mapping[str, Any]) -> str:
    """A short card, in Markdown: what ``bundle.json`` says, for people.

    Parameters
    ----------
    facts : of ``bundle.json``, format 2
    """
    use = facts["intended_use"] if facts["intended_use"] != RESEARCH_USE else ""
    if facts["demonstration"]:
        use = f"Demonstration only: its probabilities mean nothing for a patient. {use}"
    rows = [
        f"| `{record['file']}` | {in_words(record['architecture'])} | {in_words(record['input'])} | "
        f"{', '.join(record['outputs'])} |"
        for record in facts["networks"].values()
    ]
    rows += [f"| `{record['file']}` | arrays: {name} | | |" for name, record in facts["arrays"].items()]
    table = "\n".join(rows)
    return f"""# Model card: bundle `{facts["name"]}`

**{RESEARCH_USE}** {use}

Weights of the model `{facts["model"]}`. Licence: {facts["licence"]}. Made with balaitous {balaitous.__version__}.

## What is inside

| file | network | sees | says |
|---|---|---|---|
{table}

## What it was trained on

{in_json(facts["training"])}

## What was measured

{in_json(facts["metrics"])}
"""


def in_words(numbers: Mapping[str, Any]) -> str:
    """unet, classes 3, depth 5"""
    return ", ".join(
        str(value) if key == "kind" else f"{key} {'×'.join(map(str, value)) if key == 'size' else value}"
        for key, value in numbers.items()
    )


def in_json(facts: Mapping[str, Any]) -> str:
    """As a block of JSON, or "Not stated."."""
    if not facts:
        return "Not stated."
    return f"```json\n{json.dumps(facts, indent=1, ensure_ascii=False)}\n```"
