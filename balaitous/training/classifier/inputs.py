"""What a step of a classifier's training sees: which pictures, augmented how, and what early stages make of them."""

from __future__ import annotations

import hashlib
import io
import logging
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from balaitous.files import write_whole
from balaitous.networks.classifier import standardised
from balaitous.networks.runtime import TorchNetwork
from balaitous.training.classifier.augment import AugmentSettings, augment
from balaitous.training.classifier.data import Pictures
from balaitous.training.classifier.recipe import Recipe
from balaitous.training.classifier.stages import early_stages
from balaitous.training.classifier.start import Start

log = logging.getLogger(__name__)

KEPT_FOLDER = "stages"  # what the early stages made
CHUNK = 16  # pictures at a time where nothing learns

Inputs = Callable[[NDArray, int, int], Tensor]  # chosen pictures, run, step
Images = Callable[[NDArray, AugmentSettings | None, np.random.Generator], Tensor]


def draw_batch(training: Pictures, recipe: Recipe, run: int, step: int) -> NDArray[np.int64]:
    """Indices of the pictures of a step, drawn from the seed, the run and the step.

    Balanced, each source is as likely as another, and in it each class of the first output; else each epoch has every
    picture once, and the last step of it fills up.
    """
    rng = np.random.default_rng((recipe.seed, run, step))
    if recipe.balanced:
        return rng.choice(len(training), recipe.batch, p=shares(training))
    steps_an_epoch = math.ceil(len(training) / recipe.batch)
    epoch, place = divmod(step, steps_an_epoch)
    order = np.random.default_rng((recipe.seed, run, epoch, 3)).permutation(len(training))
    return np.resize(order, steps_an_epoch * recipe.batch)[place * recipe.batch : (place + 1) * recipe.batch]


def shares(training: Pictures) -> NDArray[np.float64]:
    """How likely each picture is drawn."""
    kinds = [(each.source, repr(each.labels[0])) for each in training.listed]
    sources = {source for source, _ in kinds}
    classes = {source: len({kind for kind in set(kinds) if kind[0] == source}) for source in sources}
    counts = pd.Series(kinds).value_counts()
    return np.array([1 / (len(sources) * classes[kind[0]] * counts[kind]) for kind in kinds])


def plain(recipe: Recipe) -> Recipe:
    """The recipe without augmentation, as pictures are validated."""
    return replace(recipe, versions=1, augment=AugmentSettings(flip=0))


def inputs_of(pictures: Pictures, recipe: Recipe, start: Start, out: Path, device: torch.device) -> Inputs:
    """What the late stages take of chosen pictures in a step of a run: images, or what the early stages made of them.

    Where stages are frozen, every picture is augmented in `versions` ways, of which each draw takes one. The first is
    the picture as it is, the second its mirror image where the recipe mirrors at all.
    """
    grey = torch.from_numpy(pictures.grey)

    def images(chosen: NDArray, how: AugmentSettings | None, rng: np.random.Generator) -> Tensor:
        drawn = grey[torch.from_numpy(chosen)].float() / 255
        drawn = augment(drawn, how, rng) if how else drawn
        return standardised(drawn, start.mean, start.std).to(device).contiguous(memory_format=torch.channels_last)

    if not recipe.frozen_blocks:
        how = recipe.augment if recipe.augment != AugmentSettings(flip=0) else None
        return lambda chosen, run, step: images(chosen, how, np.random.default_rng((recipe.seed, run, step, 1)))

    early = TorchNetwork(early_stages(start.network, recipe.frozen_blocks), device, torch.float32)
    kept = [
        kept_stage(pictures, recipe, start, version, early, images, out / KEPT_FOLDER)
        for version in range(recipe.versions)
    ]

    def of_kept(chosen: NDArray, run: int, step: int) -> Tensor:
        versions = np.random.default_rng((recipe.seed, run, step, 2)).integers(0, recipe.versions, len(chosen))
        found = np.stack([kept[version][index] for version, index in zip(versions, chosen, strict=True)])
        return torch.from_numpy(found).float().to(device).contiguous(memory_format=torch.channels_last)

    return of_kept


@torch.no_grad()
def kept_stage(
    pictures: Pictures, recipe: Recipe, start: Start, version: int, early: TorchNetwork, images: Images, folder: Path
) -> NDArray[np.float16]:
    """What the early stages make of one version of all pictures, (N, K, h, w), from the disk; made if need be."""
    facts = repr(
        (pictures.digest, start.source, recipe.timm_name, recipe.frozen_blocks, recipe.precision, recipe.seed, version)
    )
    how: AugmentSettings | None = recipe.augment
    if version == 0:
        how = None
    elif version == 1 and recipe.augment.flip:
        how = AugmentSettings(flip=1.0)
    key = hashlib.sha256((facts + repr(how)).encode()).hexdigest()[:32]
    path = folder / f"{key}.npy"
    if not path.exists():
        log.info("early stages: %d pictures, version %d of %d", len(pictures), version + 1, recipe.versions)
        made = []
        for begin in range(0, len(pictures), CHUNK):
            chosen = np.arange(begin, min(begin + CHUNK, len(pictures)))
            rng = np.random.default_rng((recipe.seed, version, begin))
            with torch.autocast(early.device.type, torch.bfloat16, enabled=recipe.precision == "bf16"):
                made.append(early(images(chosen, how, rng)).half().cpu().numpy())
        content = io.BytesIO()
        np.save(content, np.concatenate(made))
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(path, content.getvalue())
    return np.load(path, mmap_mode="r", allow_pickle=False)
