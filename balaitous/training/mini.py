"""The recipe of the bundle ``resources/mini``: small networks of the published design, for demonstration.

    python -m balaitous.training.mini --data DATA/ct --work WORK --out resources/mini

Four stages, each kept in WORK, so that a run that was interrupted goes on where it was: labelled volumes, the lung
U-Net, the two encoders (trained on a synthetic cohort), and the heads (fitted on a second cohort). Encoders and heads
are then tested on a third cohort, of lungs that neither has seen. On two cores it takes about two hours. Every draw is
seeded; sums in another order on another processor still change the last digits.
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from sklearn.linear_model import LogisticRegressionCV
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from balaitous.networks.runtime import Chunker, ready
from balaitous.networks.unet import UNet
from balaitous.networks.vit import ClassTokenEncoder
from balaitous.severity.features import scan_features
from balaitous.severity.heads import OUTCOMES, VIEWS, Heads, age_feature
from balaitous.training.encoder import seen, train_encoder
from balaitous.training.lung_cases import LungCase, load_cases, phantom_case, read_case, save_cases
from balaitous.training.lungs import evaluate_lungs, train_lungs
from balaitous.training.synthetic import SyntheticScan, make_cohort
from balaitous.weights.pack import unet_from, write_bundle

log = logging.getLogger(__name__)

# Slices whose pseudo-mask was looked at and found wrong; they are left out of the U-Net's loss.
UNSURE = {"lungdx_A0001_native": slice(41, 53)}
SCANS = {  # file → its lung mask; None: a classical pseudo-mask
    "lowres_id001.nii.gz": "lowres_id001_lungmask.nii.gz",
    "lowres_id002.nii.gz": "lowres_id002_lungmask.nii.gz",
    "lowres_id003.nii.gz": "lowres_id003_lungmask.nii.gz",
    "covid_P001_5mm.mha": None,
    "normal_001_5mm.mha": None,
    "lungdx_A0001_native.mha": None,
    "cmbcrc_MSB01068_5mm.mha": None,
}
UNET_HELD_OUT = ("lowres_id003",)  # and cap_001, which has no mask to compare with and is in no list at all
# Encoders and heads have never seen these lungs. Those of covid_P001 are in no cohort: their disease is real, and not
# known voxel by voxel.
HELD_OUT = ("cmbcrc_MSB01068_5mm", "lowres_id003")
DISEASED = ("covid_P001_5mm",)
TRAINING_PHANTOMS, HELD_OUT_PHANTOMS = range(1000, 1040), range(2000, 2012)  # seeds

UNET = {"steps": 1400, "batch": 8, "learning_rate": 2e-3, "variants": 4, "width": 16, "seed": 0}
TIMM_NAME = "vit_tiny_patch16_224"
BLOCKS = {"full": 4, "lung": 3}  # fewer for the lung, as published (24 and 16)
ENCODER = {"steps": 1000, "batch": 32, "seed": 1}
STRENGTHS = np.logspace(-4, 1, 11)  # inverse regularisation, chosen by cross-validation inside the training set
COHORT_SCANS = {"encoders": 400, "heads": 240, "test": 160}

INTENDED_USE = (
    "Demonstration only: trained on synthetic lesions; its probabilities mean nothing for a patient. "
    "Research use only, not for diagnosis."
)
LICENCE = (
    "research use only (trained on COVID-CT-MD samples and low-resolution CTs without a stated licence, "
    "and on CC BY 4.0 scans of TCIA)"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with the scans and masks of SCANS")
    parser.add_argument("--work", type=Path, required=True, help="folder for what the stages leave")
    parser.add_argument("--out", type=Path, required=True, help="the bundle's folder, new or empty")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    make_mini(options.data, options.work, options.out, options.device)


def make_mini(data: Path, work: Path, out: Path, device: str) -> Path:
    """Run the stages that are not done yet and write the bundle."""
    work.mkdir(parents=True, exist_ok=True)
    real = labelled_scans(data, work)
    lung_unet, lung_metrics = lung_network(real, work, device)

    hosts = [case for case in real if case.name not in DISEASED]
    training = [case for case in hosts if case.name not in HELD_OUT]
    held_out = [case for case in hosts if case.name in HELD_OUT]
    training_hosts = interleave(training, TRAINING_PHANTOMS)
    encoders = view_encoders(training_hosts, work, device)
    # Heads see features of scans that the encoders were not trained on, or they would trust them too much.
    fit = cohort_arrays(make_cohort(training_hosts, COHORT_SCANS["heads"], seed=2), encoders, device)
    heads = fit_heads(fit["features"], fit["covid"], fit["severe"], fit["age_years"], fit["sex"])
    test = make_cohort(interleave(held_out, HELD_OUT_PHANTOMS), COHORT_SCANS["test"], seed=3)
    groups = {
        "all": test,
        "real_lungs": [scan for scan in test if not scan.host.startswith("phantom")],
        "phantoms": [scan for scan in test if scan.host.startswith("phantom")],
    }
    aucs = {group: held_out_auc(Heads(heads), cohort_arrays(each, encoders, device)) for group, each in groups.items()}
    log.info("held-out AUC: %s", aucs)

    architecture = {"kind": "vit", "timm_name": TIMM_NAME}
    return write_bundle(
        out,
        name="mini",
        licence=LICENCE,
        intended_use=INTENDED_USE,
        demonstration=True,
        networks={
            "lung_unet": unet_from(lung_unet, source="lung U-Net"),
            **{
                f"encoder_{view}": (encoder.state_dict(), {**architecture, "blocks": BLOCKS[view]})
                for view, encoder in encoders.items()
            },
        },
        heads=heads,
        dtype="float16",
        training={
            "command": "python -m balaitous.training.mini --data DATA/ct --work WORK --out resources/mini",
            "scans": list(SCANS),
            "encoder_and_head_lungs": [case.name for case in training],
            "phantom_seeds": [TRAINING_PHANTOMS.start, TRAINING_PHANTOMS.stop],
            "lung_unet": UNET,
            "encoders": ENCODER,
            "cohort_scans": COHORT_SCANS,
            "card": "CARD.md",
        },
        metrics={"lung_dice": lung_metrics, "synthetic_auc": aucs},
    )


def labelled_scans(data: Path, work: Path) -> list[LungCase]:
    """The real scans at the method's spacing, with lung labels."""
    cache = work / "scans.npz"
    if not cache.exists():
        cases = []
        for file, mask in SCANS.items():
            name = file.partition(".")[0]
            cases.append(read_case(data / file, data / mask if mask else None, UNSURE.get(name)))
        save_cases(cache, cases)
    return load_cases(cache)


