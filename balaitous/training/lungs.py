"""Training of the lung U-Net: labelled volumes in, weights that label lungs also where they are full of disease out.

The network sees axial slices as the method makes them (body box, 256×256), augmented, of volumes from
`training/lung_cases.py`: as they are, and with synthetic disease in the lungs while the labels stay. That is what
teaches it that consolidation is lung (Hofmanninger et al. 2020, doi:10.1186/s41747-020-00173-2: lung segmentation is a
question of data diversity, not of methodology). Cross-entropy and Dice, AdamW, cosine schedule, moving average of the
weights. Every step draws from its own seed, so that an interrupted run that is resumed ends with the same weights as
one that was not.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor

from balaitous.ct.lungs import AIR_HU, LEFT, RIGHT, UNET_GRID, WINDOW_HU, body_box, segment_lungs
from balaitous.networks.runtime import Chunker, TorchNetwork
from balaitous.networks.unet import UNet
from balaitous.severity.features import label_crops
from balaitous.training.lung_cases import IGNORE, LungCase, with_disease

log = logging.getLogger(__name__)

WARMUP_STEPS = 40
EMA_DECAY = 0.99
COARSE_SHARE = 0.6  # of the steps run at half resolution, four times cheaper


# --- slices -----------------------------------------------------------------------------------------------------------


def draw_slice(case: LungCase, rng: np.random.Generator, grid: int) -> tuple[Tensor, Tensor]:
    """One augmented axial slice at the network's input.

    Returns
    -------
    image, labels
        (1, grid, grid) float32 in [0, 1]; (grid, grid) int64 of 0, 1, 2, 255
    """
    with_lung = np.flatnonzero(((case.labels == RIGHT) | (case.labels == LEFT)).any(axis=(1, 2)))
    low, high = with_lung[0], with_lung[-1]
    where = rng.random()
    if where < 0.2:  # the ends are few and hard
        k = min(max(int(rng.choice([low, high]) + rng.integers(-4, 5)), 0), len(case.hu) - 1)
    else:  # neck and belly hold air that is no lung
        k = int(rng.integers(len(case.hu)) if where < 0.4 else rng.integers(low, high + 1))
    hu, labels = case.hu[k].astype(np.float32), case.labels[k]

    if rng.random() < 0.12:
        hu, labels = narrow_view(hu, labels, rng)
    rows, columns = body_box(hu) if rng.random() < 0.93 else (slice(0, hu.shape[0]), slice(0, hu.shape[1]))
    image, target = augment_geometry(
        torch.from_numpy(hu), torch.from_numpy(labels.astype(np.float32)), (rows, columns), rng, grid
    )
    return augment_intensity(image, rng), target


def narrow_view(
    hu: NDArray[np.float32], labels: NDArray[np.uint8], rng: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Cut a slice (Y, X) to a circular field of view that just holds the lungs, or just does not."""
    lung = np.argwhere((labels == RIGHT) | (labels == LEFT))
    if len(lung) == 0:
        return hu, labels
    low, high = lung.min(axis=0), lung.max(axis=0)
    y, x = (low + high) / 2 + rng.normal(0, 4, 2)
    radius = max(float(np.linalg.norm(high - low)) / 2 * rng.uniform(0.8, 1.1), 30)
    rows, columns = np.ogrid[: hu.shape[0], : hu.shape[1]]
    outside = np.square(rows - y) + np.square(columns - x) > radius**2
    return np.where(outside, np.float32(AIR_HU), hu), np.where(outside, 0, labels).astype(np.uint8)


