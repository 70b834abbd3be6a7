"""COVID-19 and five kinds of lesion from 2-D CT slices (LA-DNN): a picture in, six probabilities and maps out.

One backbone, pooled, and one linear layer to six logits: the first is COVID-19, the others are the lesions. A CT is
read as its axial slices that show lungs, and answered by the mean over them.

References
----------
Liu et al. 2020, medRxiv 2020.05.11.20097907 (LA-DNN); Chattopadhyay et al. 2018, arXiv:1710.11063 (Grad-CAM++).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import expit

import balaitous
from balaitous.checks import Check, check_probabilities, verdict
from balaitous.ct.volume import CT
from balaitous.memory import memory_errors
from balaitous.models import MODELS, Model
from balaitous.networks.cam import grad_cam_pp
from balaitous.networks.classifier import MAPS, resized
from balaitous.networks.loading import build_network, load_strictly
from balaitous.networks.runtime import (
    Chunker,
    choose_device,
    choose_precision,
    default_chunk,
    device_name,
    ready,
    use_allotted_cores,
)
from balaitous.provenance import Provenance, Stopwatch, recorded_warnings, versions
from balaitous.reading.pictures import Picture
from balaitous.slices.lesions import COVID, OUTPUTS
from balaitous.slices.parts import NETWORK, InputRecord, open_parts
from balaitous.slices.preparation import PreparedSlices, prepare
from balaitous.weights.calibration import stored_in
from balaitous.weights.search import find_bundle

log = logging.getLogger(__name__)

Result = TypeVar("Result")


@dataclass(frozen=True)
class SlicePrediction:
    """What the model says of one picture or CT, from what, and how it came to it.

    Attributes
    ----------
    name, path : of the item; path "" for one from memory
    input_sha256 : of the item's files, as `content_sha256` has it; None for one from memory
    kind : "picture" or "ct"
    probabilities : of each output, by its name; of a CT the means over its slices
    logits : (slices, 6) as the network gave them, before calibration, in the order of `OUTPUTS`
    slice_probabilities : (slices, 6)
    indices, z_mm : of the slices in the CT, counted from the feet, and where they lie (LPS); 0 and NaN of a picture
    slices_in_item : of the CT as it was read; 1 of a picture
    spacing_mm : x, y: between the centres of a slice's pixels; None of a picture that does not tell
    slices : each (Y, X) float32 grey in [0, 1] at its own size: what the network saw, before it was resized
    maps_of : makes the maps of one of the slices; see `maps`
    converted : what was done to get grey of what is stored
    provenance : versions, weights, device
    seconds : wall-clock time of each stage
    checks : what was measured, and how it was judged
    warnings : what was logged as a warning, when the model was loaded and while it looked at this item
    """

    name: str
    path: str
    input_sha256: str | None
    kind: str
    probabilities: Mapping[str, float]
    logits: NDArray[np.float32]
    slice_probabilities: NDArray[np.float64]
    indices: tuple[int, ...]
    z_mm: tuple[float, ...]
    slices_in_item: int
    spacing_mm: tuple[float, float] | None
    slices: tuple[NDArray[np.float32], ...]
    maps_of: Callable[[NDArray[np.float32], tuple[str, ...]], dict[str, NDArray[np.float32]]] = field(repr=False)
    converted: tuple[str, ...]
    provenance: Provenance
    seconds: Mapping[str, float]
    checks: tuple[Check, ...] = ()
    warnings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_probabilities(self.answers)

    @property
    def answers(self) -> dict[str, float]:
        """The probabilities that the model answers with, by their names in tables."""
        return {f"probability_{name}": value for name, value in self.probabilities.items()}

    @property
    def most_likely(self) -> int:
        """Position in `slices` of the one with the highest probability of COVID-19."""
        return int(np.argmax(self.slice_probabilities[:, list(OUTPUTS).index(COVID)]))

    @property
    def grey(self) -> NDArray[np.float32]:
        """That slice, (Y, X) in [0, 1]; of a picture the picture."""
        return self.slices[self.most_likely]

    def maps(
        self, outputs: tuple[str, ...] = tuple(OUTPUTS), position: int | None = None
    ) -> dict[str, NDArray[np.float32]]:
        """Where the network looked, by Grad-CAM++: for each output a map (Y, X) ≥ 0 at the slice's own size.

        A map is in units of its output's logit, before it is scaled for the eye.

        Parameters
        ----------
        outputs : names of `OUTPUTS`
        position : of the slice in `slices`; None: the one with the highest probability of COVID-19
        """
        return self.maps_of(self.slices[self.most_likely if position is None else position], outputs)

    def row(self) -> dict[str, Any]:
        """Its own columns of a table, as `balaitous.models` names them."""
        most, covid = self.most_likely, self.slice_probabilities[:, list(OUTPUTS).index(COVID)]
        is_ct = self.kind == "ct"
        return {
            **self.answers,
            "kind": self.kind,
            "rows": self.slices[0].shape[0],
            "columns": self.slices[0].shape[1],
            "slices": self.slices_in_item,
            "slices_used": len(self.slices),
            "probability_covid_max": float(covid[most]) if is_ct else None,
            "slice_max": self.indices[most] if is_ct else None,
            "z_max_mm": self.z_mm[most] if is_ct else None,
            "converted": "; ".join(self.converted) or None,
            **{f"seconds_{stage}": round(seconds, 3) for stage, seconds in self.seconds.items()},
        }

    def to_dict(self) -> dict[str, Any]:
        """All but the pictures, ready for JSON."""
        each = {
            name: [float(value) for value in column]
            for name, column in zip(OUTPUTS, self.slice_probabilities.T, strict=True)
        }
        of_ct = {"indices": list(self.indices), "z_mm": list(self.z_mm), "each": each} if self.kind == "ct" else {}
        return {
            "name": self.name,
            "path": self.path,
            "input_sha256": self.input_sha256,
            **self.row(),
            "converted": list(self.converted),
            "probabilities": dict(self.probabilities),
            "slice_probabilities": of_ct,
            "seconds": {stage: round(seconds, 3) for stage, seconds in self.seconds.items()},
            "warnings": list(self.warnings),
            "provenance": asdict(self.provenance),
            **verdict(self.checks),
        }


class SliceClassifier:
    """The model, loaded once, for any number of slices and CTs.

    Parameters
    ----------
    weights : a bundle's name or folder; None: the first found in the search order of `find_bundle`
    device : "auto" (or None), "cpu" or "cuda"
    precision : "auto" (fp32), "fp32", "fp16" or "bf16"
    calibrated : apply the bundle's temperatures; a bundle that has none is refused
    strict : refuse what a quality check warns of

    Raises
    ------
    WeightsError : if the weights are missing or not what they claim to be
    ValueError : if device or precision cannot be had
    MemoryError : if the memory, or the GPU's, does not hold the network
    """

    MODEL: ClassVar[Model] = MODELS["slices"]

    @memory_errors()
    def __init__(
        self,
        weights: str | Path | None = None,
        device: str | torch.device | None = None,
        precision: str = "auto",
        calibrated: bool = False,
        strict: bool = False,
    ) -> None:
        self.strict = strict
        with recorded_warnings() as self.warnings:
            self.device = choose_device(device)
            self.precision, dtype = choose_precision(precision, self.device)
        if self.precision == "int8":
            raise ValueError("precision int8 is not to be had of the model slices. Use fp32, fp16 or bf16.")
        use_allotted_cores()
        self.bundle = open_parts(find_bundle(weights, self.MODEL))
        record = self.bundle.networks[NETWORK]
        source = str(self.bundle.folder / record.file)
        network = build_network(record.architecture, source=source)
        load_strictly(network, self.bundle.load_state(NETWORK), source=source)
        self.network = ready(network, self.device, dtype)
        self.input = InputRecord.from_dict(record.input, source=source)
        self.calibrations = stored_in(self.bundle, OUTPUTS) if calibrated else {}
        self.chunker = Chunker(default_chunk("timm", self.device))
        self.turn = Lock()
        self.provenance = Provenance(
            version=balaitous.__version__,
            versions=versions(),
            bundle=self.bundle.name,
            bundle_sha256=self.bundle.sha256,
            intended_use=self.bundle.intended_use,
            demonstration=self.bundle.demonstration,
            device=str(self.device),
            device_name=device_name(self.device),
            threads=torch.get_num_threads(),
            precision=self.precision,
            int8_sha256=None,
            calibration=self.bundle.calibrated_by if calibrated else None,
        )
        log.info("weights: %s (%s), sha256 %s", self.bundle.name, self.bundle.folder, self.bundle.sha256)
        log.info("intended use: %s", self.bundle.intended_use)

    def predict(
        self,
        item: str | Path | Picture | CT | NDArray,
        series: str | None = None,
        executor: Executor | None = None,
    ) -> SlicePrediction:
        """Predict one picture or CT. Several threads may: the network then takes one after the other.

        Parameters
        ----------
        item : a picture's file, a CT as `read_ct` takes it, what `read_picture` or `read_ct` returned, or an array
            (Y, X) of grey in [0, 1]
        series : SeriesInstanceUID, for a DICOM folder or zip with several
        executor : where it is read and prepared (processes, say); None: in this thread

        Raises
        ------
        InputError : if it cannot be used; NoLungError if a CT shows no lung, QualityError if a check fails
        BalaitousError : if a probability is none
        ValueError : an array that is no picture
        MemoryError : if the memory, or the GPU's, is not enough even for one slice at a time
        """
        watch = Stopwatch()
        with memory_errors(), recorded_warnings() as warnings:
            prepared: PreparedSlices = (
                prepare(item, series, self.strict)
                if executor is None
                else executor.submit(prepare, item, series, self.strict).result()
            )
            del item
            with self.turn, watch("network"):
                logits = self.logits(prepared.slices)
            each = expit(logits.astype(np.float64))
            for column, name in enumerate(OUTPUTS):
                if name in self.calibrations:
                    each[:, column] = self.calibrations[name](each[:, column])
        return SlicePrediction(
            name=prepared.name,
            path=prepared.path,
            input_sha256=prepared.input_sha256,
            kind=prepared.kind,
            probabilities={name: float(mean) for name, mean in zip(OUTPUTS, each.mean(axis=0), strict=True)},
            logits=logits,
            slice_probabilities=each,
            indices=prepared.indices,
            z_mm=prepared.z_mm,
            slices_in_item=prepared.slices_in_item,
            spacing_mm=prepared.spacing_mm,
            slices=prepared.slices,
            maps_of=self.maps_of,
            converted=prepared.converted,
            provenance=self.provenance,
            seconds={**prepared.seconds, **watch.seconds},
            checks=prepared.checks,
            warnings=(*self.warnings, *warnings),
        )

    @torch.inference_mode()
    def logits(self, slices: tuple[NDArray[np.float32], ...]) -> NDArray[np.float32]:
        """Logits (slices, 6) of grey slices (Y, X) in [0, 1], each of any size."""

        def run(chunk: slice) -> NDArray[np.float32]:
            pictures = torch.stack([self.input.picture(each) for each in slices[chunk]])
            return self.network(self.input.images(pictures)).float().cpu().numpy()

        return np.concatenate(list(self.chunker.run(len(slices), run)))

    def maps_of(self, grey: NDArray[np.float32], outputs: tuple[str, ...]) -> dict[str, NDArray[np.float32]]:
        """Grad-CAM++ of a slice (Y, X): for each of the outputs a map (Y, X) ≥ 0.

        Raises
        ------
        ValueError : an output that there is not
        """
        if unknown := [name for name in outputs if name not in OUTPUTS]:
            raise ValueError(f"outputs must be of {', '.join(OUTPUTS)}. Got {', '.join(unknown)} instead.")
        module = self.network.module
        image = self.input.images(self.input.picture(grey)[None]).to(self.device, self.network.dtype)
        maps = {}
        with self.turn, memory_errors():
            for name in outputs:
                (small,) = grad_cam_pp(module, [module.get_submodule(MAPS)], image, list(OUTPUTS).index(name))
                maps[name] = resized(small.cpu().numpy(), grey.shape).clamp(min=0).numpy()
        return maps
