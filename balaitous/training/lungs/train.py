"""Training of the lung U-Net: labelled volumes in, weights that label lungs also where they are full of disease out.

The network sees axial slices as the method makes them (body box, 256×256), augmented (`augment.py`), of
volumes from `cases.py`: as they are, and with synthetic disease in the lungs while the labels stay. That
is what teaches it that consolidation is lung (Hofmanninger et al. 2020, doi:10.1186/s41747-020-00173-2: lung
segmentation is a question of data diversity, not of methodology). Cross-entropy and Dice, AdamW, cosine schedule,
moving average of the weights. Every step draws from its own seed, so that an interrupted run that is resumed ends with
the same weights as one that was not.
"""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import safetensors.torch
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from balaitous.ct.lungs import LEFT, RIGHT, UNET_GRID
from balaitous.errors import WeightsError
from balaitous.files import write_whole
from balaitous.networks.layouts import unet_from
from balaitous.networks.loading import build_network, load_strictly
from balaitous.networks.lungs import segment_lungs
from balaitous.networks.runtime import Chunker, TorchNetwork
from balaitous.networks.unet import UNet
from balaitous.severity.parts import open_parts
from balaitous.text import as_cell, printable
from balaitous.training.lungs.augment import draw_slice
from balaitous.training.lungs.cases import IGNORE, LungCase, add_disease, cached_case, case_digest, digest
from balaitous.training.resume import Curve, Resumable, cosine, update_average
from balaitous.weights.pack import read_state
from balaitous.weights.search import find_bundle

log = logging.getLogger(__name__)

WEIGHTS_FILE, CURVE_FILE, DICE_FILE = "lung_unet.safetensors", "loss.csv", "dice.csv"
CHECKPOINT_STEPS = 50  # between two checkpoints
WIDTH = 16  # channels of the first level of a new U-Net; R231 has 64
WARMUP_STEPS = 40
EMA_DECAY = 0.99
COARSE_SHARE = 0.6  # of the steps run at half resolution, four times cheaper


