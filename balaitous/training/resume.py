"""What a training leaves as it goes, so that the next start goes on where it was, with the same settings or not at all.

Every step of a training draws from a seed of its own, so that one that was interrupted ends with the same weights as
one that was not.
"""

from __future__ import annotations

import csv
import io
import json
import math
import pickle
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from balaitous.errors import WeightsError, first_few
from balaitous.files import refuse_others, remove_partials, replacing, write_whole
from balaitous.locks import Lock

CHECKPOINT_FILE, RECORD_FILE = "checkpoint.pt", "training.json"
CHECKPOINT_SECONDS = 120.0  # between two of them


class Resumable:
    """A training that leaves ``checkpoint.pt``, replaced at once, and ``training.json``, which says how it was made.

    Parameters
    ----------
    folder : of the training
    made_by : what must be the same when it goes on; anything that JSON can hold
    writes : names of the files that the training writes besides
    """

    def __init__(self, folder: Path, made_by: Mapping[str, Any], writes: Sequence[str] = ()) -> None:
        self.folder, self.path, self.writes = folder, folder / CHECKPOINT_FILE, (CHECKPOINT_FILE, *writes)
        self.made_by = json.loads(json.dumps(made_by))  # as it will be read back
        self.saved = time.monotonic()

    def load(self, device: str | torch.device = "cpu") -> dict[str, Any] | None:
        """What the training last saved, its tensors on the device; None of a new one.

        Raises
        ------
        ValueError : the folder holds a training with other settings, or files of these names that are of none
        WeightsError : the checkpoint is damaged
        """
        refuse_others(self.folder, self.writes, RECORD_FILE, self.made_by)
        if not self.path.exists():
            return None
        record = self.folder / RECORD_FILE
        before, now = flat(json.loads(record.read_bytes()) if record.exists() else {}), flat(self.made_by)
        if changed := [key for key in before | now if before.get(key) != now.get(key)]:
            what = first_few([f"{key} {now.get(key, 'absent')} (was {before.get(key, 'absent')})" for key in changed])
            raise ValueError(
                f"{self.folder} holds a training with other settings: {what}. Go on with the same ones, or choose "
                "another folder; its weights can be the start there."
            )
        try:
            return torch.load(self.path, map_location=device, weights_only=True)
        except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
            raise WeightsError(
                f"{self.path}: expected the checkpoint of a training, found a damaged file. Remove it to begin again."
            ) from error

    def begin(self) -> None:
        """Make the folder and write the settings down; for the one process that writes, once `load` has agreed.

        Raises
        ------
        ValueError : another training is writing there
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        self.lock = Lock(self.folder)  # as long as this object lives
        remove_partials(self.path)  # of a training that was killed while it wrote
        write_whole(self.folder / RECORD_FILE, (json.dumps(self.made_by, indent=1) + "\n").encode())

    def is_due(self) -> bool:
        """Whether it is time to save again."""
        return time.monotonic() - self.saved >= CHECKPOINT_SECONDS

    def save(self, state: Mapping[str, Any]) -> None:
        """Replace the checkpoint by this state."""
        with replacing(self.path) as file:
            torch.save(dict(state), file)
        self.saved = time.monotonic()


class Curve:
    """A table that grows by a line a step; lines after the step that a training goes on from are dropped.

    Parameters
    ----------
    columns : the first is ``step``
    step : that the training goes on from; 0 of a new one
    """

    def __init__(self, path: Path, columns: Sequence[str], step: int) -> None:
        self.path, self.columns = path, columns
        kept: list[list[str]] = []
        if step and path.exists():
            with path.open(newline="", encoding="utf-8") as file:
                lines = list(csv.reader(file))[1:]
            kept = [line for line in lines if len(line) == len(columns) and int(line[0]) <= step]
        content = io.StringIO()
        csv.writer(content, lineterminator="\n").writerows([columns, *kept])
        write_whole(path, content.getvalue().encode())

    def add(self, values: Mapping[str, object]) -> None:
        """Write a line; a column's value goes by the column's name."""
        with self.path.open("a", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerow([values[column] for column in self.columns])


def flat(record: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Settings in settings by one name each, with spaces between the parts of the name."""
    out: dict[str, Any] = {}
    for key, value in record.items():
        out |= flat(value, f"{prefix}{key} ") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return out


def cosine(start: float, end: float, share: float) -> float:
    """From `start` to `end` as half a cosine, `share` of the way."""
    return end + (start - end) * (1 + math.cos(math.pi * min(max(share, 0.0), 1.0))) / 2


@torch.no_grad()
def update_average(average: dict[str, Tensor], network: nn.Module, decay: float) -> None:
    """Exponential moving average of weights and batch statistics (counters are copied)."""
    for key, tensor in network.state_dict().items():
        if tensor.is_floating_point():
            average[key].lerp_(tensor, 1 - decay)
        else:
            average[key].copy_(tensor)
