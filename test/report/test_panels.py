"""A sheet shows its panels pixel by pixel, and cuts no text off."""

import numpy as np
import pytest

from balaitous.report.panels import LARGEST_PANEL, PanelRow, sheet

LONG = "Axial slice 33 of 58, counted from the feet; lung window, level −600 HU, width 1500 HU. " * 3


def panel(height, width, seed):
    return np.random.default_rng(seed).integers(1, 254, (height, width, 3), np.uint8)


def places(whole, part):
    """Where a panel lies in a sheet."""
    height, width = part.shape[:2]
    found = np.argwhere((whole[:, :, :] == part[0, 0]).all(axis=2))
    return [(y, x) for y, x in found if np.array_equal(whole[y : y + height, x : x + width], part)]


@pytest.mark.parametrize("size", [(64, 80), (300, 200), (40, 500)])
def test_every_panel_is_there_pixel_by_pixel_in_its_row_and_column(size):
    panels = [[panel(*size, 10 * row + column) for column in range(3)] for row in range(2)]
    whole = sheet(["slice", "map", "overlay"], [PanelRow("a row", each) for each in panels], LONG, "share")
    found = np.array([[places(whole, each) for each in row] for row in panels])
    assert found.shape == (2, 3, 1, 2)
    assert (np.diff(found[:, :, 0, 1], axis=1) >= size[1]).all()
    assert (np.diff(found[:, :, 0, 0], axis=0) >= size[0]).all()


def test_no_text_touches_the_rim_however_small_the_panels():
    whole = sheet(["a title of some length"] * 5, [PanelRow("a label of length " * 9, [panel(20, 20, 0)] * 5)], LONG)
    assert (whole[:8] == 255).all()
    assert (whole[-8:] == 255).all()
    assert (whole[:, -8:] == 255).all()
    assert (whole[:, :8] == 255).all()


def test_larger_pictures_are_made_smaller_without_changing_their_shape():
    whole = sheet(["slice"], [PanelRow("", [np.zeros((1500, 3 * LARGEST_PANEL, 3), np.uint8)])], "")
    dark = (whole == 0).all(axis=2)
    assert dark.any(axis=0).sum() == LARGEST_PANEL
    assert dark.all(axis=1).sum() == 0
    assert dark[:, 30].sum() == 500