def unet_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy plus one minus the soft Dice of each lung over the batch; unknown pixels count nowhere.

    Parameters
    ----------
    logits : (B, 3, H, W)
    labels : (B, H, W) of 0, 1, 2, 255

    References
    ----------
    Milletari et al. 2016, arXiv:1606.04797 (Dice loss).
    """
    known = labels != IGNORE
    entropy = F.cross_entropy(logits, labels, ignore_index=IGNORE, reduction="sum") / known.sum().clamp(min=1)
    probability = logits.softmax(dim=1) * known[:, None]
    truth = F.one_hot(torch.where(known, labels, 0), 3).movedim(-1, 1) * known[:, None]
    overlap = (probability * truth).sum(dim=(0, 2, 3))
    total = probability.sum(dim=(0, 2, 3)) + truth.sum(dim=(0, 2, 3))
    dice = (2 * overlap + 100) / (total + 100)  # 100 pixels keep a batch with hardly any lung from dominating
    return entropy + (1 - dice[1:]).mean()


# --- training ---------------------------------------------------------------------------------------------------------


def train_lungs(
    cases: Sequence[LungCase],
    out: Path,
    *,
    steps: int = 2000,
    batch: int = 12,
    learning_rate: float = 3e-3,
    width: int | None = None,
    depth: int = 5,
    grid: int = UNET_GRID,
    variants: int = 4,
    seed: int = 0,
    start: UNet | None = None,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
) -> UNet:
    """Train a lung U-Net; a training that was interrupted goes on from what it left in `out`.

    Parameters
    ----------
    cases : labelled volumes, each of its own name, in any order; half of every batch is drawn from the real ones, half
        from the phantoms
    out : folder for the weights ``lung_unet.safetensors``, the loss of every step ``loss.csv``, settings and cases
        ``training.json``, and what a resumed training needs: ``checkpoint.pt`` and ``diseased/``
    steps, batch, learning_rate : of the optimiser; the first 60 % of the steps run at half resolution
    width, depth : of a new U-Net (width 16 if None)
    grid : pixels of the network's input along each side
    variants : versions with disease of every real case that are drawn beside the case as it is
    seed : the same seed gives the same weights on the same machine
    start : a trained U-Net to go on from, instead of a new one; it is left as it is
    dtype : of the forward pass; bfloat16 halves the time where the processor has it

    Returns
    -------
    the moving average of the weights, as it is stored

    Raises
    ------
    ValueError : no cases, two of one name or one without lung; `width` for a U-Net that has one; `out` holds a training
        with other settings or cases; or the loss became infinite
    WeightsError : the checkpoint in `out` is damaged
    """
    check_cases(cases)
    device = torch.device(device)
    cases = sorted(cases, key=lambda case: case.name)
    names = [case.name for case in cases]
    digests = [case_digest(case) for case in cases]
    network = new_network(width, depth, seed) if start is None else started(start, width)
    made_by = {
        "steps": steps,
        "batch": batch,
        "learning_rate": learning_rate,
        "width": network.last.in_channels,
        "depth": len(network.down_path),
        "grid": grid,
        "variants": variants,
        "seed": seed,
        "start": None if start is None else state_digest(start),
        "dtype": str(dtype),
        "cases": dict(zip(names, digests, strict=True)),
    }
    training = Resumable(out, made_by, (WEIGHTS_FILE, CURVE_FILE, DICE_FILE))
    stored = training.load(device)
    training.begin()
    pools = diseased_pools(cases, digests, variants, seed, out / "diseased")

    network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimiser = torch.optim.AdamW(network.parameters(), lr=learning_rate, weight_decay=1e-3)
    average = {key: tensor.detach().clone() for key, tensor in network.state_dict().items()}
    done = 0
    if stored:
        network.load_state_dict(stored["network"])
        optimiser.load_state_dict(stored["optimiser"])
        average, done = stored["average"], stored["step"]
        log.info("going on after step %d of %d", done, steps)

    curve = Curve(out / CURVE_FILE, ("step", "loss", "learning_rate"), done)
    for step in range(done, steps):
        rate = learning_rate * learning_rate_factor(step, steps)
        images, labels = draw_batch(pools, step, steps, batch=batch, grid=grid, seed=seed)
        loss = take_step(network, optimiser, rate, images.to(device), labels.to(device), dtype)
        if not math.isfinite(loss):
            raise ValueError(f"learning_rate must be lower than {rate:.3g}: the loss is {loss} at step {step + 1}.")
        update_average(average, network, min(EMA_DECAY, (1 + step) / (10 + step)))
        curve.add({"step": step + 1, "loss": f"{loss:.6g}", "learning_rate": f"{rate:.6g}"})
        if (step + 1) % CHECKPOINT_STEPS == 0 or step + 1 == steps:
            log.info("step %d of %d: loss %.4f", step + 1, steps, loss)
            state = {"network": network.state_dict(), "optimiser": optimiser.state_dict(), "average": average}
            training.save({**state, "step": step + 1})

    network.load_state_dict(average)
    weights = {key: tensor.cpu().contiguous() for key, tensor in average.items()}
    write_whole(out / WEIGHTS_FILE, safetensors.torch.save(weights))
    return network.eval()


def check_cases(cases: Sequence[LungCase]) -> None:
    """Raise ValueError for cases that cannot be trained on."""
    if not cases:
        raise ValueError("train_lungs needs at least one labelled volume. Got none.")
    names = set()
    for case in cases:
        if not np.isin(case.labels, (RIGHT, LEFT)).any():
            raise ValueError(f"every case must have lung labels 1 and 2. {case.name} has none.")
        if case.name in names:
            raise ValueError(f"every case must have a name of its own. Got {case.name} twice.")
        names.add(case.name)


def new_network(width: int | None, depth: int, seed: int) -> UNet:
    """A U-Net with random weights, ready to train."""
    torch.manual_seed(seed)
    return UNet(classes=3, depth=depth, width=WIDTH if width is None else width).train()


def started(start: UNet, width: int | None) -> UNet:
    """A copy of a trained U-Net, ready to train on."""
    if width is not None:
        raise ValueError(f"width is that of the U-Net to start from. Got {width} as well: leave it out.")
    return copy.deepcopy(start).float().requires_grad_(True).train()


def draw_batch(
    pools: Sequence[Sequence[LungCase]], step: int, steps: int, *, batch: int, grid: int, seed: int
) -> tuple[Tensor, Tensor]:
    """Images (B, 1, grid, grid) and labels (B, grid, grid) of a step; early ones are twice as many at half the grid."""
    rng = np.random.default_rng((seed, step))
    if step < COARSE_SHARE * steps:
        batch, grid = 2 * batch, grid // 2
    drawn = [draw_slice(pick(pools, rng), rng, grid) for _ in range(batch)]
    return torch.stack([image for image, _ in drawn]), torch.stack([target for _, target in drawn])


def take_step(
    network: UNet, optimiser: torch.optim.Optimizer, rate: float, images: Tensor, labels: Tensor, dtype: torch.dtype
) -> float:
    """Improve the network on a batch; returns its loss before that."""
    with torch.autocast(images.device.type, dtype, enabled=dtype != torch.float32):
        logits = network(images.contiguous(memory_format=torch.channels_last))
    loss = unet_loss(logits.float(), labels)
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
    for group in optimiser.param_groups:
        group["lr"] = rate
    optimiser.step()
    return loss.item()


def diseased_pools(
    cases: Sequence[LungCase], digests: Sequence[str], variants: int, seed: int, folder: Path
) -> list[list[LungCase]]:
    """The real cases and the phantoms, each with its versions with disease; two lists, or one if a kind is missing.

    The versions are kept in the folder: they take a second each to make, and would not fit into memory.
    """
    pools: list[list[LungCase]] = []
    for kind in (True, False):
        pool = []
        for case, known_by in zip(cases, digests, strict=True):
            if case.real is kind:
                pool.append(case)
                # A phantom costs nothing: another anatomy is worth more than another version of this one.
                for i in range(variants if kind else 1):
                    rng = np.random.default_rng((seed, int(known_by, 16), i))
                    pool.append(
                        cached_case(folder / f"{known_by}-{seed}-{i}.safetensors", partial(add_disease, case, rng))
                    )
        if pool:
            pools.append(pool)
    return pools


def pick(pools: Sequence[Sequence[LungCase]], rng: np.random.Generator) -> LungCase:
    """A case of a pool; each pool is as likely as another, however many cases it has."""
    pool = pools[int(rng.integers(len(pools)))]
    return pool[int(rng.integers(len(pool)))]


def learning_rate_factor(step: int, steps: int) -> float:
    """Linear warm-up, then half a cosine down to 1 %."""
    warm = min(1.0, (step + 1) / min(WARMUP_STEPS, 1 + steps // 10))
    return warm * cosine(1.0, 0.01, step / steps)


def state_digest(network: UNet) -> str:
    """What a network is known by: the start of the SHA-256 of its tensors, in hexadecimal."""
    return digest(tensor.cpu().contiguous().numpy().data for tensor in network.state_dict().values())


def read_unet(weights: str) -> UNet:
    """A trained lung U-Net: of a bundle (its name or folder), or of a .pth or .safetensors file in the layout of R231.

    Raises
    ------
    WeightsError : missing, damaged, or not a U-Net for two lungs
    """
    if Path(weights).suffix in (".pth", ".safetensors"):
        state, architecture = unet_from(read_state(weights), source=weights)
    else:
        bundle = open_parts(find_bundle(weights))
        state, architecture = bundle.load_state("lung_unet"), dict(bundle.networks["lung_unet"].architecture)
    if architecture["classes"] != 3:
        raise WeightsError(
            f"{weights}: expected a U-Net with 3 classes (background, right, left), found {architecture['classes']}."
        )
    network = build_network(architecture)
    assert isinstance(network, UNet)
    load_strictly(network, state, source=weights)
    return network


# --- evaluation -------------------------------------------------------------------------------------------------------


def label_with(network: UNet, hu: NDArray) -> NDArray[np.uint8]:
    """Lung labels (Z, Y, X) of a volume by a network, as the method makes them."""
    unet = TorchNetwork(network, next(network.parameters()).device, torch.float32)
    return segment_lungs(hu, unet, Chunker(8))


def dice(found: NDArray, truth: NDArray) -> dict[str, float]:
    """Dice of both lungs together and of each, over the voxels that are not unknown; NaN where both are empty.

    ``Dice = 2 |A ∩ B| / (|A| + |B|)``
    """
    known = truth != IGNORE

    def overlap(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
        total = int(a.sum() + b.sum())
        return 2 * int((a & b).sum()) / total if total else math.nan

    found, truth = found[known], truth[known]
    return {
        "lungs": overlap(found > 0, truth > 0),
        "right": overlap(found == RIGHT, truth == RIGHT),
        "left": overlap(found == LEFT, truth == LEFT),
    }


def evaluate_lungs(network: UNet, cases: Sequence[LungCase]) -> dict[str, dict[str, float]]:
    """Dice per case, by the case's name."""
    return {case.name: dice(label_with(network, case.hu), case.labels) for case in cases}


def write_dice(network: UNet, cases: Sequence[LungCase], out: Path) -> str:
    """Measure Dice of every case and write ``dice.csv``: ``PatientID,labels,lungs,right,left``.

    Returns
    -------
    the table for people, with means
    """
    kinds = [{"PatientID": case.name, "labels": "pseudo-mask" if case.pseudo else "mask"} for case in cases]
    scores = evaluate_lungs(network, cases)
    table = pd.DataFrame([kind | scores[kind["PatientID"]] for kind in kinds])
    cells = table.assign(PatientID=[as_cell(printable(name)) for name in table["PatientID"]])
    write_whole(out / DICE_FILE, cells.to_csv(index=False).encode())
    mean = {"PatientID": "mean", "labels": "", **table[["lungs", "right", "left"]].mean()}
    return pd.concat([table, pd.DataFrame([mean])]).to_string(index=False, float_format="%.4f")
