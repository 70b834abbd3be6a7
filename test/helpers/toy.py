"""The smallest model there can be: how bright a picture is. It shows what a model needs, and what it gets for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

import balaitous
from balaitous.checks import Check, Limits, check_probabilities, check_value, refuse, verdict
from balaitous.models import Model
from balaitous.provenance import Provenance, recorded_warnings, versions
from balaitous.reading.fingerprint import content_sha256, unchanged
from balaitous.reading.pictures import read_picture
from balaitous.report.case import Shown
from balaitous.report.overlays import as_colour
from balaitous.weights.bundle import open_bundle
from balaitous.weights.pack import Facts, write_bundle
from balaitous.weights.search import find_bundle

TOY = Model(
    name="toy",
    title="whether a picture is bright",
    reads=("picture",),
    outputs={"bright": "bright"},
    bundles=("toy", "mini-toy"),
    where="helpers.toy:Toy",
    given=("gain",),
    columns={"mean_grey": "float", "rows": "int"},
    shown={"mean grey": "{mean_grey:.2f}"},
    limits="helpers.toy:LIMITS",
    saving="helpers.toy:save",
    citation="nobody",
    good_for="nothing but tests",
)
LIMITS = {"contrast": Limits("standard deviation of grey", "", (0.01, 1.0), low="a picture of nothing")}


@dataclass(frozen=True)
class ToyPrediction:
    """What the toy says of one picture."""

    path: str
    input_sha256: str
    probability_bright: float
    mean_grey: float
    rows: int
    grey: NDArray[np.float32]
    provenance: Provenance
    seconds: Mapping[str, float] = field(default_factory=dict)
    checks: tuple[Check, ...] = ()
    warnings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_probabilities({"probability_bright": self.probability_bright})

    def row(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("probability_bright", "mean_grey", "rows")}

    def to_dict(self) -> dict[str, Any]:
        return {"path": self.path, **self.row(), **verdict(self.checks)}


class Toy:
    """Mean grey times the gain of a bundle, and that of the picture where one is given."""

    MODEL: ClassVar[Model] = TOY

    def __init__(self, weights=None, device=None, precision="auto", calibrated=False, strict=False) -> None:
        self.bundle = open_bundle(find_bundle(weights, TOY))
        self.gain = float(self.bundle.load_arrays("numbers")["gain"])
        self.device, self.precision, self.strict = torch.device("cpu"), "fp32", strict
        facts = (self.bundle.name, self.bundle.sha256, self.bundle.intended_use, self.bundle.demonstration)
        self.provenance = Provenance(balaitous.__version__, versions(), *facts, "cpu", "CPU", 1, "fp32", None, None)

    def predict(self, path, *, executor=None, gain=1.0) -> ToyPrediction:
        with recorded_warnings() as warnings:
            with unchanged(path):
                picture, sha256 = read_picture(path), content_sha256(path)
            checks = (check_value("contrast", float(picture.grey.std()), LIMITS["contrast"]),)
            refuse(picture.path, "a picture", checks, self.strict)
            grey = float(picture.grey.mean(dtype=float))
        return ToyPrediction(
            *(picture.path, sha256, grey * self.gain * float(gain), grey, len(picture.grey)),
            picture.grey,
            *(self.provenance, {"grey": 0.001}, checks, tuple(warnings)),
        )


def save(prediction: ToyPrediction, folder: Path, beside: Toy | None = None) -> tuple[Shown, ...]:
    """The picture itself."""
    Image.fromarray(as_colour(prediction.grey)).save(folder / "grey.png")
    return (Shown("grey.png", "the picture", "Grey from black to white."),)


def write_toy_bundle(folder: Path, gain: float = 0.5) -> Path:
    """A bundle of the toy, which has no network."""
    facts = Facts(folder.name, licence="MIT", intended_use="Tests only.", demonstration=True)
    return write_bundle(folder, facts, model=TOY.name, networks={}, arrays={"numbers": {"gain": np.array(gain)}})
