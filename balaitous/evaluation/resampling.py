"""Intervals by drawing again: patients, each class on its own, or groups of what belongs together, each whole.

Pictures of one patient, or figures of one preprint, are alike. To draw them one by one would be to count the same
patient several times: the intervals would be too narrow. So whole groups are drawn, with replacement.

References
----------
Efron, Tibshirani 1993, An introduction to the bootstrap: percentile intervals.
Field, Welsh 2007, doi:10.1111/j.1467-9868.2007.00593.x: drawing clusters whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.95  # of every interval
BOOTSTRAPS = 1000
DRAWS_AT_A_TIME = 1_000_000  # patients drawn, so that memory does not grow with their number
USABLE = 0.5  # share of the draws that must have both classes, for an interval to be one


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval; None where there is none, and why."""

    value: float | None
    ci_low: float | None = None
    ci_high: float | None = None
    reason: str | None = None


@dataclass(frozen=True)
class Counts:
    """Bootstrap samples as counts of each distinct score, in falling order: (samples, scores).

    What cannot be said of a sample, because it lacks a class, is NaN.
    """

    positives: NDArray[np.int64]
    negatives: NDArray[np.int64]

    def areas(self) -> NDArray[np.float64]:
        """(samples,) area under each sample's ROC curve."""
        higher = np.cumsum(self.positives, axis=1) - self.positives / 2  # positives above each score, ties as half
        pairs = self.positives.sum(axis=1) * self.negatives.sum(axis=1)
        with np.errstate(invalid="ignore"):
            return np.einsum("sk,sk->s", higher, self.negatives) / pairs

    def average_precisions(self) -> NDArray[np.float64]:
        """(samples,) mean precision over the positives, each at its own score: scikit-learn's average precision."""
        found = np.cumsum(self.positives, axis=1)
        called = found + np.cumsum(self.negatives, axis=1)
        with np.errstate(invalid="ignore"):
            precision = found / np.maximum(called, 1)
            return np.einsum("sk,sk->s", precision, self.positives) / found[:, -1]

    def sensitivities(self, grid: NDArray[np.float64]) -> NDArray[np.float64]:
        """(samples, grid) sensitivity where 1 - specificity is as in the grid, by straight lines between the scores."""
        with np.errstate(invalid="ignore"):
            true, false = (
                np.pad(np.cumsum(each, axis=1) / each.sum(axis=1, keepdims=True), ((0, 0), (1, 0)))
                for each in (self.positives, self.negatives)
            )
        return np.stack([np.interp(grid, x, y) for x, y in zip(false, true, strict=True)])


def resampled(scores: Sequence[NDArray], outcome: NDArray, bootstraps: int, seed: int) -> Iterator[tuple[Counts, ...]]:
    """Yield bootstrap samples in chunks: the same patients for every model, each class drawn on its own.

    Parameters
    ----------
    scores : of each model, (patients,)

    Yields
    ------
    of each model, the counts of the chunk's samples
    """
    outcome = np.asarray(outcome, bool)
    ranked = [np.unique(-each, return_inverse=True) for each in scores]
    generator = np.random.default_rng(seed)
    chunk = max(1, DRAWS_AT_A_TIME // len(outcome))
    for start in range(0, bootstraps, chunk):
        samples = min(chunk, bootstraps - start)
        drawn = [generator.integers(count, size=(samples, count)) for count in (outcome.sum(), (~outcome).sum())]
        yield tuple(
            Counts(
                count_codes(codes[outcome][drawn[0]], len(distinct)),
                count_codes(codes[~outcome][drawn[1]], len(distinct)),
            )
            for distinct, codes in ranked
        )


def count_codes(codes: NDArray, distinct: int) -> NDArray[np.int64]:
    """Count how often each code comes in each row of (samples, patients): (samples, distinct)."""
    offsets = distinct * np.arange(len(codes))[:, None]
    return np.bincount((codes + offsets).ravel(), minlength=distinct * len(codes)).reshape(len(codes), distinct)


def percentiles(drawn: NDArray) -> tuple[float, float]:
    """The middle 95 % of bootstrapped values."""
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def draws_of(groups: NDArray, bootstraps: int, seed: int) -> Iterator[NDArray[np.int64]]:
    """Yield bootstrap samples in chunks: as many groups as there are, drawn with replacement, each with all its items.

    Parameters
    ----------
    groups : (items,) what belongs together has the same code

    Yields
    ------
    (samples, items) how often each item is in each sample; the same of the same groups, number and seed
    """
    distinct, codes = np.unique(groups, return_inverse=True)
    count, generator = len(distinct), np.random.default_rng(seed)
    chunk = max(1, DRAWS_AT_A_TIME // len(codes))
    for start in range(0, bootstraps, chunk):
        samples = min(chunk, bootstraps - start)
        drawn = generator.multinomial(count, np.full(count, 1 / count), size=samples)
        yield drawn[:, codes]


def counts_of(outcome: NDArray, scores: NDArray, weights: NDArray) -> Counts:
    """Samples as counts of each distinct score.

    Parameters
    ----------
    outcome, scores : (items,) whether the outcome is there, and how probable it was called
    weights : (samples, items) as `draws_of` yields them
    """
    order = np.argsort(-scores, kind="stable")
    starts = np.flatnonzero(np.diff(scores[order], prepend=np.inf))
    weights, positive = weights[:, order], outcome[order]
    return Counts(*(np.add.reduceat(weights * each, starts, axis=1) for each in (positive, ~positive)))


def interval(value: float, drawn: NDArray, bootstraps: int | None = None) -> Estimate:
    """A value with the middle 95 % of what was drawn, where that can be said.

    Parameters
    ----------
    value : NaN where there is none
    drawn : (samples,) NaN where a sample has none
    bootstraps : how many were drawn, where those without a value are left out already
    """
    if np.isnan(value):
        return Estimate(None, reason="it has no value here")
    usable = drawn[np.isfinite(drawn)]
    if len(usable) < USABLE * (bootstraps or len(drawn)):
        return Estimate(value, reason="no interval: most draws of whole groups lack a class")
    return Estimate(value, *percentiles(usable))


def band_of(curves: NDArray) -> NDArray[np.float64]:
    """(2, grid) where the lower and the upper 2.5 % of drawn curves end, each point for itself; NaN without curves.

    Parameters
    ----------
    curves : (samples, grid)
    """
    usable = curves[np.isfinite(curves).all(axis=1)]
    if not len(usable):
        return np.full((2, curves.shape[1]), np.nan)
    return np.quantile(usable, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
