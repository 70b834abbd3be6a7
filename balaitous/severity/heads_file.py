"""The numbers of the four logistic regressions: their names, their checks, and the files they come in."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError

from balaitous.errors import InputError, WeightsError, reason_of
from balaitous.files import check_regular
from balaitous.networks.layouts import ENCODER_WIDTHS
from balaitous.reading.csv_files import parse_csv
from balaitous.severity.heads import HEADS, OUTCOMES, VIEWS

LARGEST = 1e9  # of a fitted number; sums of products with larger ones may overflow
CLINICAL = tuple(dict.fromkeys(name for outcome in OUTCOMES.values() for name in outcome.clinical))


def encoder_widths(architectures: Mapping[str, Mapping[str, Any]]) -> dict[str, int]:
    """Values of an embedding of the encoders "full" and "lung", as far as their architecture is a known one."""
    names = {key: architectures[f"encoder_{key}"]["timm_name"] for key in ("full", "lung")}
    return {key: ENCODER_WIDTHS[name] for key, name in names.items() if name in ENCODER_WIDTHS}


def check_heads(arrays: Mapping[str, np.ndarray], widths: Mapping[str, int], *, source: str) -> dict[str, np.ndarray]:
    """The twelve arrays of the four logistic regressions, checked.

    Parameters
    ----------
    arrays : for each of `HEADS` ``coef_`` (features,), ``intercept_`` () and ``alpha_`` (), the weight of its
        probability in the mean of full and lung; float64. Heads see the clinical features after the embedding
    widths : values of an embedding of "full" and "lung", where known

    Raises
    ------
    WeightsError : an array is missing, unexpected, of another shape or type, or the averaging weights are not a mean's
    """
    expected = {f"{part}_{head}" for part in ("coef", "intercept", "alpha") for head in HEADS}
    if arrays.keys() != expected:
        wrong = sorted(arrays.keys() ^ expected)
        raise WeightsError(f"{source}: expected the arrays {', '.join(sorted(expected))}; wrong: {', '.join(wrong)}.")
    for name, array in arrays.items():
        sane = (np.abs(array) <= LARGEST).sum()  # NaN is not
        if array.dtype != np.float64 or sane != array.size:
            found = f"{array.dtype}, {sane} of {array.size} such numbers"
            raise WeightsError(f"{source}: {name} must be float64, finite and ≤ {LARGEST:g}. Got {found} instead.")
        if array.ndim != int(name.startswith("coef")):
            shape = "(features,)" if name.startswith("coef") else "()"
            raise WeightsError(f"{source}: {name} must have the shape {shape}. Got {array.shape} instead.")
    for view in VIEWS:
        lengths = {outcome: len(arrays[f"coef_{view}_{outcome}"]) for outcome in OUTCOMES}
        width = widths.get(view, lengths["covid"])
        wanted = {outcome: width + len(facts.clinical) for outcome, facts in OUTCOMES.items()}
        if lengths != wanted:
            told = " and ".join(f"{count} coefficients of {view}_{outcome}" for outcome, count in wanted.items())
            raise WeightsError(
                f"{source}: expected {told} (age and sex last), found {' and '.join(map(str, lengths.values()))}. Were "
                "these heads fitted on this encoder?"
            )
    for outcome in OUTCOMES:
        weights = [float(arrays[f"alpha_{view}_{outcome}"]) for view in VIEWS]
        if min(weights) < 0 or abs(sum(weights) - 1) > 1e-6:
            raise WeightsError(f"{source}: averaging weights of {outcome} must be ≥ 0 and sum to 1. Got {weights}.")
    return dict(arrays)


def read_heads(path: str | Path) -> dict[str, np.ndarray]:
    """Arrays of the four logistic regressions, as `check_heads` wants them, from a .npz, .safetensors or .csv file.

    .npz and .safetensors hold the arrays by name. A .csv has a column for each of `HEADS` and the rows ``feature_0`` …,
    ``age``, ``sex`` (empty for the heads of COVID), ``intercept``, ``alpha``; lines that start with # are comments.

    Raises
    ------
    WeightsError : missing, unreadable or in another layout
    """
    path = Path(path)
    try:
        check_regular(path)
        if path.suffix == ".csv":
            arrays = _heads_from_csv(path.read_text(encoding="utf-8"))
        elif path.suffix == ".safetensors":
            arrays = safetensors.numpy.load_file(path)
        else:
            with np.load(path, allow_pickle=False) as archive:
                arrays = dict(archive)
        arrays = as_float64(arrays)
    except (
        OSError,
        SafetensorError,
        ValueError,
        EOFError,
        KeyError,
        TypeError,
        zipfile.BadZipFile,
        InputError,
    ) as error:
        raise WeightsError(
            f"{path}: expected heads as .npz, .csv or .safetensors, found: {reason_of(error)[:200].rstrip('.')}."
        ) from None
    return check_heads(arrays, {}, source=str(path))


def untrained_heads(widths: Mapping[str, int]) -> dict[str, np.ndarray]:
    """Heads that say 0.5 of everything, for encoders of these widths (by view)."""
    arrays: dict[str, np.ndarray] = {}
    for head in HEADS:
        view, _, outcome = head.partition("_")
        arrays[f"coef_{head}"] = np.zeros(widths[view] + len(OUTCOMES[outcome].clinical))
        arrays[f"intercept_{head}"], arrays[f"alpha_{head}"] = np.array(0.0), np.array(0.5)
    return arrays


def heads_csv(arrays: Mapping[str, np.ndarray]) -> str:
    """The text that `read_heads` reads back bit for bit."""
    columns = {}
    for head in HEADS:
        coefficients = arrays[f"coef_{head}"].tolist()
        clinical = OUTCOMES[head.partition("_")[2]].clinical
        width = len(coefficients) - len(clinical)
        columns[head] = {f"feature_{index}": value for index, value in enumerate(coefficients[:width])}
        columns[head] |= dict(zip(clinical, coefficients[width:], strict=True))
        columns[head] |= {term: float(arrays[f"{term}_{head}"]) for term in ("intercept", "alpha")}
    widest = max(columns.values(), key=len)  # a head of severity, so that its terms are in the order of the rows
    lines = [[term, *[repr(columns[head][term]) if term in columns[head] else "" for head in HEADS]] for term in widest]
    return "\n".join(",".join(line) for line in [["term", *HEADS], *lines]) + "\n"


def _heads_from_csv(text: str) -> dict[str, np.ndarray]:
    lines = ["" if line.startswith("#") else line for line in text.splitlines()]
    rows = parse_csv("\n".join(lines).encode(), "the table", ("term", *HEADS)).rows
    features = [f"feature_{index}" for index in range(len(rows) - len(CLINICAL) - 2)]
    if [row["term"] for row in rows] != [*features, *CLINICAL, "intercept", "alpha"]:
        raise ValueError("rows must be feature_0 …, age, sex, intercept, alpha")
    arrays = {}
    for head in HEADS:
        *coefficients, intercept, alpha = [row[head] for row in rows]
        arrays[f"coef_{head}"] = np.array([float(value) for value in coefficients if value])
        arrays[f"intercept_{head}"] = np.array(float(intercept))
        arrays[f"alpha_{head}"] = np.array(float(alpha))
    return arrays


def as_float64(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """In the shapes of `check_heads`: scikit-learn keeps coefficients as (1, features) and the intercept as (1,)."""
    flat = {name: np.asarray(array, dtype=np.float64).reshape(-1) for name, array in arrays.items()}
    return {name: a if name.startswith("coef") or len(a) != 1 else a.reshape(()) for name, a in flat.items()}
