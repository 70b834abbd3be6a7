"""A map over a picture: of its size, clear where nothing is, outlined at half its maximum."""

import numpy as np
import pytest

from balaitous.report.overlays import as_colour, overlay, scaled
from balaitous.report.style import coloured

GREY = np.linspace(0, 1, 48 * 40).reshape(48, 40)


def test_where_the_map_is_nothing_the_picture_is_unchanged():
    assert np.array_equal(overlay(GREY, np.zeros_like(GREY)), as_colour(GREY))
    assert as_colour(GREY).shape == (48, 40, 3)


def test_what_is_at_least_half_is_outlined_and_coloured_inside():
    shares = np.zeros_like(GREY)
    shares[10:30, 10:30] = 1
    seen = overlay(GREY, shares)
    assert (seen[10, 10:30] == 255).all()
    assert (seen[9, 10:30] == 0).all()
    inside = 0.4 * as_colour(GREY)[15, 15] + 0.6 * coloured(np.ones(1))[0]
    assert np.abs(seen[15, 15] - inside).max() <= 1
    assert np.array_equal(seen[40:], as_colour(GREY)[40:])


def test_a_map_is_scaled_to_its_maximum_and_nothing_stays_nothing():
    assert scaled(np.array([[0, 2.0], [4, 1]])).tolist() == [[0, 0.5], [1, 0.25]]
    assert not scaled(np.zeros((2, 2))).any()


def test_a_map_of_another_size_is_refused():
    with pytest.raises(ValueError, match=r"the picture's size \(48, 40\)\. Got \(40, 48\) instead"):
        overlay(GREY, GREY.T)
