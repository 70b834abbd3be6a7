"""Training of a classifier: labelled pictures in, the weights that do best on validation out.

First the linear layer is fitted to the pooled features of the network it starts from; then the late stages learn with
it, in small steps, and a moving average of the weights is kept. Where early stages keep their weights, what they make
of the pictures is made once. Several runs from several seeds end close to each other, and their weights are averaged.
Every step draws from its own seed, so that an interrupted training ends with the same weights as one that was not.

References
----------
Kumar et al. 2022, arXiv:2202.10054 (first the linear layer, then all); Wortsman et al. 2022, arXiv:2203.05482 (averaged
weights of several fine-tunings).
"""

from __future__ import annotations

import logging
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from balaitous.evaluation.figures import save
from balaitous.networks.classifier import Classifier
from balaitous.training.classifier.data import Pictures
from balaitous.training.classifier.inputs import CHUNK, Inputs, draw_batch, inputs_of, plain
from balaitous.training.classifier.losses import gated_loss
from balaitous.training.classifier.recipe import Recipe
from balaitous.training.classifier.stages import Late, pooled
from balaitous.training.classifier.start import Start
from balaitous.training.resume import Curve, Resumable, update_average

log = logging.getLogger(__name__)

CURVE_FILE, VALIDATION_FILE, FIGURE_STEM = "curve.csv", "validation.csv", "curves"
CURVE = ("step", "run", "epoch", "loss", "learning_rate")
VALIDATION = ("step", "run", "epoch", "loss", "first_loss", "first_auc")
STEPS_OF_HEAD = 300  # of L-BFGS, at most


