"""What predicts the items of a run: this machine, or a cluster."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import balaitous
from balaitous.cohort.addresses import local_copy
from balaitous.cohort.items import Item
from balaitous.cohort.local import CAN_READ_BESIDE, Readers, first_reader, predict_items
from balaitous.cohort.saving import Saver
from balaitous.cohort.table import Row
from balaitous.models import Model, Settings, imported, load_model
from balaitous.weights.bundle import Bundle, open_bundle
from balaitous.weights.search import find_bundle

log = logging.getLogger(__name__)

WORKERS_ON_CPU = 2  # one scan is read while the networks look at another; more would only take their cores away
MOST_WORKERS_WITH_GPU = 8
HARDWARE = ("device_name", "threads", "int8_sha256")


@dataclass(frozen=True)
class Engine:
    """An engine, ready to predict.

    Attributes
    ----------
    bundle : the weights
    device, precision : where and how the networks run
    calibration : how the bundle's calibration was made, if it is applied
    hardware : device_name, threads and int8_sha256, as `Provenance` has them; nothing of a cluster, whose nodes differ
    predict : items to the rows of all of them, each as soon as it is there
    """

    bundle: Bundle
    device: str
    precision: str
    calibration: str | None
    hardware: Mapping[str, Any]
    predict: Callable[[Sequence[Item]], Iterator[Row]]

    @property
    def made_by(self) -> dict[str, str | None]:
        """What the rows of one table have in common."""
        return {
            "bundle_sha256": self.bundle.sha256,
            "precision": self.precision,
            "calibration": self.calibration,
            "version": balaitous.__version__,
        }


def local_engine(
    model: Model,
    settings: Settings,
    items: Sequence[Item],
    workers: int | None = None,
    readers: Readers | None = None,
    saves: bool = False,
    compare: str | Path | None = None,
) -> Engine:
    """The model in this process, for these items.

    Parameters
    ----------
    workers : items at a time; None: as many as `default_workers` says
    readers : where a process that reads was started before; None: it starts while the networks are loaded
    saves : fill the folder of each item that it is given
    compare : weights that what is saved is compared with, as those of the settings; None: with none

    Raises
    ------
    WeightsError, ValueError : as the model's class does
    """
    if settings.precision == "int8":
        quantize_once(model, settings, items)
    readers = readers or first_reader(model)
    try:
        predictor = load_model(model, settings)
        beside = load_model(model, replace(settings, weights=compare, strict=False)) if compare else None
    except BaseException:
        readers.close()
        raise
    count = workers or default_workers(len(items), predictor.device.type)
    return Engine(
        predictor.bundle,
        str(predictor.device),
        predictor.precision,
        predictor.provenance.calibration,
        {name: getattr(predictor.provenance, name) for name in HARDWARE},
        lambda todo: predict_items(
            predictor, todo, count, readers=readers, save=Saver(model, beside) if saves else None
        ),
    )


def ray_engine(
    model: Model, settings: Settings, items: Sequence[Item], workers: int | None = None, address: str | None = None
) -> Engine:
    """Workers on a Ray cluster, which is joined (or started) when the first items are given to it.

    Raises
    ------
    WeightsError, ValueError : as the model's class does, as far as it can be told from here
    """
    import torch

    from balaitous.cohort.ray import predict_items
    from balaitous.networks.runtime import choose_precision

    if settings.precision == "int8":
        quantize_once(model, settings, items)
    bundle = open_bundle(find_bundle(settings.weights, model))
    name, _ = choose_precision(settings.precision, torch.device("cpu"))
    return Engine(
        bundle,
        settings.device or "auto",
        name,
        bundle.calibrated_by if settings.calibrated else None,
        {},
        lambda todo: predict_items(model, settings, todo, workers=workers, address=address),
    )


def quantize_once(model: Model, settings: Settings, items: Sequence[Item]) -> None:
    """Quantise the bundle on slices of the first of these items, unless it was quantised before.

    Raises
    ------
    ValueError : the model's networks cannot be quantised, or what does it is not installed
    InputError, WeightsError : as `quantize_bundle`
    """
    from balaitous.weights.int8 import Int8Store

    if not model.quantizing:
        raise ValueError(f"precision int8 is not to be had of the model {model.name}. Leave --precision out.")
    bundle = open_bundle(find_bundle(settings.weights, model))
    if not Int8Store(bundle).exists():
        log.warning("quantising the networks of %r to int8, once: up to a few minutes", bundle.name)
        quantize(model, bundle.folder, items)


def quantize(model: Model, folder: Path, items: Sequence[Item]) -> Path:
    """Quantise a bundle on slices of the first of these items, which are read in a process of their own.

    Returns
    -------
    the folder in the cache
    """
    with closing(first_reader(model)) as readers:
        return imported(model.quantizing)(folder, local_copies(items), readers.of_this_thread())


def local_copies(items: Iterable[Item]) -> Iterator[Path]:
    """The items' paths on this machine, each until the next one is taken."""
    for item in items:
        with local_copy(item.path) as path:
            yield path


def default_workers(items: int, device_type: str) -> int | None:
    """Items at a time: a GPU is to be fed by many; None where they are read in this process."""
    if not CAN_READ_BESIDE:
        return None
    if items <= 1:
        return 1
    return WORKERS_ON_CPU if device_type == "cpu" else min(MOST_WORKERS_WITH_GPU, os.cpu_count() or 1)
