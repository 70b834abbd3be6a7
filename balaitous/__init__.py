"""Probability of COVID-19 and of a severe outcome from a chest CT. Research use only, not for diagnosis."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from balaitous.errors import BalaitousError, InputError, NoLungError, WeightsError

if TYPE_CHECKING:
    from balaitous.ct.volume import read_ct
    from balaitous.severity.pipeline import Balaitous, Prediction
    from balaitous.slices.pipeline import SliceClassifier, SlicePrediction

__version__ = "2.0.0"

__all__ = [
    "Balaitous",
    "BalaitousError",
    "InputError",
    "NoLungError",
    "Prediction",
    "SliceClassifier",
    "SlicePrediction",
    "WeightsError",
    "__version__",
    "read_ct",
]

# Imported when first asked for: `balaitous --help` should not wait for torch, nor training for SimpleITK.
LAZY = {
    "Balaitous": "balaitous.severity.pipeline",
    "Prediction": "balaitous.severity.pipeline",
    "SliceClassifier": "balaitous.slices.pipeline",
    "SlicePrediction": "balaitous.slices.pipeline",
    "read_ct": "balaitous.ct.volume",
}


def __getattr__(name: str) -> Any:
    if name in LAZY:
        return getattr(import_module(LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
