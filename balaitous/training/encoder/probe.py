"""Probe a frozen encoder with nearest neighbours and a linear classifier on its class tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit
from sklearn.metrics import accuracy_score, roc_auc_score
from sklearn.neighbors import KNeighborsClassifier
from threadpoolctl import threadpool_limits

from balaitous.errors import InputError
from balaitous.evaluation.tasks import read_csv
from balaitous.networks.runtime import Chunker, Network, default_chunk
from balaitous.severity.features import scan_features
from balaitous.training.encoder.slices import Slices
from balaitous.training.heads.fit import fit_head

NEIGHBOURS = 20  # as DINO reports it
COLUMNS = ("path", "label", "split")
SPLITS = ("train", "test")


@dataclass(frozen=True)
class ProbeCase:
    """A scan or 2-D image whose class is known.

    Attributes
    ----------
    label : 0 or 1
    split : "train" or "test"; by patient and source, as neighbours abound
    """

    path: Path
    label: int
    split: str


@dataclass(frozen=True)
class ProbeScores:
    """Accuracies on the test split."""

    knn_accuracy: float
    knn_auc: float
    linear_accuracy: float
    linear_auc: float


def read_probe(path: Path) -> list[ProbeCase]:
    """The cases of a CSV with columns path, label (0 or 1) and split (train or test); paths start at its folder.

    Raises
    ------
    InputError : another content, or a split with one class only
    """
    table = read_csv(path, COLUMNS)
    for number, row in enumerate(table.to_dict("records"), start=2):
        if row["label"] not in ("0", "1") or row["split"] not in SPLITS:
            raise InputError(
                f"{path}, line {number}: expected label 0 or 1 and split train or test, found {row['label']!r} and "
                f"{row['split']!r}."
            )
    for split in SPLITS:
        classes = table.label[table.split == split].value_counts()
        if len(classes) < 2 or classes.min() < 2:
            raise InputError(f"{path}: expected two or more cases of each class in the {split} split, found fewer.")
    return [
        ProbeCase(path.parent / each, int(label), split)
        for each, label, split in table[list(COLUMNS)].itertuples(index=False)
    ]


@threadpool_limits.wrap(limits=1, user_api="blas")
def probe(encoder: Network, slices: Slices, cases: Sequence[ProbeCase]) -> ProbeScores:
    """Train both classifiers on the training split and test them on the other.

    Parameters
    ----------
    encoder : class tokens (B, width) of images (B, 3, Y, X)
    slices : a file a case, in their order
    """
    features = embed(encoder, slices)
    truth, test = np.array([case.label for case in cases]), np.array([case.split == "test" for case in cases])
    neighbours = KNeighborsClassifier(min(NEIGHBOURS, int((~test).sum())), weights="distance", metric="cosine")
    near = neighbours.fit(features[~test], truth[~test]).predict_proba(features[test])[:, 1]
    head = fit_head(features[~test], truth[~test].astype(bool))
    linear = expit(features[test] @ head.coef + head.intercept)
    return ProbeScores(
        knn_accuracy=float(accuracy_score(truth[test], near > 0.5)),
        knn_auc=float(roc_auc_score(truth[test], near)),
        linear_accuracy=float(accuracy_score(truth[test], linear > 0.5)),
        linear_auc=float(roc_auc_score(truth[test], linear)),
    )


def embed(encoder: Network, slices: Slices) -> NDArray[np.float64]:
    """(files, width): features of every file, as the method makes them of a scan."""
    chunker = Chunker(default_chunk("vit", encoder.device))
    return np.stack([scan_features(slices.of_file(number), encoder, chunker) for number in range(len(slices.files))])
