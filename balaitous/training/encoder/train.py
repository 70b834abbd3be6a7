"""Training of an encoder without labels, from slices and a recipe to its weights: steps, checkpoints, curves."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import safetensors.torch
import torch
from accelerate import Accelerator
from accelerate.utils import GradientAccumulationPlugin, set_seed
from matplotlib.figure import Figure
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from balaitous.errors import InputError
from balaitous.evaluation.figures import ENDINGS, save
from balaitous.files import write_whole
from balaitous.networks.runtime import TorchNetwork
from balaitous.severity.features import encoder_input
from balaitous.training.encoder.ibot import ClassToken, Ibot
from balaitous.training.encoder.probe import ProbeCase, ProbeScores, probe
from balaitous.training.encoder.recipe import Recipe, Schedule
from balaitous.training.encoder.slices import Slices
from balaitous.training.encoder.views import Views
from balaitous.training.resume import Curve, Resumable

log = logging.getLogger(__name__)

CURVES_FILE = "curves.csv"
PROBE_FILE = "probe.csv"
FIGURE_STEM = "curves"
ENCODER_FILE = "encoder.safetensors"
CURVES = ("step", "epoch", "class_loss", "patch_loss", "learning_rate", "teacher_momentum")
PROBES = ("step", "epoch", *ProbeScores.__dataclass_fields__)


@dataclass(frozen=True)
class Probe:
    """Cases whose class is known, and their slices, a file a case."""

    slices: Slices
    cases: Sequence[ProbeCase]


class Order(Sampler[int]):
    """All slices in an order drawn from the seed and the epoch, from the `begin`-th on."""

    def __init__(self, count: int, seed: int) -> None:
        self.count, self.seed, self.epoch, self.begin = count, seed, 0, 0

    def __len__(self) -> int:
        return self.count - self.begin

    def __iter__(self) -> Iterator[int]:
        order = np.random.default_rng((self.seed, self.epoch)).permutation(self.count)
        return iter(order[self.begin :].tolist())


def train_encoder(
    slices: Slices,
    vit: torch.nn.Module,
    recipe: Recipe,
    out: Path,
    *,
    start: str,
    probed: Probe | None = None,
    workers: int = 0,
    cpu: bool = False,
) -> Path:
    """Train an encoder on slices; a run that was interrupted goes on from its last checkpoint.

    On one device the result depends on the slices, the recipe and the weights alone, interrupted or not. Several
    processes, started by ``accelerate launch``, share every step.

    Parameters
    ----------
    vit : with the weights to start from
    out : for the checkpoint, ``curves.csv`` (a line a step), ``probe.csv``, figures of both, and
        ``encoder.safetensors`` (the teacher's weights)
    start : what the weights are, for the record
    probed : what the encoder is tried on as it learns
    workers : processes that draw views
    cpu : leave a GPU alone

    Returns
    -------
    the file of the weights, for `weights pack`

    Raises
    ------
    InputError : fewer slices than a step takes
    ValueError, WeightsError : as `Resumable.load`, of what `out` holds
    """
    accelerator = Accelerator(
        mixed_precision={"fp32": "no"}.get(recipe.precision, recipe.precision),
        cpu=cpu,
        # a step never spans two epochs
        gradient_accumulation_plugin=GradientAccumulationPlugin(recipe.accumulate, sync_with_dataloader=False),
    )
    set_seed(recipe.seed)
    order, views = Order(len(slices), recipe.seed), Views(slices, recipe.views, recipe.seed)
    a_step = recipe.batch * recipe.accumulate * accelerator.num_processes
    if len(slices) < a_step:
        raise InputError(f"expected at least {a_step} slices, as many as a step takes, found {len(slices)}.")
    schedule = Schedule(recipe, len(slices) // a_step)
    ibot = Ibot(vit, recipe.ibot)
    optimizer = torch.optim.AdamW(groups(ibot.student), lr=0.0)
    loader = DataLoader(views, recipe.batch, sampler=order, drop_last=True, num_workers=workers)
    network, optimizer, loader = accelerator.prepare(ibot, optimizer, loader)
    made_by = {"recipe": asdict(recipe), "slices": slices.identity, "start": start, "slices a step": a_step}
    written = (ENCODER_FILE, CURVES_FILE, PROBE_FILE, *(FIGURE_STEM + ending for ending in ENDINGS))
    training = Resumable(out, made_by, written)
    step = 0
    if stored := training.load():
        ibot.load_state_dict(stored["network"])
        optimizer.load_state_dict(stored["optimizer"])
        if accelerator.scaler and stored["scaler"]:
            accelerator.scaler.load_state_dict(stored["scaler"])
        step = stored["step"]
        log.info("going on from step %d of %d", step, schedule.steps)
    lead = accelerator.is_main_process
    accelerator.wait_for_everyone()  # all have read the settings before one writes them
    if lead:
        training.begin()
        curves, probes = Curve(out / CURVES_FILE, CURVES, step), Curve(out / PROBE_FILE, PROBES, step)
        if probed and not step:
            probes.add({**try_on(ibot, probed, accelerator.device), "step": 0, "epoch": 0.0})
    while step < schedule.steps:
        views.epoch = order.epoch = step // schedule.steps_an_epoch
        order.begin = step % schedule.steps_an_epoch * a_step
        for _, (large, small) in zip(range((len(order) // a_step) * recipe.accumulate), loader, strict=False):
            with accelerator.accumulate(network):
                set_seed(recipe.seed + 1_000_003 * (step + 1), device_specific=True)  # of the masks, resumed or not
                now = schedule.at(step)
                for group in optimizer.param_groups:
                    group["lr"] = now["learning_rate"]
                    group["weight_decay"] = now["weight_decay"] if group["decays"] else 0.0
                images = [[encoder_input(each) for each in batch.unbind(1)] for batch in (large, small)]
                class_loss, patch_loss = network(*images, now["teacher_temperature"])
                accelerator.backward(class_loss + patch_loss)
                if accelerator.sync_gradients:
                    accelerator.clip_grad_norm_(network.parameters(), recipe.clip)
                    if now["epoch"] < recipe.frozen_epochs:
                        ibot.freeze_last_layers()
                optimizer.step()
                optimizer.zero_grad()
            if not accelerator.sync_gradients:
                continue
            ibot.update_teacher(now["teacher_momentum"])
            step += 1
            if lead:
                losses = {"class_loss": class_loss.item(), "patch_loss": patch_loss.item()}
                curves.add({**now, **losses, "step": step})
                epoch, left = divmod(step, schedule.steps_an_epoch)
                if not left and (epoch % recipe.probe_epochs == 0 or step == schedule.steps):
                    if probed:
                        scores = try_on(ibot, probed, accelerator.device)
                        probes.add({**scores, "step": step, "epoch": float(epoch)})
                    draw(out)
                if training.is_due() or step == schedule.steps:
                    scaler = accelerator.scaler.state_dict() if accelerator.scaler else None
                    state = {"network": ibot.state_dict(), "optimizer": optimizer.state_dict(), "scaler": scaler}
                    training.save({**state, "step": step})
                    log.info("step %d of %d: losses %.3f, %.3f", step, schedule.steps, *losses.values())
    accelerator.wait_for_everyone()
    if lead:
        write_whole(out / ENCODER_FILE, safetensors.torch.save(ibot.encoder_state()))
    return out / ENCODER_FILE


@torch.no_grad()
def try_on(ibot: Ibot, probed: Probe, device: torch.device) -> Mapping[str, float]:
    """Scores of the teacher as it is now."""
    encoder = TorchNetwork(ClassToken(ibot.teacher.encoder).eval(), device, torch.float32)
    scores = asdict(probe(encoder, probed.slices, probed.cases))
    ibot.teacher.train()
    log.info("probe: %s", ", ".join(f"{name.replace('_', ' ')} {value:.3f}" for name, value in scores.items()))
    return scores


def draw(out: Path) -> None:
    """Figures of the curves so far."""
    losses, probes = pd.read_csv(out / CURVES_FILE), pd.read_csv(out / PROBE_FILE)
    panels = 2 if len(probes) else 1
    figure = Figure(figsize=(4.6 * panels, 3.6), layout="constrained")
    axes = figure.subplots(1, panels, squeeze=False)[0]
    for name in ("class_loss", "patch_loss"):
        axes[0].plot(losses.epoch, losses[name], linewidth=1.0, label=name.replace("_", " "))
    axes[0].set(xlabel="epoch", ylabel="loss")
    axes[0].legend(frameon=False)
    if len(probes):
        for name in ProbeScores.__dataclass_fields__:
            axes[1].plot(probes.epoch, probes[name], marker="o", ms=3, linewidth=1.2, label=name.replace("_", " "))
        axes[1].set(xlabel="epoch", ylabel="of the probe's test split")
        axes[1].legend(frameon=False)
    save(figure, out / FIGURE_STEM)


def groups(student: torch.nn.Module) -> list[dict[str, Any]]:
    """Parameters with weight decay, and those without: biases and norms."""
    learned = [each for each in student.parameters() if each.requires_grad]
    matrices: list[Tensor] = [each for each in learned if each.ndim >= 2]
    return [
        {"params": matrices, "decays": True},
        {"params": [each for each in learned if each.ndim < 2], "decays": False},
    ]
