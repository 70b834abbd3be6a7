"""The model card that lies beside a bundle's weights."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Mapping
from typing import Any

import balaitous

SHOWN_LEVELS = 3  # of facts: where a bundle is made of another's parts, those of that one lie deeper and deeper
RESEARCH_USE = "Research use only. Not a medical device; not for diagnosis, treatment or triage."


def card_of(facts: Mapping[str, Any]) -> str:
    """A short card, in Markdown: what ``bundle.json`` says, for people.

    Parameters
    ----------
    facts : of ``bundle.json``, format 2
    """
    use = facts["intended_use"] if facts["intended_use"] != RESEARCH_USE else ""
    if facts["demonstration"] and "demonstration" not in use.lower():
        use = f"Demonstration only: its probabilities mean nothing for a patient. {use}"
    rows = [
        f"| `{record['file']}` | {format_numbers(record['architecture'])} | {format_numbers(record['input'])} | "
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


def is_line(text: str) -> bool:
    """Whether a text has no line break, and nothing that steers a terminal or cannot be seen."""
    return not any(unicodedata.category(each) in ("Cc", "Cf", "Cs", "Zl", "Zp") for each in text)


def format_numbers(numbers: Mapping[str, Any]) -> str:
    """unet, classes 3, depth 5"""
    return ", ".join(
        str(value) if key == "kind" else f"{key} {'×'.join(map(str, value)) if key == 'size' else value}"
        for key, value in numbers.items()
    )


def in_json(facts: Mapping[str, Any]) -> str:
    """As a block of JSON, or "Not stated."; what lies deeper than `SHOWN_LEVELS` is to be read in ``bundle.json``."""
    if not facts:
        return "Not stated."
    return f"```json\n{json.dumps(cut(facts, SHOWN_LEVELS), indent=1, ensure_ascii=False)}\n```"


def cut(facts: Any, levels: int) -> Any:
    """Facts as far down as some levels; instead of a mapping below them, where it is."""
    if not isinstance(facts, Mapping):
        return facts
    return {key: cut(value, levels - 1) for key, value in facts.items()} if levels else "see bundle.json"
