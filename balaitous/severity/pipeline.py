"""The CT severity method (Balaitous): a chest CT in, the probabilities of COVID-19 and of a severe outcome out.

Steps and numbers are those of the published package ``balaitous`` 1.2.

References
----------
Lassau et al. 2021, doi:10.1038/s41467-020-20657-4. STOIC challenge: Boulogne et al. 2023, arXiv:2306.10484.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

import balaitous
from balaitous.checks import Check, check_probabilities, verdict
from balaitous.ct.lungs import AIR_HU
from balaitous.ct.volume import CT
from balaitous.memory import memory_errors
from balaitous.models import MODELS, Model
from balaitous.networks.loading import build_network, load_strictly
from balaitous.networks.lungs import label_crops
from balaitous.networks.runtime import (
    Chunker,
    Network,
    TorchNetwork,
    choose_device,
    choose_precision,
    default_chunk,
    device_name,
    ready,
    use_allotted_cores,
)
from balaitous.provenance import Provenance, Stopwatch, recorded_warnings, versions
from balaitous.reading.patient import Patient, resolve
from balaitous.severity.calibration import stored_in
from balaitous.severity.features import scan_features
from balaitous.severity.heads import Heads, age_feature
from balaitous.severity.parts import KINDS, load_heads, open_parts
from balaitous.severity.preparation import LungView, Prepared, prepare, view_lungs
from balaitous.weights.bundle import Bundle
from balaitous.weights.int8 import Int8Store, load_int8
from balaitous.weights.search import find_bundle

log = logging.getLogger(__name__)

Result = TypeVar("Result")

KEPT_BYTES = 256 << 20  # a network up to this size stays in memory between scans, on a CPU too


@dataclass(frozen=True)
class Prediction:
    """What the model says of one scan, from what, and how it came to it.

    Attributes
    ----------
    name, path : of the scan
    input_sha256 : of the scan's files, as `content_sha256` has it; None for a CT from memory
    series_uid : for DICOM only
    probability_covid, probability_severe : in [0, 1]
    probabilities : ``{full,lung}_{covid,severe}`` and the two means ``covid`` and ``severe``
    patient : age in years and sex as used, and where each came from
    spacing_mm : of the scan as read; x, y, z
    slices : axial slices of the scan as read
    lung_volume_litres : of the cleaned lung mask
    image : (Z, 224, 224) in HU, LPS order flipped along Y: the slices the encoders saw
    mask : (Z, 224, 224), the lung in `image`
    features : (width,) for each view, "full" and "lung"
    provenance : versions, weights, device
    seconds : wall-clock time of each stage
    checks : what was measured of the scan and its lungs, and how it was judged
    warnings : what was logged as a warning, when the model was loaded and while it looked at this scan
    """

    name: str
    path: str
    input_sha256: str | None
    series_uid: str | None
    probability_covid: float
    probability_severe: float
    probabilities: Mapping[str, float]
    patient: Patient
    spacing_mm: tuple[float, float, float]
    slices: int
    lung_volume_litres: float
    image: NDArray
    mask: NDArray[np.bool_]
    features: Mapping[str, NDArray[np.float64]]
    provenance: Provenance
    seconds: Mapping[str, float]
    checks: tuple[Check, ...] = ()
    warnings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_probabilities(self.answers)

    @property
    def answers(self) -> dict[str, float]:
        """The probabilities that the model answers with, by their names in tables and jobs."""
        return {"probability_covid": self.probability_covid, "probability_severe": self.probability_severe}

    def row(self) -> dict[str, Any]:
        """Its own columns of a table, as `balaitous.models` names them."""
        return {
            **{f"probability_{name}": value for name, value in self.probabilities.items()},
            **self.answers,
            "series_uid": self.series_uid,
            **dict(zip(("spacing_x_mm", "spacing_y_mm", "spacing_z_mm"), self.spacing_mm, strict=True)),
            "slices": self.slices,
            "slices_used": len(self.image),
            "lung_volume_litres": round(self.lung_volume_litres, 4),
            **asdict(self.patient),
            **{f"seconds_{stage}": round(seconds, 3) for stage, seconds in self.seconds.items()},
        }

    def to_dict(self) -> dict[str, Any]:
        """All but the arrays, ready for JSON."""
        return {
            "name": self.name,
            "path": self.path,
            "input_sha256": self.input_sha256,
            "series_uid": self.series_uid,
            **self.answers,
            "probabilities": dict(self.probabilities),
            **asdict(self.patient),
            "spacing_mm": list(self.spacing_mm),
            "slices": self.slices,
            "slices_used": len(self.image),
            "lung_volume_litres": round(self.lung_volume_litres, 4),
            "seconds": {stage: round(seconds, 3) for stage, seconds in self.seconds.items()},
            "warnings": list(self.warnings),
            "provenance": asdict(self.provenance),
            **verdict(self.checks),
        }

    def published_dict(self) -> dict[str, Any]:
        """The dictionary of the published package: images and mask (224, 224, Z), ordered (Y, X, Z)."""
        assert self.patient.age_years is not None  # resolved before anything ran
        unmasked, mask = (np.moveaxis(array, 0, -1) for array in (self.image, self.mask))
        return {
            "image_path": self.path,
            "unmasked_image": unmasked,
            "image": np.where(mask, unmasked, unmasked.dtype.type(AIR_HU)),
            "mask": mask,
            "features": dict(self.features),
            "prediction": dict(self.probabilities),
            "age": age_feature(self.patient.age_years),
            "sex": self.patient.sex,
        }


class Balaitous:
    """The model, loaded once, for any number of scans.

    Parameters
    ----------
    weights : a bundle's name or folder; None: the first found in the search order of `find_bundle`
    device : "auto" (or None), "cpu" or "cuda"
    precision : "auto" (fp32), "fp32", "fp16", "bf16", or "int8" on a CPU, which `quantize_bundle` makes possible
    calibrated : apply the bundle's calibration to the two probabilities; one that has none is refused
    strict : refuse scans that a quality check warns of

    Raises
    ------
    WeightsError : if the weights are missing or not what they claim to be
    ValueError : if device or precision cannot be had
    MemoryError : if the memory, or the GPU's, does not hold the networks
    """

    MODEL: ClassVar[Model] = MODELS["severity"]

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
        use_allotted_cores()
        self.bundle = open_parts(find_bundle(weights, self.MODEL))
        self.load: Callable[[str], Network]
        if self.precision == "int8":
            self.load = partial(load_int8, self.bundle)
        else:
            self.load = partial(load_network, self.bundle, device=self.device, dtype=dtype)
        with ThreadPoolExecutor() as pool:  # each file is hashed before it is opened, which takes most of the time
            networks: dict[str, Network] = dict(zip(KINDS, pool.map(self.load, KINDS), strict=True))
        self.kept = {name: each for name, each in networks.items() if self.device.type == "cuda" or is_small(each)}
        self.heads = Heads(load_heads(self.bundle))
        self.calibrations = stored_in(self.bundle) if calibrated else {}
        self.chunkers = {name: Chunker(default_chunk(kind, self.device)) for name, kind in KINDS.items()}
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
            int8_sha256=Int8Store(self.bundle).sha256 if self.precision == "int8" else None,
            calibration=self.bundle.calibrated_by if calibrated else None,
        )
        log.info("weights: %s (%s), sha256 %s", self.bundle.name, self.bundle.folder, self.bundle.sha256)
        log.info("intended use: %s", self.bundle.intended_use)

    def __call__(
        self,
        image_path: str | Path,
        age: float | None = None,
        sex: float | str | None = None,
        return_dict: bool = False,
    ) -> tuple[float, float] | dict[str, Any]:
        """(probability of COVID-19, probability of a severe outcome), as the published package returns them.

        With ``return_dict=True``, the published package's dictionary instead: ``unmasked_image`` and ``image`` (224,
        224, Z) in HU, ``mask``, ``features``, ``prediction``, ``age`` (in centuries, clipped) and ``sex``. Parameters
        and errors are those of `predict`.
        """
        prediction = self.predict(image_path, age=age, sex=sex)
        if return_dict:
            return prediction.published_dict()
        return prediction.probability_covid, prediction.probability_severe

    def predict(
        self,
        scan: str | Path | CT,
        age: float | None = None,
        sex: float | str | None = None,
        series: str | None = None,
        executor: Executor | None = None,
    ) -> Prediction:
        """Predict one scan. Several threads may: the networks then take one scan after the other.

        Parameters
        ----------
        scan : an image file, a DICOM folder or zip, or a CT that `read_ct` returned
        age : in years; None: from the scan's header or side-car, else 65
        sex : 1 or "M" male, 0 or "F" female, 0.5 unknown; None: from the scan's header or side-car, else 0.5
        series : SeriesInstanceUID, for a DICOM folder with several
        executor : where the steps run that need no network (processes, say); None: in this thread

        Raises
        ------
        InputError : if the scan cannot be used; NoLungError if no lung is found in it, QualityError if a check fails
        BalaitousError : if a probability is none
        ValueError : if age or sex make no sense
        MemoryError : if the memory, or the GPU's, is not enough even for one slice at a time
        """
        resolve(Patient(), age=age, sex=sex)  # nonsense is refused before anything is read
        run = run_by(executor)
        watch = Stopwatch()
        with memory_errors(), recorded_warnings() as warnings:
            prepared: Prepared = run(prepare, scan, series, self.strict)
            del scan
            patient = resolve(prepared.ct.patient, age=age, sex=sex)  # steps 1 and 2
            assert patient.age_years is not None
            assert patient.sex is not None

            with self.turn, watch("lung_unet"):
                labels = label_crops(prepared.body.crops, *self.network("lung_unet"))  # step 4
            view: LungView = run(view_lungs, prepared, labels, self.strict)  # steps 4 to 8
            with self.turn:
                with watch("features_full"):
                    full = scan_features(view.image, *self.network("encoder_full"))  # steps 9 and 10
                with watch("features_lung"):
                    masked = np.where(view.mask, view.image, view.image.dtype.type(AIR_HU))  # step 11
                    lung = scan_features(masked, *self.network("encoder_lung"))  # step 12
            features = {"full": full, "lung": lung}
            probabilities = self.heads.probabilities(features, patient.age_years, patient.sex)  # steps 13 and 14
            probabilities |= {name: float(each(probabilities[name])) for name, each in self.calibrations.items()}
        return Prediction(
            name=prepared.ct.name,
            path=prepared.ct.path,
            input_sha256=prepared.input_sha256,
            series_uid=prepared.ct.series_uid,
            probability_covid=probabilities["covid"],
            probability_severe=probabilities["severe"],
            probabilities=probabilities,
            patient=patient,
            spacing_mm=prepared.spacing_mm,
            slices=prepared.slices,
            lung_volume_litres=view.volume_litres,
            image=view.image,
            mask=view.mask,
            features=features,
            provenance=self.provenance,
            seconds={**prepared.seconds, "lung_view": view.seconds, **watch.seconds},
            checks=view.checks,
            warnings=(*self.warnings, *warnings),
        )

    def network(self, name: str) -> tuple[Network, Chunker]:
        """A network of the bundle and how many slices it takes at a time.

        On a CPU a large one is mapped from its file when it is needed, which takes a tenth of a second, and let go
        afterwards, so that only one at a time takes memory.
        """
        return self.kept.get(name) or self.load(name), self.chunkers[name]


def run_by(executor: Executor | None) -> Callable[..., Any]:
    """What makes a call and waits for it: the executor, or this thread where there is none."""

    def run(function: Callable[..., Result], *arguments: Any) -> Result:
        return function(*arguments) if executor is None else executor.submit(function, *arguments).result()

    return run


def load_network(bundle: Bundle, name: str, device: torch.device, dtype: torch.dtype) -> TorchNetwork:
    """A network of the bundle, ready to run."""
    record = bundle.networks[name]
    state = bundle.load_state(name)  # the slowest first: networks are loaded side by side
    network = build_network(record.architecture, source=str(bundle.folder / record.file))
    load_strictly(network, state, source=str(bundle.folder / record.file))
    return ready(network, device, dtype)


def is_small(network: Network) -> bool:
    """Whether a network may stay in memory: a small one, or one in int8."""
    if not isinstance(network, TorchNetwork):
        return True
    return sum(each.nbytes for each in network.module.state_dict().values()) <= KEPT_BYTES