def augment_geometry(
    hu: Tensor, labels: Tensor, box: tuple[slice, slice], rng: np.random.Generator, grid: int, strength: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Resize the box of a slice to the grid while it is jittered, rotated, scaled and, half the time, mirrored.

    A mirror image swaps right and left, so labels 1 and 2 change places. With `strength` 0 nothing is random and the
    result is the method's own resize.

    Parameters
    ----------
    hu, labels : (Y, X) float32
    box : rows, columns of the body

    Returns
    -------
    (1, grid, grid) HU; (grid, grid) int64 labels
    """
    rows, columns = box
    half_y, half_x = (rows.stop - 1 - rows.start) / 2, (columns.stop - 1 - columns.start) / 2
    angle = math.radians(8) * strength * rng.normal()
    scale_y, scale_x = 1 + strength * 0.08 * rng.normal(size=2)
    shift_y, shift_x = strength * 0.05 * rng.normal(size=2)
    mirrored = strength > 0 and rng.random() < 0.5
    if mirrored:
        scale_x = -scale_x
    # Output coordinates in [−1, 1] → voxel offsets from the box's centre; rotation is done in voxels, so it is rigid.
    steps = torch.linspace(-1, 1, grid)
    v, u = torch.meshgrid(steps, steps, indexing="ij")
    y, x = (v * scale_y + shift_y) * half_y, (u * scale_x + shift_x) * half_x
    cos, sin = math.cos(angle), math.sin(angle)
    y, x = cos * y - sin * x + rows.start + half_y, sin * y + cos * x + columns.start + half_x
    height, width = hu.shape
    at = torch.stack([2 * x / (width - 1) - 1, 2 * y / (height - 1) - 1], dim=-1)[None]
    # grid_sample reads 0 outside the image: shift HU so that 0 is air.
    image = F.grid_sample((hu - AIR_HU)[None, None], at, mode="bilinear", align_corners=True)[0] + AIR_HU
    target = F.grid_sample(labels[None, None], at, mode="nearest", align_corners=True)[0, 0].long()
    return image, swap_sides(target) if mirrored else target


def swap_sides(labels: Tensor) -> Tensor:
    """Labels of the mirror image: right becomes left; background and unknown stay."""
    return torch.where((labels == RIGHT) | (labels == LEFT), RIGHT + LEFT - labels, labels)


def augment_intensity(hu: Tensor, rng: np.random.Generator) -> Tensor:
    """Scanner variety: kernel (blur, or sharpening with its ringing), noise, calibration; HU in, [0, 1] out.

    Parameters
    ----------
    hu : (1, H, W)
    """
    image = hu[None]
    if rng.random() < 0.3:  # low resolution
        small = max(int(hu.shape[-1] * rng.uniform(0.35, 0.8)), 16)
        image = F.interpolate(image, size=(small, small), mode="bilinear", align_corners=True)
        image = F.interpolate(image, size=hu.shape[-2:], mode="bicubic", align_corners=True)
    if rng.random() < 0.35:  # positive: sharpen, with overshoot at borders; negative: blur
        smooth = F.avg_pool2d(image, 3, stride=1, padding=1, count_include_pad=False)
        image = image + rng.uniform(-0.8, 1.2) * (image - smooth)
    if rng.random() < 0.6:
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        noise = torch.randn(image.shape, generator=generator)
        if rng.random() < 0.5:
            noise = F.avg_pool2d(noise, 3, stride=1, padding=1) * 2.5
        image = image + rng.exponential(25) * noise
    if rng.random() < 0.5:
        image = image * rng.normal(1, 0.04) + rng.normal(0, 25)
    low, high = WINDOW_HU
    return (image[0].clamp(low, high) - low) / (high - low)


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
    width: int = 16,
    depth: int = 5,
    grid: int = UNET_GRID,
    variants: int = 4,
    seed: int = 0,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    checkpoint_every: int = 200,
) -> UNet:
    """Train a lung U-Net from scratch; with a checkpoint in `out`, go on from there.

    Parameters
    ----------
    cases : labelled volumes; half of every batch is drawn from the real ones, half from the phantoms
    out : folder for ``checkpoint.pt`` and, at the end, ``lung_unet.safetensors`` (float16)
    steps, batch, learning_rate : of the optimiser; the first 60 % of the steps run at half resolution
    width, depth : of the U-Net
    grid : pixels of the network's input along each side
    variants : versions with disease of every real case that are drawn beside the case as it is
    dtype : of the forward pass; bfloat16 halves the time where the processor has it
    seed : the same seed gives the same weights on the same machine
    checkpoint_every : steps between checkpoints

    Raises
    ------
    ValueError : no cases, or a case without lung
    """
    if not cases:
        raise ValueError("train_lungs needs at least one labelled volume. Got none.")
    for case in cases:
        if not np.isin(case.labels, (RIGHT, LEFT)).any():
            raise ValueError(f"every case must have lung labels 1 and 2. {case.name} has none.")
    out.mkdir(parents=True, exist_ok=True)
    pools = diseased_pools(cases, variants, seed)
    device = torch.device(device)

    torch.manual_seed(seed)
    network = UNet(classes=3, depth=depth, width=width).train()
    network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimiser = torch.optim.AdamW(network.parameters(), lr=learning_rate, weight_decay=1e-3)
    average = {key: tensor.detach().clone() for key, tensor in network.state_dict().items()}
    start = 0
    checkpoint = out / "checkpoint.pt"
    if checkpoint.exists():
        stored = torch.load(checkpoint, map_location=device, weights_only=True)
        network.load_state_dict(stored["network"])
        optimiser.load_state_dict(stored["optimiser"])
        average, start = stored["average"], stored["step"]
        log.info("resuming at step %d of %d", start, steps)

    for step in range(start, steps):
        rng = np.random.default_rng((seed, step))
        now = grid // 2 if step < COARSE_SHARE * steps else grid
        count = batch if now == grid else 2 * batch
        drawn = [draw_slice(pick(pools, rng), rng, now) for _ in range(count)]
        images = torch.stack([image for image, _ in drawn]).to(device, memory_format=torch.channels_last)
        labels = torch.stack([target for _, target in drawn]).to(device)
        for group in optimiser.param_groups:
            group["lr"] = learning_rate * learning_rate_factor(step, steps)
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            logits = network(images)
        loss = unet_loss(logits.float(), labels)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        update_average(average, network, min(EMA_DECAY, (1 + step) / (10 + step)))
        if (step + 1) % checkpoint_every == 0 or step + 1 == steps:
            log.info("step %d of %d: loss %.4f", step + 1, steps, loss.item())
            state = {"network": network.state_dict(), "optimiser": optimiser.state_dict(), "average": average}
            partial = checkpoint.with_suffix(".partial")
            torch.save({**state, "step": step + 1}, partial)
            partial.replace(checkpoint)

    network.load_state_dict(average)
    weights = {key: tensor.half() if tensor.is_floating_point() else tensor for key, tensor in average.items()}
    save_file({key: tensor.cpu().contiguous() for key, tensor in weights.items()}, out / "lung_unet.safetensors")
    return network.eval()


def diseased_pools(cases: Sequence[LungCase], variants: int, seed: int) -> list[list[LungCase]]:
    """The real cases and the phantoms, each with its versions with disease; two lists, or one if a kind is missing."""
    pools: list[list[LungCase]] = []
    for kind in (True, False):
        pool = [case for case in cases if case.real is kind]
        rng = np.random.default_rng((seed, kind, 1))
        # A phantom costs nothing: another anatomy is worth more than another version of this one.
        diseased = [with_disease(case, rng) for case in pool for _ in range(variants if kind else 1)]
        if pool:
            pools.append(pool + diseased)
    return pools


def pick(pools: Sequence[Sequence[LungCase]], rng: np.random.Generator) -> LungCase:
    pool = pools[int(rng.integers(len(pools)))]
    return pool[int(rng.integers(len(pool)))]


def learning_rate_factor(step: int, steps: int) -> float:
    """Linear warm-up, then half a cosine down to 1 %."""
    warm = min(1.0, (step + 1) / min(WARMUP_STEPS, 1 + steps // 10))
    return warm * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * step / steps)))


@torch.no_grad()
def update_average(average: dict[str, Tensor], network: UNet, decay: float) -> None:
    """Exponential moving average of weights and batch statistics (counters are copied)."""
    for key, tensor in network.state_dict().items():
        if tensor.is_floating_point():
            average[key].lerp_(tensor, 1 - decay)
        else:
            average[key].copy_(tensor)


# --- evaluation -------------------------------------------------------------------------------------------------------


def label_with(network: UNet, hu: NDArray) -> NDArray[np.uint8]:
    """Lung labels (Z, Y, X) of a volume by a network, as the method makes them."""
    unet = TorchNetwork(network, next(network.parameters()).device, torch.float32)
    return segment_lungs(hu, partial(label_crops, lung_unet=unet, chunker=Chunker(8)))


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
