"""Training of an encoder on slices whose lesions are known: the class token learns what a severity model asks for.

The class token is asked for the presence and the share of lesions in the slice, every patch token for the share in its
patch. The second question is the teacher of the first: it tells the network where to look, which makes small networks
learn in minutes. Encoders trained without any label (iBOT) are the published way; this one needs synthetic scans only.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from balaitous.ct.lungs import AIR_HU
from balaitous.networks.vit import ClassTokenEncoder
from balaitous.severity.features import encoder_input
from balaitous.training.synthetic import SyntheticScan

log = logging.getLogger(__name__)

PATCH = 16
WARMUP_STEPS = 100
CHECKPOINT_STEPS = 50


class SliceQuestions(nn.Module):
    """What is asked of the tokens during training; not part of the encoder that is kept."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.slice_norm, self.slice = nn.LayerNorm(width), nn.Linear(width, 2)  # presence, share
        self.patch_norm, self.patch = nn.LayerNorm(width), nn.Linear(width, 1)

    def loss(self, tokens: Tensor, lesions: Tensor) -> Tensor:
        """Loss of tokens (B, 1 + patches, width) given the lesion share of every patch (B, patches)."""
        answers = self.slice(self.slice_norm(tokens[:, 0])).float()
        patches = self.patch(self.patch_norm(tokens[:, 1:]))[..., 0].float()
        share = lesions.mean(1)
        presence = F.binary_cross_entropy_with_logits(answers[:, 0], (share > 1e-3).float())
        amount = F.smooth_l1_loss(answers[:, 1], share.sqrt() * 4)
        where = F.binary_cross_entropy_with_logits(patches, lesions)
        return presence + amount + 4 * where


def train_encoder(
    encoder: ClassTokenEncoder,
    scans: Sequence[SyntheticScan],
    *,
    view: str,
    steps: int,
    batch: int = 256,
    checkpoint: Path,
    learning_rate: float = 1e-3,
    seed: int = 0,
    device: str | torch.device = "cpu",
) -> ClassTokenEncoder:
    """Train an encoder on the slices of a cohort; with a checkpoint that exists, go on from there.

    Parameters
    ----------
    encoder : with the weights to start from
    scans : the cohort
    view : "full": slices as they are; "lung": all but the lung set to air
    steps, batch, learning_rate : of AdamW, warm-up and cosine
    checkpoint : file that is written every `CHECKPOINT_STEPS` steps and at the end
    seed : the same seed gives the same weights on the same machine

    Returns
    -------
    the encoder, on the CPU
    """
    device = torch.device(device)
    slices = torch.from_numpy(np.concatenate([seen(scan, view) for scan in scans]))
    shares = torch.cat([patch_shares(torch.from_numpy(scan.lesions)) for scan in scans])
    if device.type == "cuda":
        slices, shares = slices.to(device), shares.to(device)

    torch.manual_seed(seed)
    questions = SliceQuestions(encoder.width)
    training = nn.ModuleDict({"encoder": encoder, "questions": questions}).to(device).train()
    optimiser = torch.optim.AdamW(training.parameters(), lr=learning_rate, weight_decay=0.05, betas=(0.9, 0.98))
    start = 0
    if checkpoint.exists():
        stored = torch.load(checkpoint, map_location=device, weights_only=True)
        training.load_state_dict(stored["training"])
        optimiser.load_state_dict(stored["optimiser"])
        start = stored["step"]
        log.info("encoder %s: going on at step %d of %d", view, start, steps)
    for step in range(start, steps):
        torch.manual_seed(seed + 1_000_003 * (step + 1))  # of its own, so that resumed and uninterrupted runs agree
        chosen = torch.randint(len(slices), (batch,)).to(slices.device)
        images, lesions = vary_slices(slices[chosen].to(device).float(), shares[chosen].to(device))
        for group in optimiser.param_groups:
            warm_up = min(1.0, (step + 1) / WARMUP_STEPS)
            group["lr"] = learning_rate * warm_up * 0.5 * (1 + math.cos(math.pi * step / steps))
        with torch.autocast(device.type, torch.bfloat16):
            tokens = encoder.tokens(encoder_input(images))
            for block in encoder.blocks:
                tokens = block(tokens)
            loss = questions.loss(tokens, lesions)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(training.parameters(), 1.0)
        optimiser.step()
        if (step + 1) % CHECKPOINT_STEPS == 0 or step + 1 == steps:
            log.info("encoder %s, step %d of %d: loss %.4f", view, step + 1, steps, loss.item())
            state = {"training": training.state_dict(), "optimiser": optimiser.state_dict(), "step": step + 1}
            torch.save(state, partial := checkpoint.with_suffix(".partial"))
            partial.replace(checkpoint)
    return encoder.eval().cpu()


def seen(scan: SyntheticScan, view: str) -> np.ndarray:
    """What the encoder of a view sees of a scan: (Z, 224, 224) in HU."""
    if view == "full":
        return scan.image
    return np.where(scan.mask, scan.image, np.int16(AIR_HU))


def patch_shares(lesions: Tensor) -> Tensor:
    """Lesion share of every patch (B, patches), row by row, of masks (B, H, W)."""
    return F.avg_pool2d(lesions[:, None].float(), PATCH).flatten(1)


def vary_slices(images: Tensor, lesions: Tensor) -> tuple[Tensor, Tensor]:
    """Mirror a batch along Y and X half the time each; change its contrast, noise and calibration.

    Parameters
    ----------
    images : (B, H, W) in HU
    lesions : (B, patches)
    """
    side = math.isqrt(lesions.shape[1])
    for axis in (1, 2):
        flipped = torch.rand(len(images), 1, 1, device=images.device) < 0.5
        images = torch.where(flipped, images.flip(axis), images)
        grid = lesions.view(-1, side, side)
        lesions = torch.where(flipped, grid.flip(axis), grid).flatten(1)
    one = images.new_empty(len(images), 1, 1)
    scale, shift = one.clone().normal_(1, 0.03), one.clone().normal_(0, 15)
    noise = torch.randn_like(images) * one.clone().exponential_(1 / 15.0)
    return torch.where(images > AIR_HU, images * scale + shift + noise, images), lesions
