"""What a bundle of the slices model holds: one classifier."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from balaitous.errors import WeightsError
from balaitous.networks.classifier import CHANNELS, resized, standardised
from balaitous.networks.loading import check_architecture
from balaitous.slices.lesions import OUTPUTS
from balaitous.weights.bundle import BUNDLE_FILE, RESTORE, Bundle, open_bundle
from balaitous.weights.calibration import stored_in

MODEL = "slices"
NETWORK = "classifier"
KIND = "timm"
RANGE = [0, 1]  # of grey
LARGEST_SIDE = 4096  # of the network's input; several times what any backbone was trained at


@dataclass(frozen=True)
class InputRecord:
    """What the classifier sees, as `NetworkRecord.input` has it: grey pictures of one size, standardised.

    Attributes
    ----------
    size : rows, columns
    mean, std : of each channel
    """

    size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def picture(self, grey: Any) -> Tensor:
        """A picture (Y, X) of any size at this one."""
        return resized(grey, self.size)

    def images(self, pictures: Tensor) -> Tensor:
        """Pictures (B, H, W) as the network takes them, (B, 3, H, W)."""
        return standardised(pictures, self.mean, self.std)

    def to_dict(self) -> dict[str, Any]:
        """In the form of JSON."""
        return {"size": [CHANNELS, *self.size], "range": RANGE, "mean": list(self.mean), "std": list(self.std)}

    @staticmethod
    def from_dict(record: Any, *, source: str) -> InputRecord:
        """The record that `to_dict` told; WeightsError if it is none."""
        try:
            channels, rows, columns = (int(each) for each in record["size"])
            mean, std = (tuple(float(each) for each in record[key]) for key in ("mean", "std"))
            if not (
                channels == CHANNELS == len(mean) == len(std)
                and min(rows, columns, *std) > 0
                and max(rows, columns) <= LARGEST_SIDE
            ):
                raise ValueError(f"size {record['size']}, mean {mean}, std {std}")
            if list(record["range"]) != RANGE:
                raise ValueError(f"range {record['range']}")
        except (KeyError, OverflowError, TypeError, ValueError) as error:
            raise WeightsError(
                f"{source}: input must have size [3, rows, columns], range [0, 1], and mean and std of each channel. "
                f"Found others ({error}). {RESTORE}"
            ) from None
        return InputRecord((rows, columns), mean, std)


def open_parts(folder: str | Path) -> Bundle:
    """A bundle of the slices model. Its file is hashed when it is loaded.

    Raises
    ------
    WeightsError : as `open_bundle`; the bundle is another model's, or has not the one classifier with its outputs
    """
    bundle = open_bundle(folder)
    path = bundle.folder / BUNDLE_FILE
    if bundle.model != MODEL:
        raise WeightsError(f"{path}: expected a bundle of the model {MODEL}, found one of {bundle.model}.")
    if set(bundle.networks) != {NETWORK}:
        raise WeightsError(f"{path}: expected the network {NETWORK}, found {', '.join(bundle.networks)}. {RESTORE}")
    record = bundle.networks[NETWORK]
    if record.architecture.get("kind") != KIND:
        raise WeightsError(
            f"{path}: {NETWORK} must be of kind {KIND}. Got {record.architecture.get('kind')!r} instead. {RESTORE}"
        )
    check_architecture(record.architecture, source=f"{path}: {NETWORK}")
    if record.outputs != tuple(OUTPUTS) or record.architecture["outputs"] != len(OUTPUTS):
        raise WeightsError(
            f"{path}: outputs of {NETWORK} must be {', '.join(OUTPUTS)}. Got {', '.join(record.outputs)} "
            f"({record.architecture['outputs']}) instead. {RESTORE}"
        )
    InputRecord.from_dict(record.input, source=f"{path}: {NETWORK}")
    return bundle


def check_parts(folder: str | Path) -> None:
    """Whether a bundle's folder holds what the model needs; its calibration too. WeightsError if not."""
    stored_in(open_parts(folder), OUTPUTS)
