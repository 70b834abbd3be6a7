"""Quantise the networks of a bundle on slices of real scans: what `Balaitous` with precision int8 runs."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable
from concurrent.futures import Executor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from balaitous.ct.lungs import AIR_HU
from balaitous.ct.volume import CT
from balaitous.errors import InputError, reader_died
from balaitous.networks.int8 import import_nncf, quantize_encoder, quantize_unet, save_model
from balaitous.networks.lungs import label_crops, windowed
from balaitous.networks.runtime import Chunker, TorchNetwork, default_chunk
from balaitous.networks.unet import UNet
from balaitous.networks.vit import ClassTokenEncoder
from balaitous.severity.features import encoder_input
from balaitous.severity.parts import open_parts
from balaitous.severity.pipeline import load_network, run_by
from balaitous.severity.preparation import LungView, prepare, view_lungs
from balaitous.weights.bundle import Bundle
from balaitous.weights.int8 import Int8Store

log = logging.getLogger(__name__)

SLICES = 32  # that each network is calibrated on
SCANS = 4  # that they come from, at most


@dataclass(frozen=True)
class QuantizationSlices:
    """Slices as the networks see them, in HU: body crops (N, 256, 256), and views of the encoders (N, 224, 224)."""

    crops: NDArray
    full: NDArray
    lung: NDArray

    def facts(self) -> dict[str, Any]:
        """For the record: which slices these were."""
        content = hashlib.sha256()
        for slices in (self.crops, self.full, self.lung):
            content.update(np.ascontiguousarray(slices, np.float32).data)
        return {"slices": len(self.crops), "sha256": content.hexdigest()}


def quantize_bundle(folder: str | Path, scans: Iterable[str | Path | CT], executor: Executor | None = None) -> Path:
    """Quantise the three networks of a bundle and keep them in the user's cache, in place of any that are there.

    The same scans give the same files. Takes half a minute for the bundle mini, a few minutes and about 6 GB of memory
    for networks of the published size.

    Parameters
    ----------
    folder : of the bundle
    scans : of the kind that are to be predicted; the first few that can be used are
    executor : where they are read, as `Balaitous.predict` has it

    Returns
    -------
    The folder in the cache

    Raises
    ------
    InputError : no scan can be used
    WeightsError : the bundle is not what it claims to be, or there is no cache that can be written
    ValueError : OpenVINO or NNCF is not installed
    """
    bundle = open_parts(folder)
    store = Int8Store(bundle)
    store.folder.parent.mkdir(parents=True, exist_ok=True)
    import_nncf()  # all that may be missing, before the work begins
    calibration = gather(bundle, scans, executor)
    log.info("quantising %s on %d slices", bundle.name, len(calibration.crops))
    with store.replaced({"calibration": calibration.facts()}) as partial:
        unet = cast(UNet, torch_network(bundle, "lung_unet").module)
        save_model(
            quantize_unet(unet, windowed(torch.from_numpy(calibration.crops))[:, None]), partial / "lung_unet.xml"
        )
        del unet
        for name, slices in (("encoder_full", calibration.full), ("encoder_lung", calibration.lung)):
            encoder = cast(ClassTokenEncoder, torch_network(bundle, name).module)
            save_model(quantize_encoder(encoder, both_ways_up(slices)), partial / f"{name}.xml")
            del encoder
    return store.folder


def gather(bundle: Bundle, scans: Iterable[str | Path | CT], executor: Executor | None = None) -> QuantizationSlices:
    """Slices of the first `SCANS` scans that can be used, evenly spread over them.

    Raises
    ------
    InputError : no scan can be used
    """
    unet, chunker = torch_network(bundle, "lung_unet"), Chunker(default_chunk("unet", torch.device("cpu")))
    crops: list[NDArray] = []
    views: list[LungView] = []
    problem: InputError | None = None
    run = run_by(executor)
    for scan in scans:
        try:
            prepared = run(prepare, scan)
            views.append(run(view_lungs, prepared, label_crops(prepared.body.crops, unet, chunker)))
            crops.append(prepared.body.crops)
        except (InputError, BrokenProcessPool) as error:
            problem = error if isinstance(error, InputError) else reader_died(str(scan))
            log.warning("not used to quantise: %s", problem)
        if len(views) == SCANS:
            break
    if not views:
        raise InputError(f"expected a scan to quantise the networks on, found none that can be used. {problem or ''}")
    return QuantizationSlices(
        crops=spread(crops),
        full=spread([view.image for view in views]),
        lung=spread([np.where(view.mask, view.image, view.image.dtype.type(AIR_HU)) for view in views]),
    )


def spread(volumes: list[NDArray]) -> NDArray:
    """At most `SLICES` slices of volumes (Z, Y, X), at even distances."""
    slices = np.concatenate(volumes)
    return slices[np.linspace(0, len(slices) - 1, min(SLICES, len(slices))).astype(int)]


def both_ways_up(slices: NDArray) -> Tensor:
    """What an encoder sees of slices (N, Y, X) in HU: (2 N, 3, Y, X), as they are and flipped along Y."""
    images = encoder_input(torch.from_numpy(slices))
    return torch.cat([images, images.flip(2)])


def torch_network(bundle: Bundle, name: str) -> TorchNetwork:
    """A bundle's network on the CPU in float32: what int8 is made from."""
    return load_network(bundle, name, torch.device("cpu"), torch.float32)
