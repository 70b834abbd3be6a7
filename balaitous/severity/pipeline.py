"""The CT severity method (Balaitous): a chest CT in, the probabilities of COVID-19 and of a severe outcome out.

Steps and numbers are those of the published package ``balaitous`` 1.2.

References
----------
Lassau et al. 2021, doi:10.1038/s41467-020-20657-4. STOIC challenge: Boulogne et al. 2023, arXiv:2306.10484.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import balaitous
from balaitous.ct.lungs import AIR_HU, lung_view, segment_lungs
from balaitous.ct.patient import Patient, resolve
from balaitous.ct.volume import CT, SPACING_MM, read_ct, resample
from balaitous.errors import NoLungError
from balaitous.networks.loading import build_network, load_strictly
from balaitous.networks.runtime import Chunker, choose_device, choose_precision, default_chunk
from balaitous.severity.features import scan_features
from balaitous.severity.heads import Heads, age_feature
from balaitous.weights.bundle import Bundle, find_bundle, open_bundle

log = logging.getLogger(__name__)

VOXEL_LITRES = float(np.prod(SPACING_MM)) / 1e6


@dataclass(frozen=True)
class Provenance:
    """What made a prediction."""

    version: str
    torch_version: str
    bundle: str
    bundle_sha256: str
    intended_use: str
    demonstration: bool
    device: str
    precision: str


@dataclass(frozen=True)
class Prediction:
    """What the model says of one scan, from what, and how it came to it.

    Attributes
    ----------
    name, path, series_uid : of the scan; the UID for DICOM only
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
    """

    name: str
    path: str
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

    def to_dict(self) -> dict[str, Any]:
        """All but the arrays, ready for JSON."""
        return {
            "name": self.name,
            "path": self.path,
            "series_uid": self.series_uid,
            "probability_covid": self.probability_covid,
            "probability_severe": self.probability_severe,
            "probabilities": dict(self.probabilities),
            **asdict(self.patient),
            "spacing_mm": list(self.spacing_mm),
            "slices": self.slices,
            "slices_used": len(self.image),
            "lung_volume_litres": round(self.lung_volume_litres, 4),
            "seconds": {stage: round(seconds, 3) for stage, seconds in self.seconds.items()},
            "provenance": asdict(self.provenance),
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
    precision : "auto", "fp32", "fp16" or "bf16"

    Raises
    ------
    WeightsError : if the weights are missing or not what they claim to be
    ValueError : if device or precision cannot be had
    """

    def __init__(
        self,
        weights: str | Path | None = None,
        device: str | torch.device | None = None,
        precision: str = "auto",
    ) -> None:
        self.device = choose_device(device)
        self.precision, dtype = choose_precision(precision, self.device)
        self.bundle = open_bundle(find_bundle(weights))
        self.lung_unet = load_network(self.bundle, "lung_unet", self.device, dtype)
        self.encoder_full = load_network(self.bundle, "encoder_full", self.device, dtype)
        self.encoder_lung = load_network(self.bundle, "encoder_lung", self.device, dtype)
        self.heads = Heads(self.bundle.load_heads())
        self.chunker = Chunker(default_chunk(self.device))
        self.provenance = Provenance(
            version=balaitous.__version__,
            torch_version=torch.__version__,
            bundle=self.bundle.name,
            bundle_sha256=self.bundle.sha256,
            intended_use=self.bundle.intended_use,
            demonstration=self.bundle.demonstration,
            device=str(self.device),
            precision=self.precision,
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
    ) -> Prediction:
        """Predict one scan.

        Parameters
        ----------
        scan : an image file, a DICOM folder or zip, or a CT that `read_ct` returned
        age : in years; None: from the scan's header or side-car, else 65
        sex : 1 or "M" male, 0 or "F" female, 0.5 unknown; None: from the scan's header or side-car, else 0.5
        series : SeriesInstanceUID, for a DICOM folder with several

        Raises
        ------
        InputError : if the scan cannot be used; NoLungError if no lung is found in it
        ValueError : if age or sex make no sense
        """
        watch = Stopwatch()
        with watch("read"):
            ct = scan if isinstance(scan, CT) else read_ct(scan, series=series)
        patient = resolve(ct.patient, age=age, sex=sex)  # steps 1 and 2
        assert patient.age_years is not None
        assert patient.sex is not None
        spacing_mm, slices = ct.spacing_mm, len(ct.hu)
        what = f"{ct.name} ({slices} slices, {ct.hu.min()}…{ct.hu.max()} HU)"

        with watch("resample"):
            del scan  # the native volume is the largest thing in memory: let it go once it is resampled
            ct = resample(ct, SPACING_MM)  # step 3
        with watch("lungs"):
            labels = segment_lungs(ct.hu, self.label_slices)  # step 4
            try:
                image, mask, lung_voxels = lung_view(*upright(ct, labels))  # steps 5 to 8
            except NoLungError as error:
                raise NoLungError(f"{error} in {what}. Is it a chest CT in Hounsfield units?") from None
        with watch("features_full"):
            full = scan_features(image, self.encoder_full, self.chunker)  # steps 9 and 10
        with watch("features_lung"):
            masked = np.where(mask, image, image.dtype.type(AIR_HU))  # step 11
            lung = scan_features(masked, self.encoder_lung, self.chunker)  # step 12
        features = {"full": full, "lung": lung}
        probabilities = self.heads.probabilities(features, patient.age_years, patient.sex)  # steps 13 and 14
        return Prediction(
            name=ct.name,
            path=ct.path,
            series_uid=ct.series_uid,
            probability_covid=probabilities["covid"],
            probability_severe=probabilities["severe"],
            probabilities=probabilities,
            patient=patient,
            spacing_mm=spacing_mm,
            slices=slices,
            lung_volume_litres=lung_voxels * VOXEL_LITRES,
            image=image,
            mask=mask,
            features=features,
            provenance=self.provenance,
            seconds=watch.seconds,
        )

    @torch.inference_mode()
    def label_slices(self, inputs: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Lung labels (B, 256, 256) of U-Net inputs (B, 256, 256) in [0, 1]."""
        weight = self.lung_unet.last.weight

        def label(chunk: slice) -> NDArray[np.uint8]:
            batch = torch.from_numpy(inputs[chunk]).to(weight.device, weight.dtype)
            return self.lung_unet(batch[:, None]).argmax(1).to(torch.uint8).cpu().numpy()

        return np.concatenate(list(self.chunker.run(len(inputs), label)))


def upright(ct: CT, labels: NDArray[np.uint8]) -> tuple[NDArray, NDArray[np.uint8]]:
    """Volume and labels flipped along Y (step 5), as views.

    The published package never re-orients the image, it only turns the stored array upside down. A scan that was stored
    back to front in Y is then already the right way up, and cropping and padding fall on the same voxels as there.
    """
    if ct.reversed_axes[1]:
        return ct.hu, labels
    return ct.hu[:, ::-1], labels[:, ::-1]


def load_network(bundle: Bundle, name: str, device: torch.device, dtype: torch.dtype) -> Any:
    """A network of the bundle, ready to run."""
    record = bundle.networks[name]
    network = build_network(record.architecture)
    load_strictly(network, bundle.load_state(name), source=str(bundle.folder / record.file))
    # channels last: convolutions of small images run 1.5 to 6 times as fast on a CPU; other layers do not care
    return network.to(device, dtype).to(memory_format=torch.channels_last).eval().requires_grad_(False)


class Stopwatch:
    """Wall-clock seconds of named stages."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[stage] = time.perf_counter() - start
