"""Training of the heads: logistic regressions on the features of scans whose outcomes are known, cross-validated.

Whatever is chosen, is chosen inside the patients that are fitted on: the strength of the regularisation, and how much
each view weighs in the mean, both by the log loss of held-out predictions. So the patients of a fold that is set aside
are new to everything.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from joblib import Parallel, delayed
from numpy.typing import NDArray
from scipy.special import expit
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import RepeatedStratifiedKFold, StratifiedKFold
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from balaitous.errors import InputError
from balaitous.severity.heads import HEADS, OUTCOMES, VIEWS, Heads, age_feature

STRENGTHS = np.logspace(-4, 2, 10)  # inverse regularisation, from strong to weak
PATIENCE = 2  # strengths that may be worse than the best before no weaker one is tried
VIEW_WEIGHTS = np.linspace(0, 1, 21)  # of the full view in the mean
INNER_FOLDS = 4
REPEATS, FOLDS = 4, 8  # as published
LEAST_PATIENTS = 3  # of a stratum: one is set aside, and two are needed to choose the regularisation
KEYS = (*HEADS, *OUTCOMES)  # as `Heads.probabilities` has it


@dataclass(frozen=True)
class FeatureTable:
    """Patients with features and outcomes.

    Attributes
    ----------
    patients : names
    features : (patients, width) of each view, "full" and "lung"
    age_years, sex : (patients,); sex 1 male, 0 female, 0.5 unknown
    outcomes : (patients,) whether a patient has an outcome, by its name; one among those with another counts there
    """

    patients: Sequence[str]
    features: Mapping[str, NDArray]
    age_years: NDArray
    sex: NDArray
    outcomes: Mapping[str, NDArray[np.bool_]]

    def of(self, index: NDArray) -> FeatureTable:
        """Some of the patients, by number or mask."""
        rows = np.arange(len(self.patients))[index]
        return FeatureTable(
            patients=[self.patients[row] for row in rows],
            features={view: features[rows] for view, features in self.features.items()},
            age_years=self.age_years[rows],
            sex=self.sex[rows],
            outcomes={outcome: truth[rows] for outcome, truth in self.outcomes.items()},
        )

    def inputs(self, view: str, outcome: str) -> NDArray:
        """(patients, width) that the head of a view and outcome sees; the outcome's clinical features come last."""
        if not OUTCOMES[outcome].clinical:
            return self.features[view]
        patients = {"age": np.array([age_feature(age) for age in self.age_years]), "sex": self.sex}
        return np.column_stack([self.features[view], *(patients[name] for name in OUTCOMES[outcome].clinical)])

    def among(self, outcome: str) -> NDArray[np.bool_]:
        """(patients,) of whom an outcome is asked."""
        among = OUTCOMES[outcome].among
        return np.ones(len(self.patients), dtype=bool) if among is None else self.among(among) & self.outcomes[among]

    @property
    def strata(self) -> NDArray[np.int64]:
        """(patients,) how many of the outcomes a patient has: 0 without COVID-19, 1 with, 2 with a severe outcome."""
        return np.sum([self.among(outcome) & truth for outcome, truth in self.outcomes.items()], axis=0)


@dataclass(frozen=True)
class CrossValidation:
    """What was predicted for patients that were set aside.

    Attributes
    ----------
    out_of_fold : (repeats, patients) probabilities, by the names in `KEYS`
    folds : (repeats, patients) number of the fold that the patient was set aside with
    """

    out_of_fold: Mapping[str, NDArray[np.float64]]
    folds: NDArray[np.int64]

    def pooled(self, key: str) -> NDArray[np.float64]:
        """(patients,) mean over the repeats."""
        return self.out_of_fold[key].mean(0)


