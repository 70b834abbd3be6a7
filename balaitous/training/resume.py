"""What a training of the lung U-Net leaves as it goes, for a next start that goes on with the same or not at all."""

from __future__ import annotations

import hashlib
import json
import pickle
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import torch

from balaitous.errors import WeightsError
from balaitous.evaluation.predictions import some
from balaitous.files import remove_partials, write_whole
from balaitous.networks.unet import UNet
from balaitous.training.lungs.cases import LungCase

CHECKPOINT_FILE, RECORD_FILE, CURVE_FILE = "checkpoint.pt", "training.json", "loss.csv"


def begin(out: Path, record: dict[str, Any]) -> None:
    """Write down settings and cases; where a training has begun, check that they are the same.

    Raises
    ------
    ValueError : they are not
    """
    remove_partials(out / CHECKPOINT_FILE)  # of a training that was killed while it wrote
    path = out / RECORD_FILE
    if (out / CHECKPOINT_FILE).exists():
        before, now = (_flat(each) for each in (json.loads(path.read_text()) if path.exists() else {}, record))
        changed = [key for key in before | now if before.get(key) != now.get(key)]
        if changed:
            what = some([f"{key} {now.get(key, 'absent')} (was {before.get(key, 'absent')})" for key in changed])
            raise ValueError(
                f"{out} holds a training with other settings or cases: {what}. Go on with the same ones, or choose "
                "another folder; its weights can be the start there."
            )
    write_whole(path, (json.dumps(record, indent=1) + "\n").encode())


def _flat(record: dict[str, Any]) -> dict[str, Any]:
    cases = {f"case {name}": digest for name, digest in record.get("cases", {}).items()}
    return {key: value for key, value in record.items() if key != "cases"} | cases


def read_checkpoint(path: Path, device: torch.device) -> dict[str, Any]:
    """What a training left: state of network and optimiser, averaged weights, steps done."""
    try:
        return torch.load(path, map_location=device, weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise WeightsError(
            f"{path}: expected the checkpoint of a training, found a damaged file. Remove it to begin again."
        ) from error


def loss_curve(path: Path, done: int) -> TextIO:
    """A table ``step,loss,learning_rate`` of the steps that are done, open for the lines to come."""
    rows = path.read_text().splitlines()[1 : done + 1] if path.exists() else []
    write_whole(path, "\n".join(["step,loss,learning_rate", *rows, ""]).encode())
    return path.open("a", buffering=1)


def fingerprint(case: LungCase) -> str:
    """What a case is known by: the start of the SHA-256 of its voxels, labels and spacing, in hexadecimal."""
    facts = json.dumps([case.hu.shape, case.spacing_mm, case.real])
    return digest([facts.encode(), np.ascontiguousarray(case.hu).data, np.ascontiguousarray(case.labels).data])


def state_digest(network: UNet) -> str:
    """What a network is known by: the start of the SHA-256 of its tensors, in hexadecimal."""
    return digest(tensor.cpu().contiguous().numpy().data for tensor in network.state_dict().values())


def digest(parts: Iterable[bytes | memoryview]) -> str:
    """The start of the SHA-256 of the parts, one after the other, in hexadecimal."""
    sha256 = hashlib.sha256()
    for part in parts:
        sha256.update(part)
    return sha256.hexdigest()[:16]
