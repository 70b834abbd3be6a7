"""Area under the ROC curve, with intervals: DeLong's, and of a bootstrap; and a paired test of two models.

The bootstrap is the platform's where every patient stands for themselves, and else that of `resampling.py`, which draws
groups whole; DeLong's variance is then Obuchowski's, which is DeLong's where every group is one patient.

References
----------
DeLong, DeLong, Clarke-Pearson 1988, doi:10.2307/2531595: the variance of one area and of the difference of two.
Obuchowski 1997, doi:10.2307/2533958: the same where patients come in groups.
Sun, Xu 2014, doi:10.1109/LSP.2014.2337313: its computation from midranks, in O(n log n).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from grand_challenge_metrics.roc import get_bootstrapped_roc_ci_curves
from numpy.typing import NDArray
from scipy.stats import norm, rankdata
from sklearn.metrics import roc_auc_score

from balaitous.evaluation.resampling import (
    BOOTSTRAPS,
    LEVEL,
    Estimate,
    band_of,
    counts_of,
    draws_of,
    interval,
    percentiles,
    resampled,
)

GRID = np.linspace(0, 1, 101)  # of 1 - specificity, for the band around a ROC curve: the library's


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


def area(
    outcome: NDArray, scores: NDArray, bootstraps: int = BOOTSTRAPS, seed: int = 0, groups: NDArray | None = None
) -> Auc:
    """Area under the ROC curve with its intervals.

    Parameters
    ----------
    outcome : (patients,) bool, with both classes
    scores : (patients,) any numbers, larger where the outcome is more probable
    bootstraps, seed : as `bootstrap_interval`
    groups : (patients,) codes of what is drawn together; None: every patient for themselves, by the platform's library
    """
    value = float(roc_auc_score(outcome, scores))
    standard_error = delong_standard_error(*placements(outcome, scores), *groups_of_classes(outcome, groups))
    if groups is None:
        low, high, band = bootstrap_interval(outcome, scores, bootstraps, seed)
        bootstrap = Estimate(value, low, high)
    else:
        drawn = [
            (counts.areas(), counts.sensitivities(GRID))
            for counts in (counts_of(outcome, scores, weights) for weights in draws_of(groups, bootstraps, seed))
        ]
        areas, curves = (np.concatenate(each) for each in zip(*drawn, strict=True))
        bootstrap, band = interval(value, areas), band_of(curves)
    return Auc(normal_interval(value, standard_error, 0.0, 1.0), bootstrap, standard_error, band)


def groups_of_classes(outcome: NDArray, groups: NDArray | None) -> tuple[NDArray, ...]:
    """Groups of the patients with and of those without the outcome; nothing where there are none."""
    return () if groups is None else (groups[outcome], groups[~outcome])


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
    outcome: NDArray,
    first: NDArray,
    second: NDArray,
    bootstraps: int = BOOTSTRAPS,
    seed: int = 0,
    groups: NDArray | None = None,
) -> Difference:
    """Difference of two models' areas on the same patients, with DeLong's test and a paired bootstrap.

    Parameters
    ----------
    outcome : (patients,) bool, with both classes
    first, second : (patients,) the models' scores
    groups : as `area`; None: each class is drawn on its own
    """
    # The variance of the difference of placements is that of the areas' difference, their covariance included.
    positive, negative = (a - b for a, b in zip(placements(outcome, first), placements(outcome, second), strict=True))
    value = float(positive.mean())
    standard_error = delong_standard_error(positive, negative, *groups_of_classes(outcome, groups))
    if groups is None:
        pairs = resampled([first, second], outcome, bootstraps, seed)
    else:
        pairs = (
            tuple(counts_of(outcome, scores, weights) for scores in (first, second))
            for weights in draws_of(groups, bootstraps, seed)
        )
    drawn = np.concatenate([a.areas() - b.areas() for a, b in pairs])
    drawn = drawn[np.isfinite(drawn)]
    # Twice the share of draws on the far side of 0; one is added, as the sample itself is a draw that could have been.
    tail = (min((drawn <= 0).sum(), (drawn >= 0).sum()) + 1) / (len(drawn) + 1)
    return Difference(
        delong=normal_interval(value, standard_error, -1.0, 1.0),
        p_value_delong=two_sided(value, standard_error),
        bootstrap=Estimate(value, *percentiles(drawn)) if groups is None else interval(value, drawn, bootstraps),
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


def delong_standard_error(
    positive: NDArray,
    negative: NDArray,
    positive_groups: NDArray | None = None,
    negative_groups: NDArray | None = None,
) -> float | None:
    """Standard error of the mean of placements (or of their differences); None where a class has a single patient.

    Parameters
    ----------
    positive, negative : (positives,), (negatives,) as `placements` gives them
    positive_groups, negative_groups : codes of what belongs together; without them every patient stands for themselves.
        None is returned where a class lies in a single group.
    """
    if positive_groups is None or negative_groups is None:
        if min(len(positive), len(negative)) < 2:
            return None
        return float(np.sqrt(positive.var(ddof=1) / len(positive) + negative.var(ddof=1) / len(negative)))
    _, codes = np.unique(np.concatenate([positive_groups, negative_groups]), return_inverse=True)
    number = int(codes.max()) + 1
    sums, shares = [], []  # of each class: what its patients in each group deviate together, and its share of variance
    for placed, of in ((positive, codes[: len(positive)]), (negative, codes[len(positive) :])):
        with_it = len(np.unique(of))
        if with_it < 2:
            return None
        deviations = np.bincount(of, placed - placed.mean(), minlength=number) / len(placed)
        sums.append(deviations)
        shares.append(with_it / (with_it - 1) * (deviations**2).sum())
    together = 2 * number / (number - 1) * (sums[0] * sums[1]).sum()
    return float(np.sqrt(max(0.0, sum(shares) + together)))


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