def lung_network(real: Sequence[LungCase], work: Path, device: str) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """The lung U-Net's weights, and its Dice on the real scans it has not seen."""
    file, metrics = work / "lungs" / "lung_unet.safetensors", work / "lungs" / "dice.json"
    if not file.exists():
        cases = [case for case in real if case.name not in UNET_HELD_OUT]
        cases += [phantom_case(seed) for seed in TRAINING_PHANTOMS]
        train_lungs(cases, file.parent, dtype=torch.bfloat16, device=device, **UNET)  # type: ignore[arg-type]
    state, architecture = unet_from(load_file(file), source=str(file))
    if not metrics.exists():
        network = UNet(**{key: value for key, value in architecture.items() if key != "kind"})
        network.load_state_dict(state)
        held_out = [case for case in real if case.name in UNET_HELD_OUT]
        metrics.write_text(json.dumps(evaluate_lungs(network.float().eval(), held_out)))
    return state, json.loads(metrics.read_text())


def view_encoders(hosts: Sequence[LungCase], work: Path, device: str) -> dict[str, ClassTokenEncoder]:
    """The encoder of each view, its weights rounded as they will be stored: the heads are fitted on what will run."""
    encoders = {}
    cohort: list[SyntheticScan] = []
    for view, blocks in BLOCKS.items():
        torch.manual_seed(ENCODER["seed"])
        encoder = ClassTokenEncoder(TIMM_NAME, blocks)
        file = work / f"encoder_{view}.safetensors"
        if file.exists():
            encoder.load_state_dict(load_file(file))
        else:
            cohort = cohort or make_cohort(hosts, COHORT_SCANS["encoders"], seed=1)
            checkpoint = work / f"encoder_{view}.pt"
            train_encoder(encoder, cohort, view=view, checkpoint=checkpoint, device=device, **ENCODER)
            save_file(encoder.state_dict(), file)
        encoders[view] = encoder.eval().half().float()
    return encoders


def interleave(real: Sequence[LungCase], phantom_seeds: Iterable[int]) -> list[LungCase]:
    """Hosts of which every second one is real, the few real ones again and again."""
    return [host for i, seed in enumerate(phantom_seeds) for host in (real[i % len(real)], phantom_case(seed))]


def cohort_arrays(
    scans: Sequence[SyntheticScan], encoders: Mapping[str, ClassTokenEncoder], device: str
) -> dict[str, Any]:
    """Features of each view (scans, width), outcomes, age and sex (scans,) of a cohort."""
    features = {}
    for view, encoder in encoders.items():
        network = ready(encoder, torch.device(device))
        chunker = Chunker(256 if device.startswith("cuda") else 8)
        features[view] = np.stack([scan_features(seen(scan, view), network, chunker) for scan in scans])
        encoder.cpu()
    facts = {
        name: np.array([getattr(scan, name) for scan in scans]) for name in ("covid", "severe", "age_years", "sex")
    }
    return {"features": features, **facts}


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
    the arrays of `balaitous.severity.heads.Heads`; both views weigh the same in the mean, as they did when the bundle
    that is shipped was made (`balaitous.training.heads` chooses the weights)
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


def held_out_auc(heads: Heads, cohort: Mapping[str, Any]) -> dict[str, float]:
    """AUC of every probability: COVID-19 on all scans, severity on those with COVID-19; and how many there were."""
    rows = [
        heads.probabilities({view: cohort["features"][view][i] for view in VIEWS}, age, sex)
        for i, (age, sex) in enumerate(zip(cohort["age_years"], cohort["sex"], strict=True))
    ]
    covid, severe = cohort["covid"], cohort["severe"]
    aucs: dict[str, float] = {"n": len(rows), "n_covid": int(covid.sum()), "n_severe": int(severe.sum())}
    for key in rows[0]:
        scores: NDArray = np.array([row[key] for row in rows])
        known = np.ones(len(rows), bool) if key.endswith("covid") else covid
        aucs[key] = round(float(roc_auc_score((covid if key.endswith("covid") else severe)[known], scores[known])), 4)
    return aucs


if __name__ == "__main__":
    main()
