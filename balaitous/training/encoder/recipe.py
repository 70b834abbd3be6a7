"""Recipes: every setting of an encoder's training besides data and start weights."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from balaitous.training import recipes
from balaitous.training.encoder.ibot import IbotSettings
from balaitous.training.encoder.views import ViewSettings
from balaitous.training.resume import cosine

FOLDER = Path(__file__).parent / "recipes"
PRECISIONS = ("fp32", "bf16", "fp16")
BATCH_OF_RATE = 256  # slices a step that `learning_rate` is for
LEAST_RATE = 1e-6


@dataclass(frozen=True)
class Recipe:
    """How an encoder is trained.

    Attributes
    ----------
    timm_name, blocks : any ViT of timm, and how many of its blocks; None: all
    epochs, batch, accumulate : a step sees `batch` × `accumulate` slices on each device
    learning_rate : of AdamW for 256 slices a step; it warms up over `warmup_epochs` and falls as half a cosine
    weight_decay : at the start and at the end
    teacher_momentum : at the start; it rises to 1
    warmup_temperature_epochs : until the teacher's temperature is at its end
    frozen_epochs : in which the last layers of the heads do not learn
    clip : norm of the gradients, at most
    precision : of the products, "fp32", "bf16" or "fp16"
    probe_epochs : epochs between two probes
    seed : of the first weights, the views, the masks and the order of the slices
    """

    timm_name: str = "vit_large_patch16_224"
    blocks: int | None = None
    epochs: int = 35
    batch: int = 64
    accumulate: int = 1
    learning_rate: float = 5e-4
    warmup_epochs: float = 3.0
    weight_decay: tuple[float, float] = (0.04, 0.4)
    teacher_momentum: float = 0.996
    warmup_temperature_epochs: float = 10.0
    frozen_epochs: float = 1.0
    clip: float = 3.0
    precision: str = "fp32"
    probe_epochs: int = 1
    seed: int = 0
    ibot: IbotSettings = field(default_factory=IbotSettings)
    views: ViewSettings = field(default_factory=ViewSettings)

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}. Got {self.precision!r} instead.")
        for name in ("epochs", "batch", "accumulate", "probe_epochs"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1. Got {getattr(self, name)} instead.")


def check_views(recipe: Recipe, patch: int) -> None:
    """Check that views are whole patches, and large ones enough of them for a mask.

    Raises
    ------
    ValueError : they are not
    """
    for name in ("global_size", "local_size"):
        if (size := getattr(recipe.views, name)) % patch:
            raise ValueError(f"{name} must be a multiple of {patch}, the ViT's patch. Got {size} instead.")
    patches = (recipe.views.global_size // patch) ** 2
    if recipe.ibot.fewest_masked(patches) < 1:
        raise ValueError(
            f"{recipe.ibot.mask_share[0]:.0%} of a large view's patches must be one or more. Got {patches} patches: "
            "raise global_size or mask_share."
        )


def read_recipe(recipe: str | Path) -> Recipe:
    """A recipe by name ("stoic", "mini"), or from a TOML file, as `balaitous.training.recipes.read_recipe`."""
    return recipes.read_recipe(Recipe, recipe, FOLDER)


@dataclass(frozen=True)
class Schedule:
    """What changes from step to step."""

    recipe: Recipe
    steps_an_epoch: int

    @property
    def steps(self) -> int:
        return self.recipe.epochs * self.steps_an_epoch

    def at(self, step: int) -> dict[str, float]:
        """Learning rate, weight decay, the teacher's momentum and temperature, and the epochs that are over."""
        recipe, share, epoch = self.recipe, step / self.steps, step / self.steps_an_epoch
        highest = recipe.learning_rate * recipe.batch * recipe.accumulate / BATCH_OF_RATE
        warmup = recipe.warmup_epochs / recipe.epochs
        rising = highest * (step + 1) / max(warmup * self.steps, 1)
        rate = rising if share < warmup else cosine(highest, LEAST_RATE, (share - warmup) / (1 - warmup))
        cold, warm = recipe.ibot.teacher_temperature
        return {
            "epoch": epoch,
            "learning_rate": min(rate, highest),
            "weight_decay": cosine(*recipe.weight_decay, share),
            "teacher_momentum": cosine(recipe.teacher_momentum, 1.0, share),
            "teacher_temperature": cold + (warm - cold) * min(epoch / max(recipe.warmup_temperature_epochs, 1e-9), 1.0),
        }
