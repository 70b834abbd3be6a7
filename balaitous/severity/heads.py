"""From features to probabilities: four logistic regressions and two weighted means (steps 13 and 14)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

AGE_RANGE = (0.25, 0.95)  # of the age feature, age in centuries
VIEWS = ("full", "lung")


@dataclass(frozen=True)
class Outcome:
    """What a head of each view answers.

    Attributes
    ----------
    title : for people
    clinical : what the heads see after the embedding, out of "age" (as `age_feature`) and "sex"
    among : the outcome whose patients the heads are fitted and judged on; None: all patients
    """

    title: str
    clinical: tuple[str, ...] = ()
    among: str | None = None


OUTCOMES = {
    "covid": Outcome("COVID-19"),
    "severe": Outcome("Severe outcome", clinical=("age", "sex"), among="covid"),
}
HEADS = tuple(f"{view}_{outcome}" for outcome in OUTCOMES for view in VIEWS)


@dataclass(frozen=True)
class Heads:
    """The logistic regressions of a bundle.

    Attributes
    ----------
    arrays : ``coef_{view}_{outcome}`` (width + clinical,), whose last values weigh the outcome's clinical features;
        ``intercept_{view}_{outcome}``; ``alpha_{view}_{outcome}``, the weight of a view in the mean
    """

    arrays: Mapping[str, NDArray]

    def probabilities(self, features: Mapping[str, NDArray], age_years: float, sex: float) -> dict[str, float]:
        """Probabilities ``{full,lung}_{covid,severe}``, ``covid`` and ``severe`` of one scan.

        Parameters
        ----------
        features : (width,) of each view, "full" and "lung"
        age_years : of the patient
        sex : 1 male, 0 female, 0.5 unknown
        """
        patient = {"age": age_feature(age_years), "sex": sex}
        out: dict[str, float] = {}
        for outcome, facts in OUTCOMES.items():
            clinical = [patient[name] for name in facts.clinical]
            for view in VIEWS:
                inputs = np.concatenate([features[view], clinical]) if clinical else features[view]
                # summed exactly: the last digits of a BLAS are those of the kernel it picks for the processor
                product = math.fsum(inputs * self.arrays[f"coef_{view}_{outcome}"])
                intercept = float(np.squeeze(self.arrays[f"intercept_{view}_{outcome}"]))
                out[f"{view}_{outcome}"] = float(expit(product + intercept))
        for outcome in OUTCOMES:
            mean = sum(float(self.arrays[f"alpha_{view}_{outcome}"]) * out[f"{view}_{outcome}"] for view in VIEWS)
            out[outcome] = float(np.clip(mean, 0.0, 1.0))  # rounding may leave [0, 1] by 1e-16
        return out


def age_feature(age_years: float) -> float:
    """Age in centuries, within the range seen in training."""
    return float(np.clip(age_years / 100, *AGE_RANGE))