def train_classifier(
    training: Pictures,
    validation: Pictures,
    recipe: Recipe,
    start: Start,
    out: Path,
    *,
    device: str | torch.device = "cpu",
) -> Classifier:
    """Train a classifier; a training that was interrupted goes on from what it left in `out`.

    Parameters
    ----------
    training, validation : labelled pictures at the recipe's size
    out : folder for the loss of every step ``curve.csv``, the validations ``validation.csv``, figures of both, settings
        ``training.json``, and what a resumed training needs: ``checkpoint.pt`` and ``stages/``
    start : its network is trained, and returned

    Returns
    -------
    the network in evaluation mode, with the averaged weights of the runs

    Raises
    ------
    ValueError : a recipe that does not fit the network, `out` holds a training with other settings or pictures, or the
        loss became infinite
    WeightsError : the checkpoint in `out` is damaged
    """
    device = torch.device(device)
    network = start.network.to(device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    made_by = {
        "recipe": asdict(recipe),
        "training": {"pictures": len(training), "digest": training.digest},
        "validation": {"pictures": len(validation), "digest": validation.digest},
        "start": start.source,
    }
    resumable = Resumable(out, made_by)
    stored = resumable.load(device)
    resumable.begin()
    late = Late(network, recipe.frozen_blocks)
    inputs = inputs_of(training, recipe, start, out, device)
    seen = inputs_of(validation, plain(recipe), start, out, device)(np.arange(len(validation)), 0, 0)
    begun = {key: tensor.detach().clone() for key, tensor in network.state_dict().items()}
    labels = torch.from_numpy(training.labels).to(device)
    steps_a_run = recipe.epochs * math.ceil(len(training) / recipe.batch)
    state: dict[str, Any] = stored or {"step": 0, "run": 0, "sum": None}
    curve = Curve(out / CURVE_FILE, CURVE, state["step"])
    validations = Curve(out / VALIDATION_FILE, VALIDATION, state["step"])
    if recipe.head_decay and "head" not in state:
        state["head"] = fitted_head(late, inputs, labels, recipe)
    if "head" in state:
        begun |= {f"head.{key}": tensor for key, tensor in state["head"].items()}
    network.load_state_dict(begun)
    if not state["step"]:
        validations.add({"step": 0, "run": 0, "epoch": 0, **validated(late, seen, validation, recipe)})

    while state["run"] < recipe.runs and steps_a_run:
        one_run(
            late, begun, inputs, labels, training, (seen, validation), recipe, state, resumable, (curve, validations)
        )
        total = {key: tensor.double() for key, tensor in state.pop("best").items()}
        state["sum"] = total if state["sum"] is None else {key: state["sum"][key] + total[key] for key in total}
        state["run"] += 1
        resumable.save(state)
    if state["sum"] is not None:
        network.load_state_dict({key: (state["sum"][key] / recipe.runs).to(begun[key].dtype) for key in begun})
        last = {"step": state["step"] + 1, "run": "mean", "epoch": recipe.epochs}
        Curve(out / VALIDATION_FILE, VALIDATION, state["step"]).add(
            {**last, **validated(late, seen, validation, recipe)}
        )
    draw(out)
    return network.eval()


def one_run(
    late: Late,
    begun: dict[str, Tensor],
    inputs: Inputs,
    labels: Tensor,
    training: Pictures,
    validation: tuple[Tensor, Pictures],
    recipe: Recipe,
    state: dict[str, Any],
    resumable: Resumable,
    curves: tuple[Curve, Curve],
) -> None:
    """One fine-tuning from the fitted layer; its best weights are ``state["best"]`` afterwards."""
    network, run = late.network, state["run"]
    steps_an_epoch = math.ceil(len(training) / recipe.batch)
    steps = recipe.epochs * steps_an_epoch
    network.load_state_dict(state.get("network") or begun)
    network.train(not recipe.frozen_norms).requires_grad_(False)
    groups = [
        {"params": [each for part in late.learning() for each in part.parameters()], "highest": recipe.learning_rate},
        {"params": list(network.head.parameters()), "highest": recipe.head_learning_rate},
    ]
    learned = [each.requires_grad_(True) for group in groups for each in group["params"]]  # type: ignore[attr-defined]
    optimiser = torch.optim.AdamW(groups, lr=0.0, weight_decay=recipe.weight_decay)
    average = {key: tensor.detach().clone() for key, tensor in network.state_dict().items()}
    if "optimiser" in state:
        optimiser.load_state_dict(state["optimiser"])
        average = state["average"]
        log.info("going on after step %d of %d", state["step"], recipe.runs * steps)
    state.setdefault("lowest", math.inf)
    for step in range(state["step"] - run * steps, steps):
        torch.manual_seed(recipe.seed + 1_000_003 * (run * steps + step + 1))  # of what is dropped out
        chosen = draw_batch(training, recipe, run, step)
        features = late.features(inputs(chosen, run, step))
        if recipe.dropout:
            features = F.dropout(features, recipe.dropout)
        loss = gated_loss(network.head(features), labels[chosen], recipe.output_weights, recipe.gate)
        if not math.isfinite(loss.item()):
            raise ValueError(
                f"learning_rate must be lower: the loss is {loss.item()} at step {step + 1} of run {run + 1}."
            )
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learned, recipe.clip)
        share = recipe.rate_share(step, steps)
        for group in optimiser.param_groups:
            group["lr"] = group["highest"] * share
        optimiser.step()
        update_average(average, network, min(recipe.average, (1 + step) / (10 + step)))
        state["step"] = run * steps + step + 1
        epoch = (step + 1) / steps_an_epoch
        where = {"step": state["step"], "run": run + 1, "epoch": round(epoch, 4)}
        rate = f"{recipe.learning_rate * share:.6g}"
        curves[0].add({**where, "loss": f"{loss.item():.6g}", "learning_rate": rate})
        if (step + 1) % (steps_an_epoch * recipe.validate_epochs) == 0 or step + 1 == steps:
            weights = {key: tensor.detach().clone() for key, tensor in network.state_dict().items()}
            network.load_state_dict(average)
            measured = validated(late, *validation, recipe)
            network.load_state_dict(weights)
            network.train(not recipe.frozen_norms)
            curves[1].add({**where, **measured})
            log.info("run %d, epoch %g: loss %.4f; validation %s", run + 1, epoch, loss.item(), measured)
            if float(measured["first_loss"]) < state["lowest"]:
                state["lowest"] = float(measured["first_loss"])
                state["best"] = {key: tensor.clone() for key, tensor in average.items()}
        if resumable.is_due():
            kept = {"network": network.state_dict(), "optimiser": optimiser.state_dict(), "average": average}
            resumable.save(state | kept)
    for key in ("network", "optimiser", "average", "lowest"):
        state.pop(key, None)


