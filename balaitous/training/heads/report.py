"""What a training of heads leaves: the cross-validated table, figures, predictions, and a new bundle with its card."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

import balaitous
from balaitous.cohort.table import csv_line
from balaitous.evaluation.figures import ENDINGS, files_of, format_estimate, roc_figure
from balaitous.evaluation.metrics import Evaluated, measure
from balaitous.evaluation.report import estimate
from balaitous.evaluation.tasks import PATIENT, Task
from balaitous.files import refuse_others, write_together
from balaitous.severity.heads import OUTCOMES
from balaitous.severity.pack import states_of, write_parts
from balaitous.training.heads.fit import KEYS, CrossValidation, FeatureTable
from balaitous.weights.bundle import CARD_FILE, Bundle
from balaitous.weights.pack import Facts, free_folder

PREDICTIONS_FILE = "out_of_fold.csv"
TABLE_FILE = "table.md"
METRICS_FILE = "metrics.json"
BUNDLE_FOLDER = "bundle"
ROWS = {"full": "full_{}", "lung": "lung_{}", "both": "{}"}  # of the table: name → key
TITLES = {"severe": "severity", "covid": "COVID-19"}
# Cross-validation of the published model on the 2,000 public patients (docs of the method): mean and SD over 32 folds.
PUBLISHED = {
    "full": {"severe": (79.01, 2.63), "covid": (80.65, 2.16)},
    "lung": {"severe": (79.00, 3.30), "covid": (82.63, 1.99)},
    "both": {"severe": (80.36, 2.80), "covid": (82.98, 2.01)},
}


@dataclass(frozen=True)
class Spread:
    """ROC-AUC over folds."""

    mean: float
    deviation: float
    folds: int


def task_of(data: FeatureTable, outcome: str, probability: NDArray) -> Task:
    """COVID-19 among all patients, a severe outcome among those with COVID-19."""
    if outcome == "covid":
        return Task("COVID-19", data.covid, probability)
    return Task("Severe outcome", data.severe[data.covid], probability[data.covid])


def fold_areas(data: FeatureTable, found: CrossValidation) -> dict[str, Spread]:
    """Mean and standard deviation over all folds of all repeats, by the names in `KEYS`."""
    spreads = {}
    for key in KEYS:
        areas = []
        for probabilities, numbers in zip(found.out_of_fold[key], found.folds, strict=True):
            for fold in np.unique(numbers):
                task = task_of(data.of(numbers == fold), key.rpartition("_")[2], probabilities[numbers == fold])
                areas.append(roc_auc_score(task.outcome, task.probability))
        spreads[key] = Spread(float(np.mean(areas)), float(np.std(areas, ddof=1)), len(areas))
    return spreads


def table(spreads: Mapping[str, Spread]) -> str:
    """The table of the published model, in Markdown: ROC-AUC in %, mean ± standard deviation over folds."""
    lines = ["| ROC-AUC, % | severity | COVID-19 | published: severity | COVID-19 |", "|---|---|---|---|---|"]
    for row, key in ROWS.items():
        ours = [spreads[key.format(outcome)] for outcome in TITLES]
        cells = [f"{100 * each.mean:.2f} ± {100 * each.deviation:.2f}" for each in ours]
        cells += ["{:.2f} ± {:.2f}".format(*PUBLISHED[row][outcome]) for outcome in TITLES]
        lines.append(f"| {row} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def write_training(
    out: Path,
    base: Bundle,
    data: FeatureTable,
    found: CrossValidation,
    arrays: Mapping[str, NDArray],
    facts: Mapping[str, Any],
    *,
    name: str,
    licence: str,
) -> str:
    """Write predictions, table, figures, metrics and the new bundle to a folder.

    Parameters
    ----------
    base : whose networks made the features; the new bundle has the same
    arrays : heads that were fitted on all patients
    facts : how, for the bundle's record; anything JSON can hold

    Returns
    -------
    the table, with the pooled areas below it

    Raises
    ------
    ValueError : the bundle's folder is there already
    WeightsError : the bundle cannot be written
    """
    spreads = fold_areas(data, found)
    tasks = {outcome: task_of(data, outcome, found.pooled(outcome)) for outcome in OUTCOMES}
    pooled = Evaluated("out of fold", tasks, {outcome: measure(task) for outcome, task in tasks.items()})
    text = table(spreads) + "\n"
    metrics: dict[str, Any] = {
        "patients": len(data.patients),
        "covid": int(data.covid.sum()),
        "severe": int((data.covid & data.severe).sum()),
        "folds": {key: vars(spread) for key, spread in spreads.items()},
        "pooled": {},
    }
    for outcome, each in pooled.metrics.items():
        assert each is not None
        metrics["pooled"][outcome] = {"delong": estimate(each.auc.delong), "bootstrap": estimate(each.auc.bootstrap)}
        text += (
            f"{TITLES[outcome]}, out-of-fold predictions pooled ({each.patients} patients, {each.positives} with it): "
            f"AUC {format_estimate(each.auc.bootstrap)}, bootstrap; {format_estimate(each.auc.delong)}, DeLong.\n"
        )
    contents = {
        out / PREDICTIONS_FILE: predictions(data, found),
        **files_of(roc_figure([pooled]), out / "roc"),
        out / TABLE_FILE: text.encode(),
        out / METRICS_FILE: (json.dumps(metrics, indent=1) + "\n").encode(),
    }
    write_together(contents)
    training = {
        "heads": dict(facts),
        "networks_of": {"name": base.name, "sha256": base.sha256, "training": dict(base.training)},
        "card": CARD_FILE,
    }
    write_parts(
        out / BUNDLE_FOLDER,
        Facts(name, licence, base.intended_use, base.demonstration, training, metrics),
        states_of(base),
        arrays,
        card=card(name, licence, base, facts, metrics, text, arrays),
    )
    return text


def refuse_other_files(out: Path) -> None:
    """Make sure that `write_training` overwrites nothing there but what an earlier training of heads left.

    Raises
    ------
    ValueError : it would, or there is a bundle
    """
    free_folder(out / BUNDLE_FOLDER)
    written = [PREDICTIONS_FILE, TABLE_FILE, *("roc" + ending for ending in ENDINGS)]
    refuse_others(out, written, METRICS_FILE, ("patients", "covid", "severe", "folds", "pooled"))


def predictions(data: FeatureTable, found: CrossValidation) -> bytes:
    """Out-of-fold predictions, a line a patient, as `balaitous evaluate` reads them: means over the repeats."""
    columns = {f"probability_{key}": found.pooled(key) for key in (*OUTCOMES, *KEYS[:-2])}
    rows = zip(data.patients, *(column.tolist() for column in columns.values()), strict=True)
    return csv_line([PATIENT, *columns]) + b"".join(map(csv_line, rows))


def card(
    name: str,
    licence: str,
    base: Bundle,
    facts: Mapping[str, Any],
    metrics: Mapping[str, Any],
    results: str,
    arrays: Mapping[str, NDArray],
) -> str:
    """The model card of a bundle with new heads."""
    weights = {outcome: float(arrays[f"alpha_full_{outcome}"]) for outcome in OUTCOMES}
    settings = "\n".join(f"* {key}: {value}" for key, value in facts.items())
    return f"""# Model card: bundle `{name}`

**Research use only. Not a medical device; not for diagnosis, treatment or triage.** {base.intended_use}

Licence: {licence}. Made with balaitous {balaitous.__version__}.

## What is inside

Lung U-Net and both encoders of the bundle `{base.name}` (`{base.sha256}`, licence: {base.licence}), and four logistic
regressions on their features. In the mean of both views the full one weighs {weights["covid"]:.2f} for COVID-19 and
{weights["severe"]:.2f} for severity.

## What the heads were fitted on

{metrics["patients"]} patients, {metrics["covid"]} with COVID-19, {metrics["severe"]} of them with a severe outcome.

{settings}

## What it was tested on

The same patients, each predicted by heads that were fitted without that patient (cross-validation); regularisation and
weights were chosen without them too. The encoders may have seen them: the bundle's own card says.

{results}
Patients from elsewhere were not looked at. Expect lower figures there.
"""
