"""What the slices model names, and how the tables of COVID-CT spell it.

In these tables a cell holds its own token where the finding is there, and else nothing. Two spellings of every token
are about; both mean the same. A token that is neither is an error: to drop it would be to learn that the lesion is
absent.

References
----------
Liu et al. 2020, medRxiv 2020.05.11.20097907 (LA-DNN); Yang et al. 2020, arXiv:2003.13865 (COVID-CT).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import PurePath

from balaitous.models import MODELS

COVID = "covid"
OUTPUTS = MODELS["slices"].outputs
LESIONS = tuple(name for name in OUTPUTS if name != COVID)

# As columns and as tokens, by what `plain` leaves of them: of the split, of the two collections of New_data, of the
# table of positives, in which COVID-19 begins with a zero instead of an O.
SPELLINGS: Mapping[str, tuple[str, ...]] = {
    COVID: ("cvd19", "covid", "covid19", "c0vid19", "label"),
    "ggo": ("ggo", "groundglassopacity", "groundglassopacities", "groundglassopacityggo"),
    "consolidation": ("csld", "consolidation", "consolidationcsld"),
    "crazy_paving": ("crpa", "crazypaving", "crazypavingappearance", "crazypavingappearancecrpa"),
    "air_bronchogram": ("airbr", "aibr", "airbronchogram", "airbronchograms", "airbronchogramsairbr"),
    "septal_thickening": (
        *("insepthi", "insep", "septalthickening", "interlobularseptalthickening"),
        "interlobularseptalthickeninginsepthi",
    ),
}
OUTPUT_OF = {spelling: output for output, spellings in SPELLINGS.items() for spelling in spellings}


def plain(text: str) -> str:
    """Small letters and digits of a text: what two spellings have in common."""
    return "".join(each for each in text.lower() if each.isalnum())


def output_of(column: str) -> str | None:
    """The output that a table's column is of; None of another column."""
    return OUTPUT_OF.get(plain(column))


def finding_of(text: str, output: str) -> float:
    """What a cell says of an output: 1 there, 0 not.

    Parameters
    ----------
    text : its own token in any spelling, 1, 0, or nothing, which is 0 as tables of tokens have it

    Raises
    ------
    ValueError : anything else, also the token of another output
    """
    found = plain(text)
    if found in ("", "0", "00"):
        return 0.0
    if found in ("1", "10") or OUTPUT_OF.get(found) == output:
        return 1.0
    raise ValueError(f"{output} must be one of {', '.join(SPELLINGS[output])}, 1, 0 or empty. Got {text!r} instead.")


def tells_of_absence(columns: Sequence[str]) -> bool:
    """Whether an empty cell of a table with these columns means that a finding is not there.

    It does in the published tables, which are known by how they spell COVID-19; elsewhere it is not known.
    """
    return any(plain(column) in ("cvd19", "c0vid19") for column in columns)


PREPRINT = re.compile(r"\d{4}\.\d{2}\.\d{2}\.\d+")  # of medRxiv and bioRxiv, with the date


def group_of(file: str) -> str:
    """What a slice of COVID-CT belongs to by its name: its preprint, or its figure, before ``%``; else itself."""
    stem = PurePath(file).stem
    preprint = PREPRINT.match(stem)
    return preprint[0] if preprint else stem.partition("%")[0]
