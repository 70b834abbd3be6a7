"""Area under the ROC curve, with intervals: DeLong's, and of the platform's bootstrap; and a paired test of two models.

References
----------
DeLong, DeLong, Clarke-Pearson 1988, doi:10.2307/2531595: the variance of one area and of the difference of two.
Sun, Xu 2014, doi:10.1109/LSP.2014.2337313: its computation from midranks, in O(n log n).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from grand_challenge_metrics.roc import get_bootstrapped_roc_ci_curves
from numpy.typing import NDArray
from scipy.stats import norm, rankdata
from sklearn.metrics import roc_auc_score

LEVEL = 0.95  # of every interval
BOOTSTRAPS = 1000
DRAWS_AT_A_TIME = 1_000_000  # patients drawn, so that memory does not grow with their number
GRID = np.linspace(0, 1, 101)  # of 1 - specificity, for the band around a ROC curve: the library's


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval; None where there is none, and why."""

    value: float | None
    ci_low: float | None = None
    ci_high: float | None = None
    reason: str | None = None


@dataclass(frozen=True)
class Auc:
    """An area under the ROC curve.

    Attributes
    ----------
    delong, bootstrap : the same area with either interval
    standard_error : DeLong's; None where a class has a single patient
    band : (2, 101) where the lower and the upper 2.5 % of the bootstrapped sensitivity at 1 - specificity of `GRID` end
    """

    delong: Estimate
    bootstrap: Estimate
    standard_error: float | None
    band: NDArray[np.float64]


@dataclass(frozen=True)
class Difference:
    """Area of the first model minus that of the second, on the same patients; p-values are two-sided."""

    delong: Estimate
    p_value_delong: float | None
    bootstrap: Estimate
    p_value_bootstrap: float


def area(outcome: NDArray, scores: NDArray, bootstraps: int = BOOTSTRAPS, seed: int = 0) -> Auc:
    """Area under the ROC curve with its intervals.

    Parameters
    ----------
    outcome : (patients,) bool, with both classes
    scores : (patients,) any numbers, larger where the outcome is more probable
    bootstraps, seed : as `bootstrap_interval`
    """
    value = float(roc_auc_score(outcome, scores))
    standard_error = delong_standard_error(*placements(outcome, scores))
    low, high, band = bootstrap_interval(outcome, scores, bootstraps, seed)
    return Auc(
        delong=normal_interval(value, standard_error, 0.0, 1.0),
        bootstrap=Estimate(value, low, high),
        standard_error=standard_error,
        band=band,
    )


def bootstrap_interval(
    outcome: NDArray, scores: NDArray, bootstraps: int, seed: int
) -> tuple[float, float, NDArray[np.float64]]:
    """Interval of the area and band of the curve, by the platform's library, so that both are what a challenge shows.

    The library draws from a seed of its own, so that ours shuffles the patients. And it never draws the last of them,
    without whom it might wait forever for both classes: so a copy of the last one stands behind them.

    Parameters
    ----------
    outcome, scores : as `area`
    bootstraps : how often patients are drawn again, with replacement, until there are that many draws of both classes

    Returns
    -------
    lower and upper end of the area, and the band (2, 101) at `GRID`
    """
    order = np.random.default_rng(seed).permutation(len(outcome))
    order = np.append(order, order[-1])
    found = get_bootstrapped_roc_ci_curves(scores[order], np.asarray(outcome, bool)[order], bootstraps, LEVEL)
    return float(found.low_az_val), float(found.high_az_val), np.stack([found.low_tpr_vals, found.high_tpr_vals])


def compare(
    outcome: NDArray, first: NDArray, second: NDArray, bootstraps: int = BOOTSTRAPS, seed: int = 0
) -> Difference:
    """Difference of two models' areas on the same patients, with DeLong's test and a paired bootstrap.

    Parameters
    ----------
    outcome : (patients,) bool, with both classes
    first, second : (patients,) the models' scores
    """
    # The variance of the difference of placements is that of the areas' difference, their covariance included.
    positive, negative = (a - b for a, b in zip(placements(outcome, first), placements(outcome, second), strict=True))
    value = float(positive.mean())
    standard_error = delong_standard_error(positive, negative)
    drawn = np.concatenate([a.areas() - b.areas() for a, b in resampled([first, second], outcome, bootstraps, seed)])
    # Twice the share of draws on the far side of 0; one is added, as the sample itself is a draw that could have been.
    tail = (min((drawn <= 0).sum(), (drawn >= 0).sum()) + 1) / (bootstraps + 1)
    return Difference(
        delong=normal_interval(value, standard_error, -1.0, 1.0),
        p_value_delong=two_sided(value, standard_error),
        bootstrap=Estimate(value, *percentiles(drawn)),
        p_value_bootstrap=float(min(1.0, 2 * tail)),
    )


def placements(outcome: NDArray, scores: NDArray) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Share of the other class that each patient is ranked correctly against, ties as half.

    Returns
    -------
    (positives,), (negatives,), whose means both are the area
    """
    outcome = np.asarray(outcome, bool)
    positives, negatives = scores[outcome], scores[~outcome]
    ranks = rankdata(scores)  # midranks: those of ties are averaged
    negatives_below = ranks[outcome] - rankdata(positives)
    positives_below = ranks[~outcome] - rankdata(negatives)
    return negatives_below / len(negatives), 1 - positives_below / len(positives)


def delong_standard_error(positive: NDArray, negative: NDArray) -> float | None:
    """Standard error of the mean of placements (or of their differences); None where a class has a single patient."""
    if min(len(positive), len(negative)) < 2:
        return None
    return float(np.sqrt(positive.var(ddof=1) / len(positive) + negative.var(ddof=1) / len(negative)))


def normal_interval(
    value: float, standard_error: float | None, lowest: float = -np.inf, highest: float = np.inf
) -> Estimate:
    """The interval of a normal distribution, clipped to the values that can be."""
    if standard_error is None:
        return Estimate(value, reason="no interval: a class has a single patient")
    half = norm.ppf((1 + LEVEL) / 2) * standard_error
    reason = None
    if standard_error == 0 and value in (lowest, highest):
        reason = "the classes do not overlap: the interval has no width, whatever the number of patients"
    return Estimate(value, float(max(lowest, value - half)), float(min(highest, value + half)), reason)


def two_sided(value: float, standard_error: float | None) -> float | None:
    """p-value of a difference under a normal distribution around 0."""
    if standard_error is None:
        return None
    if standard_error == 0:
        return 1.0 if value == 0 else 0.0
    return float(2 * norm.sf(abs(value) / standard_error))


@dataclass(frozen=True)
class Counts:
    """Bootstrap samples as counts of each distinct score, in falling order: (samples, scores)."""

    positives: NDArray[np.int64]
    negatives: NDArray[np.int64]

    def areas(self) -> NDArray[np.float64]:
        """(samples,) area under each sample's ROC curve."""
        higher = np.cumsum(self.positives, axis=1) - self.positives / 2  # positives above each score, ties as half
        pairs = self.positives[:1].sum() * self.negatives[:1].sum()
        return np.einsum("sk,sk->s", higher, self.negatives) / pairs


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
