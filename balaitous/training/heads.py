"""Training of the heads: logistic regressions on the features of scans whose outcomes are known."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegressionCV
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from balaitous.severity.heads import OUTCOMES, VIEWS, age_feature

STRENGTHS = np.logspace(-4, 1, 11)  # inverse regularisation, chosen by cross-validation inside the training set


def fit_heads(
    features: Mapping[str, NDArray],
    covid: NDArray[np.bool_],
    severe: NDArray[np.bool_],
    age_years: NDArray,
    sex: NDArray,
    *,
    seed: int = 0,
) -> dict[str, NDArray[np.float64]]:
    """Fit the four logistic regressions; severity on scans with COVID-19 only, as in the challenge.

    Parameters
    ----------
    features : (scans, width) of each view, "full" and "lung"
    covid, severe : (scans,) outcomes
    age_years, sex : (scans,); sex 1 male, 0 female, 0.5 unknown

    Returns
    -------
    the arrays of `balaitous.severity.heads.Heads`; both views weigh the same in the mean
    """
    patient = np.column_stack([[age_feature(age) for age in age_years], sex])
    arrays: dict[str, NDArray[np.float64]] = {}
    for view in VIEWS:
        with_patient = np.hstack([features[view], patient])
        for outcome in OUTCOMES:
            if outcome == "covid":
                coef, intercept = fit_logistic(features[view], covid, seed)
            else:
                coef, intercept = fit_logistic(with_patient[covid], severe[covid], seed)
            arrays[f"coef_{view}_{outcome}"] = coef
            arrays[f"intercept_{view}_{outcome}"] = intercept
            arrays[f"alpha_{view}_{outcome}"] = np.array(1 / len(VIEWS))
    return arrays


def fit_logistic(inputs: NDArray, outcome: NDArray[np.bool_], seed: int) -> tuple[NDArray, NDArray]:
    """Coefficients (width,) and intercept () of a regularised logistic regression, for inputs as they are.

    Inputs are standardised for the fit; the scaling is folded into the coefficients afterwards.
    """
    folds = StratifiedKFold(5, shuffle=True, random_state=seed)
    model = make_pipeline(
        StandardScaler(),
        LogisticRegressionCV(
            Cs=STRENGTHS, cv=folds, scoring="neg_log_loss", max_iter=2000, l1_ratios=(0,), use_legacy_attributes=False
        ),
    ).fit(inputs, outcome)
    scaler, logistic = model[0], model[-1]
    coef = logistic.coef_[0] / scaler.scale_
    return coef, np.asarray(logistic.intercept_[0] - coef @ scaler.mean_)
