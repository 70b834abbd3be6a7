"""Hounsfield units as pictures, and which slices of a CT show lungs."""

import numpy as np
import pytest

from balaitous.ct.lungs import AIR_HU
from balaitous.ct.volume import read_ct
from balaitous.slices.hounsfield import lung_slices, lung_window, stored_hu
from helpers import PHANTOM
from helpers.slices import phantom_slice


def test_the_lung_window_is_level_600_below_zero_and_1500_wide():
    hu = np.array([-2000, -1350, -600, 150, 900])
    assert lung_window(hu).tolist() == [0, 0, 0.5, 1, 1]


def test_hounsfield_units_survive_being_stored_as_a_picture():
    hu = phantom_slice()
    stored = (hu.astype(np.int32) + 1024).astype(np.uint16)
    found = stored_hu(stored, 16)
    assert found is not None
    assert np.array_equal(found, hu)


@pytest.mark.parametrize(
    "change",
    [
        lambda stored: (stored * 0.8).astype(np.uint16),
        lambda stored: stored * 16,
        lambda stored: stored + 300,
        lambda stored: np.minimum(stored, 500),
        lambda stored: np.zeros_like(stored),
    ],
)
def test_other_numbers_of_16_bits_are_not_taken_for_hounsfield_units(change):
    stored = (phantom_slice().astype(np.int32) + 1024).astype(np.uint16)
    assert stored_hu(change(stored).astype(np.uint16), 16) is None


def test_eight_bits_and_colours_are_not_taken_for_hounsfield_units():
    stored = (phantom_slice().astype(np.int32) + 1024).astype(np.uint16)
    assert stored_hu(stored, 8) is None
    assert stored_hu(np.dstack([stored] * 3), 16) is None


def test_the_slices_that_show_the_phantoms_lungs_are_found():
    ct = read_ct(PHANTOM)
    found = lung_slices(ct.hu)
    assert 20 <= len(found) < len(ct.hu)
    assert (np.diff(found) == 1).all()


def test_a_volume_cut_to_its_lungs_keeps_them():
    ct = read_ct(PHANTOM)
    whole = lung_slices(ct.hu)
    middle = ct.hu[whole[len(whole) // 2]]
    rows, columns = (np.flatnonzero((middle > AIR_HU + 100).any(axis=axis)) for axis in (1, 0))
    cut = ct.hu[whole[0] : whole[-1], rows[len(rows) // 4] : rows[-len(rows) // 4], columns[12] : columns[-12]]
    assert len(lung_slices(cut)) > 0.6 * len(cut)


def test_no_lung_is_found_where_there_is_none():
    assert len(lung_slices(np.full((3, 64, 64), 40, np.int16))) == 0
    assert len(lung_slices(np.full((3, 64, 64), AIR_HU, np.int16))) == 0
