"""Calibration maps: raw probabilities in, calibrated ones out, order kept; and how a bundle holds them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit

from balaitous.errors import WeightsError

if TYPE_CHECKING:
    from balaitous.weights.bundle import Bundle


@dataclass(frozen=True)
class Platt:
    """σ(slope·logit(p) + intercept), slope > 0."""

    slope: float
    intercept: float
    method: ClassVar = "platt"

    def __call__(self, probability: NDArray | float) -> NDArray[np.float64]:
        """Calibrated probabilities; 0 stays 0, and 1 stays 1."""
        return expit(self.slope * logit(np.asarray(probability, float)) + self.intercept)


@dataclass(frozen=True)
class Isotonic:
    """Straight lines between the knots (raw, calibrated), which both rise strictly; raw from 0 to 1."""

    raw: tuple[float, ...]
    calibrated: tuple[float, ...]
    method: ClassVar = "isotonic"

    def __call__(self, probability: NDArray | float) -> NDArray[np.float64]:
        """Calibrated probabilities."""
        return np.interp(np.asarray(probability, float), self.raw, self.calibrated)


@dataclass(frozen=True)
class Temperature:
    """σ(logit(p) / temperature), temperature > 0: the network's own logit, divided (Guo et al. 2017, arXiv:1706.04599).

    Outputs that exclude each other share one, by which the logits are divided before the softmax.
    """

    temperature: float
    method: ClassVar = "temperature"

    def __call__(self, probability: NDArray | float) -> NDArray[np.float64]:
        """Calibrated probabilities of an output for itself; 0 stays 0, and 1 stays 1."""
        return expit(logit(np.asarray(probability, float)) / self.temperature)


Calibration = Platt | Isotonic | Temperature


def stored_in(bundle: Bundle, outputs: Iterable[str]) -> dict[str, Calibration]:
    """The map of each output that a bundle holds; empty if it was never calibrated.

    Raises
    ------
    WeightsError : they are no such maps, or not strictly increasing
    """
    try:
        return {name: from_dict(bundle.calibration[name]) for name in outputs if name in bundle.calibration}
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise WeightsError(
            f"{bundle.folder / 'bundle.json'}: expected strictly increasing calibration maps, found others ({error}). "
            "Calibrate again."
        ) from None


def to_dict(calibration: Calibration) -> dict[str, Any]:
    """A map as JSON holds it."""
    return {"method": calibration.method, **asdict(calibration)}


def from_dict(content: Mapping[str, Any]) -> Calibration:
    """The map that `to_dict` wrote; ValueError if it is not strictly increasing."""
    if content["method"] == "platt":
        platt = Platt(float(content["slope"]), float(content["intercept"]))
        if not (0 < platt.slope < np.inf and np.isfinite(platt.intercept)):
            raise ValueError(f"slope {platt.slope:g}, intercept {platt.intercept:g}")
        return platt
    if content["method"] == "temperature":
        temperature = Temperature(float(content["temperature"]))
        if not 0 < temperature.temperature < np.inf:
            raise ValueError(f"temperature {temperature.temperature:g}")
        return temperature
    if content["method"] != "isotonic":
        raise ValueError(f"method {content['method']!r}")
    isotonic = Isotonic(*(tuple(map(float, content[axis])) for axis in ("raw", "calibrated")))
    rising = all((np.diff(axis) > 0).all() for axis in (isotonic.raw, isotonic.calibrated))
    ends = (isotonic.raw[0], isotonic.raw[-1]) == (0, 1) and 0 <= isotonic.calibrated[0] <= isotonic.calibrated[-1] <= 1
    if len(isotonic.raw) != len(isotonic.calibrated) or not rising or not ends:
        raise ValueError("knots of an isotonic map")
    return isotonic
