"""What is measured of one task besides the area: operating points, Brier score, and how well it is calibrated.

References
----------
Cox 1958, doi:10.1093/biomet/45.3-4.562: calibration intercept and slope.
Van Calster et al. 2019, doi:10.1186/s12916-019-1466-7: what they mean in clinical prediction, and how to report them.
Wilson 1927, doi:10.1080/01621459.1927.10502953: the interval of a proportion.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import expit, logit
from scipy.stats import binomtest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss, roc_curve

from balaitous.evaluation.auc import Auc, area, normal_interval
from balaitous.evaluation.resampling import BOOTSTRAPS, LEVEL, Estimate
from balaitous.evaluation.scores import Classes, Finding, Scores, score_task
from balaitous.evaluation.tasks import Task

THRESHOLDS = (0.5,)
GOAL = 0.9  # of sensitivity to rule out, of specificity to rule in
BEST = "largest sensitivity + specificity"
BINS = 10  # of the calibration curve, with as many patients each as ties allow
CLIP = 1e-6  # probabilities nearer to 0 or 1 are taken as this, where logits are needed: theirs are infinite


@dataclass(frozen=True)
class OperatingPoint:
    """Sensitivity and specificity where a probability of at least `threshold` is called positive.

    Attributes
    ----------
    chosen : how the threshold was found; one found on the very patients it is evaluated on flatters
    threshold : None where nobody is called positive
    """

    chosen: str
    threshold: float | None
    sensitivity: Estimate
    specificity: Estimate


@dataclass(frozen=True)
class CalibrationBin:
    """Patients with similar probabilities: their mean, and the share that has the outcome."""

    patients: int
    predicted: float
    observed: Estimate


@dataclass(frozen=True)
class CalibrationFit:
    """How probabilities relate to outcomes; a perfect model has slope 1 and intercept 0.

    Attributes
    ----------
    slope : of the outcome's logistic regression on the predicted logit; below 1: predictions are too extreme
    intercept : what must be added to the predicted logits for their mean probability to be right; below 0: they
        are too high on the whole (calibration in the large)
    curve : from low to high probabilities
    """

    slope: Estimate
    intercept: Estimate
    curve: tuple[CalibrationBin, ...]


@dataclass(frozen=True)
class TaskMetrics:
    """Everything that is measured of one task.

    Attributes
    ----------
    brier : mean squared difference of probability and outcome
    brier_of_prevalence : that of a model which says the prevalence for everybody
    scores : where what is evaluated comes in groups: `points` is then empty, as its intervals know no groups
    """

    patients: int
    positives: int
    auc: Auc
    points: tuple[OperatingPoint, ...]
    brier: float
    brier_of_prevalence: float
    calibration: CalibrationFit
    scores: Scores | None = None


@dataclass(frozen=True)
class Evaluated:
    """One model's predictions and what was measured of them.

    Attributes
    ----------
    name : as legends and tables show it
    tasks : by output
    metrics : of each task; None where a class is absent (`Task.gap` says which)
    bundles : as `Predictions`
    probabilities : of each output of all patients, in the order of the reference
    titles : of the outputs, for people
    findings : the outputs after the first, where outputs do not exclude each other, beside what the first alone says
    classes : where outputs exclude each other
    sources : the same of each source alone, where the reference names several
    """

    name: str
    tasks: Mapping[str, Task]
    metrics: Mapping[str, TaskMetrics | None]
    bundles: Mapping[str, str] = field(default_factory=dict)
    probabilities: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    titles: Mapping[str, str] = field(default_factory=dict)
    findings: Mapping[str, Finding] = field(default_factory=dict)
    classes: Classes | None = None
    sources: Mapping[str, Evaluated] = field(default_factory=dict)


def measure(
    task: Task,
    thresholds: Sequence[float] = THRESHOLDS,
    bootstraps: int = BOOTSTRAPS,
    seed: int = 0,
    validated: float | None = None,
) -> TaskMetrics:
    """Measure a task that has both classes (`Task.gap` is None).

    Parameters
    ----------
    validated : a threshold more, that was chosen on validation
    """
    chosen = [(f"threshold {each:g}, given", each) for each in thresholds]
    if validated is not None:
        chosen.append((f"{BEST}, on validation", validated))
    prevalence = float(task.outcome.mean())
    return TaskMetrics(
        patients=len(task.outcome),
        positives=int(task.outcome.sum()),
        auc=area(task.outcome, task.probability, bootstraps, seed, task.groups),
        points=operating_points(task, chosen) if task.groups is None else (),
        brier=float(brier_score_loss(task.outcome, task.probability)),
        brier_of_prevalence=prevalence * (1 - prevalence),
        calibration=CalibrationFit(
            slope=calibration_slope(task), intercept=calibration_intercept(task), curve=calibration_curve(task)
        ),
        scores=None if task.groups is None else score_task(task, chosen, bootstraps, seed),
    )


def operating_points(task: Task, thresholds: Sequence[tuple[str, float]]) -> tuple[OperatingPoint, ...]:
    """Operating points at thresholds, at the largest sensitivity + specificity, and where either reaches `GOAL`.

    Parameters
    ----------
    thresholds : how each was found, and the threshold
    """
    false, true, cuts = roc_curve(task.outcome, task.probability, drop_intermediate=False)
    chosen = [
        *thresholds,
        (f"{BEST}, on these patients", best_threshold(task)),
        (f"sensitivity at least {GOAL:.0%}, on these patients", cuts[np.argmax(true >= GOAL)]),
        (f"specificity at least {GOAL:.0%}, on these patients", cuts[np.flatnonzero(false <= 1 - GOAL + 1e-12)[-1]]),
    ]
    return tuple(operating_point(task, name, float(threshold)) for name, threshold in chosen)


def best_threshold(task: Task) -> float:
    """Where sensitivity + specificity is largest (Youden); infinite where nobody should be called positive."""
    false, true, cuts = roc_curve(task.outcome, task.probability, drop_intermediate=False)
    return float(cuts[np.argmax(true - false)])


def operating_point(task: Task, chosen: str, threshold: float) -> OperatingPoint:
    """Sensitivity and specificity at a threshold, each with Wilson's interval."""
    called = task.probability >= threshold
    return OperatingPoint(
        chosen,
        threshold if np.isfinite(threshold) else None,
        sensitivity=proportion(called[task.outcome]),
        specificity=proportion(~called[~task.outcome]),
    )


