"""Training of the slices model, from tables of COVID-CT to a bundle."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import expit, log_expit

from balaitous.errors import InputError, first_few
from balaitous.evaluation.temperature import likeliest
from balaitous.files import write_whole
from balaitous.networks.classifier import Classifier, standardised
from balaitous.networks.runtime import choose_device
from balaitous.reading.pictures import Picture
from balaitous.slices.lesions import COVID, OUTPUTS, finding_of, group_of, output_of, tells_of_absence
from balaitous.slices.parts import KIND, MODEL, NETWORK, InputRecord
from balaitous.slices.preparation import of_picture
from balaitous.training.classifier.data import (
    LabelledPicture,
    Pictures,
    TableFormat,
    csv_of,
    folds_of,
    load_pictures,
    of_split,
    read_tables,
    without_relatives,
)
from balaitous.training.classifier.inputs import CHUNK
from balaitous.training.classifier.recipe import Recipe, read_recipe
from balaitous.training.classifier.start import Start, start_from
from balaitous.training.classifier.train import train_classifier
from balaitous.weights.calibration import Temperature, to_dict
from balaitous.weights.card import RESEARCH_USE
from balaitous.weights.pack import Facts, NetworkWeights, free_folder, write_bundle

log = logging.getLogger(__name__)

TABLES = TableFormat(tuple(OUTPUTS), output_of, finding_of, tells_of_absence, group_of)
SPLITS = {
    "": "train",
    "train": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "held_out": "test",
}
FOLDS = 5
BUNDLE_FOLDER, OUT_OF_FOLD_FILE = "bundle", "out_of_fold.csv"


@dataclass(frozen=True)
class SlicesTraining:
    """How the slices model is trained.

    Attributes
    ----------
    recipe : a name in ``recipes/``, or a TOML file
    start : as `start_from`
    apart : tables of pictures; what shares a group with one of them or looks like it is not trained on
    folds : "patient" or "source": also train without each of them, and write predictions of what was left out
    name, licence : of the bundle
    """

    recipe: str = "mini-slices"
    start: str = "imagenet"
    apart: tuple[Path, ...] = ()
    folds: str | None = None
    device: str = "auto"
    name: str | None = None
    licence: str = "not stated"


def train_slices(
    data: Sequence[Path], validation: Sequence[Path], out: Path, training: SlicesTraining
) -> tuple[Path, Path | None]:
    """Train the slices model; a training that was interrupted goes on where it was.

    Parameters
    ----------
    data : tables of pictures to train on, as `read_table` takes them; lines whose column ``split`` says ``val`` are for
        validation, ``test`` for neither
    validation : tables of pictures to choose the weights and the temperature on
    out : folder for the training, and the bundle in it

    Returns
    -------
    the bundle's folder, and the table of out-of-fold predictions, which is None without folds

    Raises
    ------
    ValueError : arguments that make no sense
    InputError, WeightsError : tables, pictures or weights that cannot be used
    """
    recipe = read_recipe(training.recipe)
    device = choose_device(training.device)
    listed = of_split(read_tables(data, TABLES), SPLITS) if data else {}
    to_train = listed.get("train", [])
    to_validate = listed.get("val", []) + (read_tables(validation, TABLES) if validation else [])
    check_apart(to_train, to_validate)
    if not to_train or not to_validate:
        raise InputError(
            f"expected pictures to train on and others to validate on, found {len(to_train)} and {len(to_validate)}. "
            "Name them in --data and --validation, or in the column split (train, val)."
        )
    pictures = load_pictures(to_train, recipe.size, grey_of, out / "training")
    held = load_pictures(to_validate, recipe.size, grey_of, out / "validation")
    left_out: list[str] = []
    if training.apart:
        others = load_pictures(read_tables(training.apart, TABLES), recipe.size, grey_of, out / "apart")
        pictures, left_out = without_relatives(pictures, others)
        log.info("%d pictures are not trained on, related to those to be kept apart: %s", len(left_out), left_out)
    start = start_from(training.start, recipe.timm_name, len(OUTPUTS), recipe.seed)
    network = train_classifier(pictures, held, recipe, start, out, device=device)
    logits = logits_of(network, held, start)
    temperature = fitted_temperature(logits[:, 0], held.labels[:, 0])
    table = None
    if training.folds:
        table = write_out_of_fold(pictures, held, recipe, training, out, device)
    facts = {
        "recipe": asdict(recipe),
        "start": start.source,
        "pictures": counts_of(pictures),
        "validation": counts_of(held),
        "left_out_as_related": len(left_out),
    }
    bundle = write_slices(network, start, recipe, out / BUNDLE_FOLDER, training, facts, temperature)
    return bundle, table


def grey_of(picture: Picture) -> NDArray[np.float32]:
    """What the model would see of a picture; its checks refuse what the model would refuse."""
    (grey,) = of_picture(picture, strict=False).slices
    return grey


def check_apart(training: Sequence[LabelledPicture], validation: Sequence[LabelledPicture]) -> None:
    """Raise InputError if a picture is both trained on and validated on."""
    both = {str(each.path) for each in training} & {str(each.path) for each in validation}
    if both:
        raise InputError(
            f"expected to validate on other pictures than those trained on, found {first_few(sorted(both))} in both. "
            "Remove them from one."
        )


def counts_of(pictures: Pictures) -> dict[str, Any]:
    """How many pictures there are, and how many have each finding, by source."""
    counted: dict[str, Any] = {}
    for source in sorted({each.source for each in pictures.listed}):
        labels = pictures.labels[[each.source == source for each in pictures.listed]]
        findings = {name: int((labels[:, k] == 1).sum()) for k, name in enumerate(OUTPUTS)}
        counted[source] = {"pictures": len(labels), "without_covid": int((labels[:, 0] == 0).sum()), **findings}
    return counted


@torch.no_grad()
def logits_of(network: Classifier, pictures: Pictures, start: Start) -> NDArray[np.float64]:
    """Logits (N, outputs) of pictures."""
    device = next(network.parameters()).device
    grey = torch.from_numpy(pictures.grey)
    parts = [grey[begin : begin + CHUNK].float() / 255 for begin in range(0, len(grey), CHUNK)]
    return (
        torch.cat([network(standardised(part, start.mean, start.std).to(device)) for part in parts])
        .double()
        .cpu()
        .numpy()
    )


def fitted_temperature(logits: NDArray[np.float64], labels: NDArray[np.float32]) -> Temperature | None:
    """What logits are divided by so that known labels are likeliest; None where the logits say nothing of them."""
    known = ~np.isnan(labels)
    signed = np.where(labels[known] == 1, 1.0, -1.0) * logits[known]
    found = likeliest(lambda temperature: float(-log_expit(signed / temperature).mean()))
    if found is None:
        log.warning(
            "probabilities of %s do not rise with the validation's labels: the bundle gets no temperature", COVID
        )
    return None if found is None else Temperature(found)


def write_out_of_fold(
    pictures: Pictures, validation: Pictures, recipe: Recipe, training: SlicesTraining, out: Path, device: torch.device
) -> Path:
    """Train without each group or source in turn, and write what the others say of it, in the form of `predict`."""
    assert training.folds
    rows = []
    for fold, held_out in enumerate(folds_of(pictures, training.folds, FOLDS)):
        used, tested = pictures.subset(np.flatnonzero(~held_out)), pictures.subset(np.flatnonzero(held_out))
        log.info("fold %d: %d pictures to train on, %d to predict", fold + 1, len(used), len(tested))
        start = start_from(training.start, recipe.timm_name, len(OUTPUTS), recipe.seed)
        network = train_classifier(used, validation, recipe, start, out / f"fold_{fold + 1}", device=device)
        for each, logits in zip(tested.listed, logits_of(network, tested, start), strict=True):
            probabilities = {
                f"probability_{name}": value for name, value in zip(OUTPUTS, expit(logits).tolist(), strict=True)
            }
            where = {"patient": each.group, "source": each.source, "fold": fold + 1}
            rows.append({"PatientID": each.path.stem, "path": str(each.path), **probabilities, "status": "ok", **where})
    write_whole(out / OUT_OF_FOLD_FILE, csv_of(rows))
    return out / OUT_OF_FOLD_FILE


def write_slices(
    network: Classifier,
    start: Start,
    recipe: Recipe,
    out: Path,
    training: SlicesTraining,
    facts: Mapping[str, Any],
    temperature: Temperature | None,
) -> Path:
    """Write the bundle; one that is there is replaced only if it is the same training's."""
    shutil.rmtree(out, ignore_errors=True)
    architecture = {"kind": KIND, "timm_name": recipe.timm_name, "outputs": len(OUTPUTS)}
    sees = InputRecord(recipe.size, start.mean, start.std)
    weights = NetworkWeights(network.state_dict(), architecture, sees.to_dict(), tuple(OUTPUTS))
    name = training.name or free_folder(out).parent.name
    return write_bundle(
        out,
        Facts(name, training.licence, RESEARCH_USE, demonstration=False, training=facts),
        model=MODEL,
        networks={NETWORK: weights},
        calibration={COVID: to_dict(temperature)} if temperature else None,
    )
