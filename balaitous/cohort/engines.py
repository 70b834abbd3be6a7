"""What predicts the scans of a run: this machine, or a cluster."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import balaitous
from balaitous.cohort.addresses import local_copy
from balaitous.cohort.items import Scan
from balaitous.cohort.table import Row
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
    predict : scans to the rows of all of them, each as soon as it is there
    """

    bundle: Bundle
    device: str
    precision: str
    calibration: str | None
    hardware: Mapping[str, Any]
    predict: Callable[[Sequence[Scan]], Iterator[Row]]

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
    weights: str | None,
    device: str,
    precision: str,
    calibrated: bool,
    strict: bool,
    series: str | None,
    workers: int | None,
    scans: Sequence[Scan],
) -> Engine:
    """The model in this process, for these scans; `workers` None: as many as `default_workers` says.

    Raises
    ------
    WeightsError, ValueError : as `Balaitous` does
    """
    from balaitous.cohort.local import predict_scans
    from balaitous.severity.pipeline import Balaitous

    if precision == "int8":
        quantize_once(weights, scans)
    model = Balaitous(weights, device, precision, calibrated, strict)
    count = workers or default_workers(len(scans), model.device.type)
    return Engine(
        model.bundle,
        str(model.device),
        model.precision,
        model.provenance.calibration,
        {name: getattr(model.provenance, name) for name in HARDWARE},
        lambda todo: predict_scans(model, todo, series, count),
    )


def ray_engine(
    weights: str | None,
    device: str,
    precision: str,
    calibrated: bool,
    strict: bool,
    series: str | None,
    workers: int | None,
    scans: Sequence[Scan],
    address: str | None,
) -> Engine:
    """Workers on a Ray cluster, which is joined (or started) when the first scans are given to it.

    Raises
    ------
    WeightsError, ValueError : as `Balaitous` does, as far as it can be told from here
    """
    import torch

    from balaitous.cohort.ray import predict_scans
    from balaitous.networks.runtime import choose_precision
    from balaitous.severity.calibration import calibration_of

    if precision == "int8":
        quantize_once(weights, scans)
    bundle = open_bundle(find_bundle(weights))
    name, _ = choose_precision(precision, torch.device("cpu"))
    return Engine(
        bundle,
        device,
        name,
        calibration_of(bundle) if calibrated else None,
        {},
        lambda todo: predict_scans(
            todo,
            weights=weights,
            device=device,
            precision=precision,
            calibrated=calibrated,
            strict=strict,
            series=series,
            address=address,
            workers=workers,
        ),
    )


def quantize_once(weights: str | None, scans: Sequence[Scan]) -> None:
    """Quantise the bundle on slices of the first of these scans, unless it was quantised before.

    Raises
    ------
    InputError, WeightsError, ValueError : as `quantize_bundle`
    """
    from balaitous.severity.quantize import quantize_bundle
    from balaitous.weights.int8 import Int8Store

    bundle = open_bundle(find_bundle(weights))
    if not Int8Store(bundle).exists():
        log.warning("quantising the networks of %r to int8, once: up to a few minutes", bundle.name)
        quantize_bundle(bundle.folder, local_copies(scans))


def local_copies(scans: Iterable[Scan]) -> Iterator[Path]:
    """The scans' paths on this machine, each until the next one is taken."""
    for scan in scans:
        with local_copy(scan.path) as path:
            yield path


def default_workers(scans: int, device_type: str) -> int:
    """Scans at a time: one alone needs no other process, a GPU is to be fed by many."""
    if scans == 1 or os.name == "nt":  # Windows cannot end such processes as `processes` does
        return 1
    return WORKERS_ON_CPU if device_type == "cpu" else min(MOST_WORKERS_WITH_GPU, os.cpu_count() or 1)
