"""Train an encoder from scans and images to weights: slices, start weights, probe."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import torch

from balaitous.cohort.run import Run
from balaitous.cohort.table import Row
from balaitous.errors import InputError, needs_extra
from balaitous.networks.runtime import choose_device
from balaitous.severity.heads import VIEWS
from balaitous.severity.parts import open_parts
from balaitous.severity.pipeline import Balaitous
from balaitous.training.encoder.slices import Slices, SliceStore, keep_slices
from balaitous.weights.pack import read_state
from balaitous.weights.search import find_bundle

try:
    from accelerate import PartialState

    from balaitous.training.encoder.ibot import make_vit
    from balaitous.training.encoder.probe import ProbeCase, read_probe
    from balaitous.training.encoder.recipe import Recipe, check_views, read_recipe
    from balaitous.training.encoder.train import Probe, train_encoder
except ImportError:
    raise ValueError(needs_extra("train encoder", "lightly and accelerate", "train")) from None

log = logging.getLogger(__name__)

WEIGHTS_ENDINGS = (".pth", ".pt", ".safetensors")
WORKERS = 1  # a process that draws views in one thread is faster than this one between its steps
OTHERS_WAIT = timedelta(days=2)  # while the first of several processes makes the slices


@dataclass(frozen=True)
class EncoderTraining:
    """How an encoder is trained.

    Attributes
    ----------
    view : "full" or "lung"
    recipe : "stoic", "mini", or a TOML file
    start : a bundle or a file of weights to go on from; None: drawn anew
    weights : the bundle whose U-Net finds the lungs
    probe : CSV of what the encoder is tried on as it learns
    workers : scans at a time, and processes that draw views
    """

    view: str
    recipe: str
    start: str | None = None
    weights: str | None = None
    probe: Path | None = None
    device: str = "auto"
    workers: int | None = None


def train_encoder_on(
    data: Sequence[Path],
    out: Path,
    training: EncoderTraining,
    slices: Path,
    *,
    follow: Callable[[Run, Iterator[Row]], None],
) -> Path:
    """Train an encoder on scans and 2-D images; a run that was interrupted goes on where it was.

    Parameters
    ----------
    data : as `list_material` takes it
    out, and what is returned : as `train_encoder`
    slices : folder where the slices are kept
    follow : takes the rows of the scans and adds them to the run

    Raises
    ------
    ValueError : arguments that make no sense, or libraries that are not installed
    InputError, WeightsError : data or weights that cannot be used
    """
    if training.view not in VIEWS:
        raise ValueError(f"view must be one of {', '.join(VIEWS)}. Got {training.view!r} instead.")
    cpu = choose_device(training.device).type == "cpu"
    recipe = read_recipe(training.recipe)
    vit = vit_to_start_from(training.start, training.view, recipe)
    cases = read_probe(training.probe) if training.probe else []
    with PartialState(cpu=cpu, timeout=OTHERS_WAIT).main_process_first():
        model = Balaitous(training.weights, training.device)
        store = SliceStore(slices, model)
        files = keep_slices(model, store, data, training.workers, follow)
        tried = keep_slices(model, store, [case.path for case in cases], training.workers, follow)
    del model
    return train_encoder(
        Slices(sorted(set(files.values())), training.view),
        vit,
        recipe,
        out,
        start=start_name(training.start),
        probed=probe_of(cases, tried, training.view) if cases else None,
        workers=training.workers or WORKERS,
        cpu=cpu,
    )


def vit_to_start_from(start: str | None, view: str, recipe: Recipe) -> torch.nn.Module:
    """The recipe's ViT with the weights of a file, of a bundle's encoder, or drawn from the seed."""
    torch.manual_seed(recipe.seed)
    state = None
    if start is not None and start.endswith(WEIGHTS_ENDINGS):
        state = read_state(start)
    elif start is not None:
        state = open_parts(find_bundle(start)).load_state(f"encoder_{view}")
    vit = make_vit(recipe.timm_name, recipe.blocks, state, source=start_name(start))
    check_views(recipe, vit.patch_embed.patch_size[0])
    return vit


def start_name(start: str | None) -> str:
    """Name of the weights that a run starts from."""
    return "drawn anew" if start is None else str(start)


def probe_of(cases: Sequence[ProbeCase], files: dict[Path, Path], view: str) -> Probe:
    """Probe cases whose slices are kept.

    Raises
    ------
    InputError : one is not
    """
    if missing := [str(case.path) for case in cases if case.path not in files]:
        raise InputError(f"expected slices of every case of the probe, found none of {', '.join(missing[:3])}.")
    return Probe(Slices([files[case.path] for case in cases], view), cases)
