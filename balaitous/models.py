"""The models of this package, a row each: help, `info`, choices of the command, columns and bundles are driven by it.

Pure data, which imports nothing heavy. A row is JSON, so that it travels to the workers of a cluster: they import what
it names, and need no table of their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Model:
    """What there is to know of a model before it is loaded.

    Attributes
    ----------
    name : also in its bundles
    title : what it does, for people
    reads : the kinds of input, of `balaitous.cohort.items.KINDS`; of a path that is of several, the first that fits
    outputs : what it gives the probability of: name, which makes the column ``probability_<name>``, and how people are
        told it
    bundles : names of the weights that are looked for, in this order: those to be fetched, then the one that comes
        with the package
    where : its class, as "module:name"; `balaitous.cohort.local.Predictor` says what it can do
    given : facts beside the input that its `predict` takes, and columns of a list that are read as such
    columns : its own columns of a table and their types, "str", "int" or "float"
    shown : what people see of a row beside the probabilities: heading, and a format of the row's columns
    preparing : the module that reads and prepares inputs without PyTorch, loaded beforehand by processes of their own;
        "" where inputs are read beside the networks
    quantizing : the function that makes the networks of a bundle int8, as "module:name"; "" if none does
    limits : the limits that its quality checks are held against, as "module:name"; "" if it checks nothing
    same_request : the function that tells whether a row of a table is what an item would get today, as "module:name";
        "" where that depends on nothing but the input's content and the settings
    published : the bundles that can be fetched for it, a mapping by name, as "module:name"; "" if there are none
    checking : the function that refuses a bundle's folder whose parts do not belong together, as "module:name"; ""
        if nothing is to be checked
    saving : the function that writes what can be shown of a prediction, as "module:name"; "" where there is nothing to
        show yet. ``saving(prediction, folder, beside=None)`` fills an empty folder and returns what it wrote, as
        `balaitous.report.case.Shown`, the picture that stands for all first; `beside` is the model with other weights,
        to compare with
    grouped_by : the column of a list by which its rows are brought together in a second table; "" where none does
    counted : what the second table counts, and the column of a row that says how many of them it stands for; the
        probabilities of a row are their means
    citation : the papers and packages that it follows
    good_for : what its answers are good for, and what not
    """

    name: str
    title: str
    reads: tuple[str, ...]
    outputs: Mapping[str, str]
    bundles: tuple[str, ...]
    where: str
    given: tuple[str, ...] = ()
    columns: Mapping[str, str] = field(default_factory=dict)
    shown: Mapping[str, str] = field(default_factory=dict)
    preparing: str = ""
    quantizing: str = ""
    limits: str = ""
    same_request: str = ""
    published: str = ""
    checking: str = ""
    saving: str = ""
    grouped_by: str = ""
    counted: Mapping[str, str] = field(default_factory=dict)
    citation: str = ""
    good_for: str = ""

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    @staticmethod
    def from_dict(row: Mapping[str, Any]) -> Model:
        """The row that `to_dict` told."""
        values: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in row.items()
        }
        return Model(**values)


@dataclass(frozen=True)
class Settings:
    """With what, where and how a model runs: the same for all of them.

    Attributes
    ----------
    weights : a bundle's name or folder; None: as `find_bundle` searches
    device : "auto" (or None), "cpu" or "cuda"
    precision : "auto", "fp32", "fp16", "bf16" or "int8"
    calibrated : apply the bundle's calibration
    strict : refuse what a quality check warns of
    """

    weights: str | Path | None = None
    device: str | None = None
    precision: str = "auto"
    calibrated: bool = False
    strict: bool = False


DEFAULT = "severity"

MODELS: dict[str, Model] = {
    model.name: model
    for model in (
        Model(
            name="severity",
            title="probability of COVID-19 and of a severe outcome from a chest CT",
            reads=("ct",),
            outputs={"covid": "COVID-19", "severe": "severe"},
            bundles=("stoic", "mini"),
            where="balaitous.severity.pipeline:Balaitous",
            given=("age", "sex", "series"),
            columns={
                "series_uid": "str",
                "spacing_x_mm": "float",
                "spacing_y_mm": "float",
                "spacing_z_mm": "float",
                "slices": "int",
                "slices_used": "int",
                "lung_volume_litres": "float",
                "age_years": "float",
                "age_source": "str",
                "sex": "float",
                "sex_source": "str",
                "probability_full_covid": "float",
                "probability_lung_covid": "float",
                "probability_full_severe": "float",
                "probability_lung_severe": "float",
                "seconds_read": "float",
                "seconds_resample": "float",
                "seconds_body_crops": "float",
                "seconds_lung_unet": "float",
                "seconds_lung_view": "float",
                "seconds_features_full": "float",
                "seconds_features_lung": "float",
                "series": "str",
                "other_series": "str",
            },
            shown={
                "lungs (l)": "{lung_volume_litres:.2f}",
                "age": "{age_years:g} ({age_source})",
                "sex": "{sex:g} ({sex_source})",
                "slices": "{slices}",
            },
            preparing="balaitous.severity.preparation",
            quantizing="balaitous.severity.quantize:quantize_bundle",
            limits="balaitous.ct.quality_limits:LIMITS",
            same_request="balaitous.severity.requests:same_request",
            published="balaitous.severity.published:PUBLISHED",
            checking="balaitous.severity.parts:check_parts",
            citation="Lassau et al. 2021, doi:10.1038/s41467-020-20657-4; Jégou, balaitous 1.2; Boulogne et al. 2023, "
            "arXiv:2306.10484 (STOIC 2021)",
            good_for="Fitted on adults with suspected COVID-19 (STOIC 2021). The bundle mini is a demonstration: its "
            "probabilities mean nothing for a patient. Research use only, not for diagnosis.",
        ),
        Model(
            name="slices",
            title="COVID-19 and five kinds of lesion from 2-D CT slices",
            reads=("picture", "ct"),
            outputs={
                "covid": "COVID-19",
                "ggo": "ground-glass opacity",
                "consolidation": "consolidation",
                "crazy_paving": "crazy paving",
                "air_bronchogram": "air bronchogram",
                "septal_thickening": "interlobular septal thickening",
            },
            bundles=("mini-slices",),
            where="balaitous.slices.pipeline:SliceClassifier",
            given=("series",),
            columns={
                "kind": "str",
                "rows": "int",
                "columns": "int",
                "slices": "int",
                "slices_used": "int",
                "probability_covid_max": "float",
                "slice_max": "int",
                "z_max_mm": "float",
                "converted": "str",
                "seconds_read": "float",
                "seconds_prepare": "float",
                "seconds_network": "float",
            },
            shown={"slices": "{slices_used}"},
            preparing="balaitous.slices.preparation",
            limits="balaitous.slices.limits:LIMITS",
            checking="balaitous.slices.parts:check_parts",
            saving="balaitous.slices.pictures:save",
            grouped_by="patient",
            counted={"slices": "slices_used"},
            citation="Liu et al. 2020, medRxiv 2020.05.11.20097907 (LA-DNN)",
            good_for="Trained on slices cut from figures of preprints, whose lesions are those of the captions: it "
            "knows these sources well, other scanners and other pneumonias little. Research use only, not for "
            "diagnosis.",
        ),
    )
}


def find_model(name: str) -> Model:
    """The row of a model.

    Raises
    ------
    ValueError : there is no model of that name
    """
    if name not in MODELS:
        raise ValueError(f"model must be one of {', '.join(MODELS)}. Got {name!r} instead.")
    return MODELS[name]


def imported(where: str) -> Any:
    """What "module:name" stands for."""
    module, _, name = where.partition(":")
    return getattr(import_module(module), name)


def load_model(model: Model, settings: Settings) -> Any:
    """The model, ready to predict.

    Raises
    ------
    WeightsError, ValueError, MemoryError : as its class does
    """
    return imported(model.where)(**vars(settings))
