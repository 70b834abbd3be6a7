"""What the slices model shows of an item: the maps of every output beside the slice, and COVID-19's map over it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from balaitous.report.case import Shown
from balaitous.report.overlays import OUTLINE, as_colour, overlay, scaled
from balaitous.report.panels import PanelRow, sheet
from balaitous.report.style import DISCLAIMER, coloured, window_name, with_marks
from balaitous.slices.hounsfield import LUNG_WINDOW_HU
from balaitous.slices.lesions import COVID, OUTPUTS
from balaitous.slices.pipeline import SliceClassifier, SlicePrediction
from balaitous.text import printable

SIDES_OF_CT = ("R", "L")  # an axial slice in LPS: the patient's right lies to the left
MAPS = "maps.png"
OVERLAY = "overlay.png"
PNG_EFFORT = 3  # of 9: a third of the time that 6 takes, for 4 % more bytes
NAME_LETTERS = 24  # of a bundle that fits above a panel


def save(prediction: SlicePrediction, folder: Path, beside: SliceClassifier | None = None) -> tuple[Shown, ...]:
    """Write ``maps.png`` and ``overlay.png`` of an item.

    Parameters
    ----------
    prediction : of a CT, the slice with the highest probability of COVID-19 is shown
    folder : an empty one
    beside : the model with other weights, whose maps of the same slice stand beside

    Returns
    -------
    what was written, the one for the eye first
    """
    predictions = (prediction, *([beside.predict(prediction.grey)] if beside else []))
    maps = [each.maps() for each in predictions]
    where = what_is_seen(prediction)
    shown = (
        Shown(OVERLAY, "Map of COVID-19 over the slice", f"Grad-CAM++ of COVID-19 over {where}. {OUTLINE}"),
        Shown(MAPS, "Maps of every output beside the slice", f"Grad-CAM++ of every output: {where}. {OUTLINE}"),
    )
    write(folder / OVERLAY, marked(prediction, overlay(prediction.grey, scaled(maps[0][COVID]))))
    write(folder / MAPS, maps_sheet(predictions, maps))
    return shown


def maps_sheet(
    predictions: Sequence[SlicePrediction], maps: Sequence[dict[str, NDArray]] | None = None
) -> NDArray[np.uint8]:
    """Slice, map and overlay, a row an output, as one picture (Y, X, 3).

    Parameters
    ----------
    predictions : of one slice by one bundle or several, whose maps stand beside each other
    maps : of each, as `SlicePrediction.maps` makes them; None: they are made

    Raises
    ------
    ValueError : they are not of one slice
    """
    first, *others = predictions
    if any(not np.array_equal(each.grey, first.grey) for each in others):
        raise ValueError("predictions must be of one slice. Got others.")
    maps = maps or [each.maps() for each in predictions]
    names = names_of(predictions)
    titles = ["slice", *(", ".join(filter(None, (what, name))) for name in names for what in ("map", "overlay"))]
    rows = []
    for output, label in OUTPUTS.items():
        panels = [marked(first, as_colour(first.grey))]
        told = []
        for each, own, name in zip(predictions, maps, names, strict=True):
            shares = scaled(own[output])
            panels += [coloured(shares), overlay(first.grey, shares)]
            probability = each.slice_probabilities[each.most_likely, list(OUTPUTS).index(output)]
            nothing = "" if own[output].any() else "nothing speaks for it"
            of = ", ".join(filter(None, (name, nothing)))
            told.append(f"{probability:.3f} ({of})" if of else f"{probability:.3f}")
        rows.append(PanelRow(f"{label}: probability {'; '.join(told)}", panels))
    weights = ", ".join(f"{made.bundle} {made.bundle_sha256[:8]}" for made in (each.provenance for each in predictions))
    caption = (
        f"{what_is_seen(first)}. Maps: Grad-CAM++, where the network found what speaks for an output; each is scaled "
        f"to its own maximum, so that colours compare places, not outputs. {OUTLINE} Weights {printable(weights)}. "
        f"{DISCLAIMER}"
    )
    return sheet(titles, rows, caption[0].upper() + caption[1:], "share of the map's maximum")


def names_of(predictions: Sequence[SlicePrediction]) -> list[str]:
    """What tells the weights apart in titles: nothing where there are but one, else names, and hashes of namesakes."""
    if len(predictions) == 1:
        return [""]
    names = [printable(each.provenance.bundle)[:NAME_LETTERS] for each in predictions]
    if len(set(names)) < len(names):
        names = [f"{name} {each.provenance.bundle_sha256[:8]}" for name, each in zip(names, predictions, strict=True)]
    return names


def what_is_seen(prediction: SlicePrediction) -> str:
    """Which slice it is, in which window."""
    if prediction.kind != "ct":
        return "the picture as it was read"
    most = prediction.most_likely
    return (
        f"axial slice {prediction.indices[most]} of {prediction.slices_in_item}, counted from the feet from 0 (z = "
        f"{f'{prediction.z_mm[most]:.1f}'.replace('-', '−')} mm), the one with the highest probability of COVID-19; "
        f"{window_name('lung', *LUNG_WINDOW_HU)}"
    )


def marked(prediction: SlicePrediction, picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A picture of the slice with a scale bar and the letters of its sides, where these are known."""
    pixel_mm = prediction.spacing_mm[0] if prediction.spacing_mm else None
    return with_marks(picture, pixel_mm, SIDES_OF_CT if prediction.kind == "ct" else None)


def write(path: Path, picture: NDArray[np.uint8]) -> None:
    """A PNG file."""
    Image.fromarray(picture).save(path, format="PNG", compress_level=PNG_EFFORT)
