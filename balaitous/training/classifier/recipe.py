"""Recipes: all that decides what a classifier becomes, besides its pictures and the weights it starts from."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from balaitous.training import recipes
from balaitous.training.classifier.augment import AugmentSettings
from balaitous.training.classifier.losses import GATES
from balaitous.training.resume import cosine

FOLDER = Path(__file__).parent / "recipes"
PRECISIONS = ("fp32", "bf16")
SCHEDULES = ("cosine", "constant")
LEAST_SHARE = 0.01  # of the learning rate that a cosine ends at


@dataclass(frozen=True)
class Recipe:
    """How a classifier is trained.

    Attributes
    ----------
    timm_name : any backbone of timm
    size : rows, columns of the network's input
    frozen_blocks : stages of an EfficientNet, the stem before them included, that keep the weights they start from, so
        that what they make of the pictures is kept on disk; 0: every layer learns
    versions : of each picture that are augmented once and kept, where blocks are frozen; else each step draws anew
    head_decay : of the linear layer's weights, when it is fitted to the pooled features of the network it starts from,
        before anything else learns; 0: it starts at random
    precision : of the frozen blocks, "fp32" or "bf16", which is several times as fast where the processor has it
    epochs, batch : 0 epochs: the linear layer alone
    learning_rate, head_learning_rate : of AdamW, highest; of the backbone and of the linear layer
    schedule : "cosine": warm-up over `warmup` of the steps, then half a cosine; "constant"
    weight_decay : of AdamW
    dropout : share of the pooled features that a step leaves out
    average : decay of the moving average of the weights, which is what is validated and kept; 0: the weights themselves
    clip : norm of the gradients, at most
    frozen_norms : batch statistics stay those of the start
    balanced : each source as likely as another, and in it each class of the first output; else each picture
    output_weights : of the outputs in the loss; empty: 1 each
    gate : which pictures teach the outputs after the first: see `balaitous.training.classifier.losses`
    runs : from as many seeds, one after the other; their weights are averaged
    validate_epochs : epochs between two validations; the weights with the lowest loss of the first output are kept
    seed : of the linear layer, the order, the augmentation
    """

    timm_name: str = "tf_efficientnet_lite0"
    size: tuple[int, int] = (256, 256)
    frozen_blocks: int = 0
    versions: int = 6
    head_decay: float = 0.0
    precision: str = "fp32"
    epochs: int = 12
    batch: int = 32
    learning_rate: float = 1e-4
    head_learning_rate: float = 1e-3
    schedule: str = "cosine"
    warmup: float = 0.1
    weight_decay: float = 0.05
    dropout: float = 0.0
    average: float = 0.0
    clip: float = 5.0
    frozen_norms: bool = True
    balanced: bool = True
    output_weights: tuple[float, ...] = ()
    gate: str = "off"
    runs: int = 1
    validate_epochs: int = 1
    seed: int = 0
    augment: AugmentSettings = field(default_factory=AugmentSettings)

    def __post_init__(self) -> None:
        for name, known in (("gate", GATES), ("schedule", SCHEDULES), ("precision", PRECISIONS)):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}. Got {getattr(self, name)!r} instead.")
        for name in ("batch", "versions", "runs", "validate_epochs"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1. Got {getattr(self, name)} instead.")
        for name in ("frozen_blocks", "epochs", "head_decay"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative. Got {getattr(self, name)} instead.")

    def rate_share(self, step: int, steps: int) -> float:
        """The share of the highest learning rate that a step has."""
        if self.schedule == "constant":
            return 1.0
        rising = (step + 1) / max(self.warmup * steps, 1)
        return min(1.0, rising) * cosine(1.0, LEAST_SHARE, step / steps)


def read_recipe(recipe: str | Path) -> Recipe:
    """A recipe by name, or from a TOML file, as `balaitous.training.recipes.read_recipe`."""
    return recipes.read_recipe(Recipe, recipe, FOLDER)
