"""Predictions of a small cohort, and its reference."""

import numpy as np

from balaitous.evaluation.tasks import Predictions, Reference

PATIENTS = [f"{i:03d}" for i in range(120)]
COVID = np.arange(120) % 2 == 0
SEVERE = COVID & (np.arange(120) % 4 == 0)
REFERENCE = Reference(PATIENTS, {"covid": COVID.astype(float), "severe": SEVERE.astype(float)})


def noisy(name, noise):
    """Predictions that know the outcome, and add noise to it."""
    drawn = np.random.default_rng(len(name)).uniform(-noise, noise, (2, 120))
    covid, severe = np.clip(np.stack([COVID, SEVERE]) * 0.5 + 0.25 + drawn, 0, 1)
    return Predictions(name, PATIENTS, {"covid": covid, "severe": severe}, bundles={"ab" * 32: "mini"})


def pairs(predictions):
    """{patient: (probability of COVID-19, of a severe outcome)}."""
    return {
        name: (float(covid), float(severe))
        for name, covid, severe in zip(predictions.patients, *predictions.probabilities.values(), strict=True)
    }