def cross_validate(
    data: FeatureTable,
    *,
    components: int | None = None,
    repeats: int = REPEATS,
    folds: int = FOLDS,
    seed: int = 0,
    jobs: int = -1,
) -> CrossValidation:
    """Repeated stratified cross-validation of `fit_heads`.

    Parameters
    ----------
    components : as `fit_heads`
    jobs : processes; -1: one for each core

    Raises
    ------
    InputError : fewer patients of a stratum than `folds`, or than `LEAST_PATIENTS`
    """
    counts = np.bincount(data.strata, minlength=3)
    if counts.min() < (least := max(folds, LEAST_PATIENTS)):
        raise InputError(
            f"expected at least {least} patients without COVID-19, with it, and with a severe outcome, as {folds} "
            f"folds need; found {', '.join(map(str, counts))}. Add patients, or lower the number of folds."
        )
    splitter = RepeatedStratifiedKFold(n_splits=folds, n_repeats=repeats, random_state=seed)
    splits = list(splitter.split(data.strata, data.strata))
    predicted = Parallel(n_jobs=jobs)(
        delayed(fit_and_predict)(data, fitted, held_out, components, seed) for fitted, held_out in splits
    )
    shape = (repeats, len(data.patients))
    out_of_fold, numbers = {key: np.empty(shape) for key in KEYS}, np.empty(shape, int)
    for i, ((_, held_out), probabilities) in enumerate(zip(splits, predicted, strict=True)):
        numbers[i // folds, held_out] = i % folds
        for key in KEYS:
            out_of_fold[key][i // folds, held_out] = probabilities[key]
    return CrossValidation(out_of_fold, numbers)


def fit_and_predict(
    data: FeatureTable, fitted: NDArray, held_out: NDArray, components: int | None, seed: int
) -> dict[str, NDArray[np.float64]]:
    """Probabilities of the patients set aside, by heads fitted on the others."""
    heads = Heads(fit_heads(data.of(fitted), components=components, seed=seed))
    return predict(heads, data.of(held_out))


def predict(heads: Heads, data: FeatureTable) -> dict[str, NDArray[np.float64]]:
    """(patients,) probabilities by the names in `KEYS`."""
    rows = [
        heads.probabilities({view: data.features[view][i] for view in VIEWS}, data.age_years[i], data.sex[i])
        for i in range(len(data.patients))
    ]
    return {key: np.array([row[key] for row in rows]) for key in KEYS}


@threadpool_limits.wrap(limits=1)  # products this small take ten times as long with more threads
def fit_heads(data: FeatureTable, *, components: int | None = None, seed: int = 0) -> dict[str, NDArray]:
    """Fit the logistic regressions, each on the patients of whom its outcome is asked, as in the challenge.

    Parameters
    ----------
    components : principal components of the features that are kept; None: all features

    Returns
    -------
    the arrays of `balaitous.severity.heads.Heads`
    """
    arrays: dict[str, NDArray] = {}
    for outcome in OUTCOMES:
        known = data.of(data.among(outcome))
        truth = known.outcomes[outcome]
        out_of_fold = {}
        for view in VIEWS:
            head = fit_head(known.inputs(view, outcome), truth, components, seed)
            arrays[f"coef_{view}_{outcome}"], arrays[f"intercept_{view}_{outcome}"] = head.coef, head.intercept
            out_of_fold[view] = head.out_of_fold
        full = best_weight(out_of_fold["full"], out_of_fold["lung"], truth)
        arrays[f"alpha_full_{outcome}"], arrays[f"alpha_lung_{outcome}"] = np.array(full), np.array(1 - full)
    return arrays


@dataclass(frozen=True)
class FittedHead:
    """One logistic regression, for features as they are.

    Attributes
    ----------
    coef : (width,)
    intercept : ()
    strength : inverse regularisation, one of `STRENGTHS`
    out_of_fold : (patients,) probabilities of the patients it was fitted on, each from a fit without that patient
    """

    coef: NDArray[np.float64]
    intercept: NDArray[np.float64]
    strength: float
    out_of_fold: NDArray[np.float64]


def fit_head(inputs: NDArray, truth: NDArray[np.bool_], components: int | None = None, seed: int = 0) -> FittedHead:
    """Logistic regression with the regularisation that predicts best in `INNER_FOLDS` folds of these patients.

    Parameters
    ----------
    inputs : (patients, width)
    truth : (patients,), with at least two patients of each class
    """
    folds = StratifiedKFold(min(INNER_FOLDS, *np.bincount(truth)), shuffle=True, random_state=seed)
    paths = [
        (held_out, regularisation_path(inputs[fitted], truth[fitted], STRENGTHS, components))
        for fitted, held_out in folds.split(inputs, truth)
    ]
    losses: list[float] = []
    best = np.empty(0)
    for _ in STRENGTHS:
        out_of_fold = np.empty(len(truth))
        for held_out, path in paths:
            coef, intercept = next(path)
            out_of_fold[held_out] = expit(inputs[held_out] @ coef + intercept)
        losses.append(log_loss(truth, out_of_fold))
        if losses[-1] == min(losses):
            best = out_of_fold
        elif len(losses) - 1 - np.argmin(losses) == PATIENCE:
            break  # the loss has one valley, and weak regularisation takes most of the time
    chosen = int(np.argmin(losses))
    *_, (coef, intercept) = regularisation_path(inputs, truth, STRENGTHS[: chosen + 1], components)
    return FittedHead(coef, np.array(intercept), float(STRENGTHS[chosen]), best)


def regularisation_path(
    inputs: NDArray, truth: NDArray[np.bool_], strengths: NDArray, components: int | None
) -> Iterator[tuple[NDArray[np.float64], float]]:
    """Coefficients (width,) and intercept for each strength in turn, each fit starting where the last one ended.

    Inputs are standardised for the fit (and projected on principal components, if asked for); both are folded into the
    coefficients afterwards.
    """
    scaler = StandardScaler().fit(inputs.astype(np.float64))
    standardised = scaler.transform(inputs).astype(np.float32)  # twice as fast as in double precision
    axes = None
    if components is not None and components < min(standardised.shape):
        axes = PCA(components, svd_solver="covariance_eigh").fit(standardised).components_
        standardised = standardised @ axes.T
    model = LogisticRegression(max_iter=2000, warm_start=True)
    for strength in strengths:
        model.set_params(C=strength).fit(standardised, truth)
        coef = model.coef_[0].astype(np.float64)
        coef = (coef if axes is None else coef @ axes) / scaler.scale_
        yield coef, float(model.intercept_[0] - coef @ scaler.mean_)


def best_weight(full: NDArray, lung: NDArray, truth: NDArray[np.bool_]) -> float:
    """The weight of the full view in the mean of both, out of `VIEW_WEIGHTS`; of equally good ones that nearest 1/2."""
    mean = {weight: weight * full + (1 - weight) * lung for weight in VIEW_WEIGHTS}
    return float(min(mean, key=lambda weight: (round(log_loss(truth, mean[weight]), 9), abs(weight - 0.5))))