# --- steps ------------------------------------------------------------------------------------------------------------


def fitted_head(late: Late, inputs: Inputs, labels: Tensor, recipe: Recipe) -> dict[str, Tensor]:
    """Weight and bias of the linear layer that fit the pooled features of the network as it is.

    The loss is convex in them, so they depend on no seed. Features are standardised while they are fitted, which makes
    `head_decay` mean the same for every backbone.
    """
    everything = np.arange(len(labels))
    features = torch.cat([late_features(late, inputs, everything, recipe.runs, turn) for turn in range(2)]).double()
    truth = torch.cat([labels, labels]).double()
    mean, spread = features.mean(dim=0), features.std(dim=0) + 0.1  # a feature that hardly varies says nothing
    features = (features - mean) / spread
    weight = torch.zeros(labels.shape[1], features.shape[1], dtype=torch.double, requires_grad=True)
    bias = torch.zeros(labels.shape[1], dtype=torch.double, requires_grad=True)
    optimiser = torch.optim.LBFGS([weight, bias], max_iter=STEPS_OF_HEAD, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimiser.zero_grad()
        loss = gated_loss(features @ weight.T + bias, truth, recipe.output_weights, recipe.gate)
        loss = loss + recipe.head_decay * weight.square().sum()
        loss.backward()
        return loss

    optimiser.step(closure)
    plain_weight = weight.detach() / spread
    return {"weight": plain_weight.float(), "bias": (bias.detach() - plain_weight @ mean).float()}


@torch.no_grad()
def late_features(late: Late, inputs: Inputs, chosen: NDArray, runs: int, turn: int) -> Tensor:
    """Pooled features of pictures, some at a time, as steps of a run after the last one would draw them."""
    parts = [chosen[begin : begin + CHUNK] for begin in range(0, len(chosen), CHUNK)]
    return torch.cat([late.features(inputs(part, runs, turn * len(parts) + i)) for i, part in enumerate(parts)])


@torch.no_grad()
def validated(late: Late, seen: Tensor, validation: Pictures, recipe: Recipe) -> dict[str, str]:
    """Loss of all outputs, and loss and ROC-AUC of the first, on the validation pictures."""
    from sklearn.metrics import roc_auc_score

    late.network.eval()
    logits = late.network.head(pooled(late, seen, CHUNK)).float()
    labels = torch.from_numpy(validation.labels).to(logits.device)
    known = ~labels[:, 0].isnan()
    first, truth = logits[known, 0], labels[known, 0]
    both = len(truth.unique()) == 2
    return {
        "loss": f"{gated_loss(logits, labels, recipe.output_weights, recipe.gate).item():.6g}",
        "first_loss": f"{F.binary_cross_entropy_with_logits(first, truth).item():.6g}",
        "first_auc": f"{roc_auc_score(truth.cpu(), first.cpu()):.6g}" if both else "",
    }


def draw(out: Path) -> None:
    """Figures of the curves."""
    losses, validations = pd.read_csv(out / CURVE_FILE), pd.read_csv(out / VALIDATION_FILE)
    figure = Figure(figsize=(9.2, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    for run, lines in losses.groupby("run"):
        left.plot(lines.epoch, lines.loss, linewidth=0.8, label=f"run {run}")
    left.set(xlabel="epoch", ylabel="loss of a step")
    for run, lines in validations[validations.run.astype(str).str.isdigit()].groupby("run"):
        right.plot(lines.epoch, lines.first_auc, marker="o", ms=3, linewidth=1.2, label=f"run {run}")
    right.set(xlabel="epoch", ylabel="ROC-AUC on validation")
    for axes in (left, right):
        if axes.get_legend_handles_labels()[0]:
            axes.legend(frameon=False)
    save(figure, out / FIGURE_STEM)