def proportion(found: NDArray[np.bool_]) -> Estimate:
    """The share of True with Wilson's interval."""
    count, total = int(found.sum()), len(found)
    interval = binomtest(count, total).proportion_ci(LEVEL, method="wilson")
    return Estimate(count / total, float(interval.low), float(interval.high))


def calibration_curve(task: Task, bins: int = BINS) -> tuple[CalibrationBin, ...]:
    """Observed against predicted in groups of about the same size; equal probabilities stay in one group."""
    edges = np.unique(np.quantile(task.probability, np.linspace(0, 1, bins + 1)[1:-1]))
    group = np.searchsorted(edges, task.probability, side="left")
    members = [group == each for each in np.unique(group)]
    return tuple(
        CalibrationBin(int(each.sum()), float(task.probability[each].mean()), proportion(task.outcome[each]))
        for each in members
    )


def logits(probability: NDArray) -> NDArray[np.float64]:
    """Logits of probabilities, finite also of 0 and 1."""
    return logit(np.clip(probability, CLIP, 1 - CLIP))


def calibration_slope(task: Task) -> Estimate:
    """Slope of the outcome's logistic regression on the predicted logit, with Wald's interval."""
    x, y = logits(task.probability), task.outcome
    if x.min() == x.max():
        return Estimate(None, reason="no slope: all predictions are the same")
    if x[y].min() >= x[~y].max() or x[y].max() <= x[~y].min():
        return Estimate(None, reason="no slope: the classes do not overlap, it would be infinite")
    slope, intercept = logistic_regression(x, y)
    fitted = expit(slope * x + intercept)
    weight = fitted * (1 - fitted)
    spread = weight @ (x - np.average(x, weights=weight)) ** 2  # Fisher information of the slope
    return normal_interval(slope, float(1 / np.sqrt(spread)))


def logistic_regression(x: NDArray, outcome: NDArray, weights: NDArray | None = None) -> tuple[float, float]:
    """Slope and intercept of a logistic regression without penalty on one variable, which must not be constant."""
    mean, deviation = x.mean(), x.std()
    standardised = ((x - mean) / deviation)[:, None]  # else the fit stumbles over predictions that hardly differ
    model = LogisticRegression(C=np.inf, solver="newton-cholesky", tol=1e-8)
    model.fit(standardised, outcome, sample_weight=weights)
    slope = float(model.coef_[0, 0] / deviation)
    return slope, float(model.intercept_[0] - slope * mean)


def calibration_intercept(task: Task) -> Estimate:
    """What must be added to the predicted logits for their mean probability to be the prevalence; Wald's interval."""
    x, prevalence = logits(task.probability), task.outcome.mean()
    reach = np.abs(x).max() + abs(logit(prevalence)) + 1  # beyond it the mean is on the other side for sure
    shift = float(brentq(lambda shift: expit(x + shift).mean() - prevalence, -reach, reach))
    fitted = expit(x + shift)
    return normal_interval(shift, float(1 / np.sqrt((fitted * (1 - fitted)).sum())))
