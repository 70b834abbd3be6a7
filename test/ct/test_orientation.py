"""Whether the picture lies as its header says: a phantom in all 24 orientations, parts of one, and what is no chest."""

import sys
from dataclasses import replace
from itertools import permutations, product

import numpy as np
import pytest

from balaitous.checks import QualityError, check_value
from balaitous.ct.grid import Grid, StoredOrder
from balaitous.ct.lungs import LEFT, RIGHT
from balaitous.ct.orientation import CHEST, correlation, cut_share, enclosed_air, orientation_margins
from balaitous.ct.quality_limits import LIMITS
from balaitous.ct.volume import SPACING_MM, read_ct, resample
from balaitous.severity.preparation import prepare, view_lungs
from balaitous.synthetic.phantom import make_phantom
from helpers import ROOT
from helpers.phantoms import with_hu

sys.path.insert(0, str(ROOT / "tools"))
from make_chest import PHANTOMS, mean_chest

NAMES = ("axial_slices", "back_behind", "head_above")
LYING = [
    (axes, down, front) for axes in permutations(range(3)) for down, front in product((False, True), repeat=2)
]  # each an orientation of 24, or its mirror image


@pytest.fixture(scope="module")
def chest():
    """None of those that the picture of a chest is made of."""
    return make_phantom(5, spacing_mm=(3.0, 3.0, 5.0))


def lying(ct, axes, upside_down=False, front_behind=False, mirrored=False):
    """The voxels in another order under a header that calls them axial; their spacing goes with them."""
    hu = ct.hu.transpose(axes)
    hu = hu[:: -1 if upside_down else 1, :: -1 if front_behind else 1, :: -1 if mirrored else 1]
    spacing = ct.grid.spacing_mm[::-1]
    x, y, z = (spacing[axis] for axis in reversed(axes))
    return replace(ct, hu=np.ascontiguousarray(hu), grid=Grid(hu.shape, (x, y, z)), stored=StoredOrder())


def statuses(ct, labels=None):
    ct = resample(ct, SPACING_MM)
    labels = np.zeros(ct.hu.shape, np.uint8) if labels is None else labels
    margins = orientation_margins(ct.hu, labels, ct.grid.spacing_mm)
    return {name: check_value(name, value, LIMITS[name]).status for name, value in zip(NAMES, margins, strict=True)}


@pytest.mark.parametrize(("axes", "upside_down", "front_behind"), LYING)
def test_a_chest_in_any_orientation_is_told_how_it_lies(chest, axes, upside_down, front_behind):
    expected = dict.fromkeys(NAMES, "ok")
    if axes[0] != 0:
        expected["axial_slices"] = "fail"
    elif axes[1] != 1 or front_behind:
        expected["back_behind"] = "warn"
    found = statuses(lying(chest.ct, axes, upside_down, front_behind))
    if axes[0] == 0:
        expected["head_above"] = "warn" if upside_down else "ok"
    assert found == expected


def test_a_mirror_image_is_not_told(chest):
    assert set(statuses(lying(chest.ct, (0, 1, 2), mirrored=True)).values()) == {"ok"}


@pytest.mark.parametrize("spacing_mm", [(1.0, 1.0, 1.0), (3.0, 3.0, 5.0)])
def test_sagittal_slices_are_told_by_any_spacing(chest, spacing_mm):
    """An array of nibabel, (X, Y, Z), handed to SimpleITK, which expects (Z, Y, X)."""
    hu = chest.ct.hu.transpose(2, 1, 0)
    handed_over = replace(with_hu(chest.ct, hu), grid=Grid(hu.shape, spacing_mm))
    assert statuses(handed_over)["axial_slices"] == "fail"


@pytest.mark.parametrize("part", [slice(None, 20), slice(24, 40), slice(30, None), slice(30, 33)])
def test_a_part_of_a_chest_is_not_warned_of(chest, part):
    assert set(statuses(with_hu(chest.ct, chest.ct.hu[part])).values()) == {"ok"}


@pytest.mark.parametrize("lost", [RIGHT, LEFT])
def test_a_chest_with_one_lung_filled_is_not_refused(chest, lost):
    one = with_hu(chest.ct, np.where(chest.lungs == lost, 40, chest.ct.hu).astype(np.int16))
    assert statuses(one)["axial_slices"] == "ok"


def test_lungs_that_only_the_network_sees_count_as_lungs(chest):
    """Filled with 20 HU, both: nothing but their labels is left of them."""
    ct = resample(chest.ct, (3.0, 3.0, 5.0))
    white = np.where(chest.lungs > 0, 20, ct.hu).astype(np.int16)
    nothing = orientation_margins(white, np.zeros_like(chest.lungs), ct.grid.spacing_mm)
    assert nothing[0] is None or nothing[0] > LIMITS["axial_slices"].ok[0]
    assert orientation_margins(white, chest.lungs, ct.grid.spacing_mm)[0] > LIMITS["axial_slices"].ok[0]


def test_empty_slices_at_either_end_are_not_the_ends_of_the_body(chest):
    padded = np.pad(chest.ct.hu, ((6, 9), (0, 0), (0, 0)), constant_values=-1024)
    assert cut_share(padded.astype(np.float32)) == cut_share(chest.ct.hu.astype(np.float32)) > 0.1
    assert cut_share(np.full((4, 5, 6), -1000, np.float32)) == 0


def test_air_around_the_patient_is_not_inside_him(chest):
    largest, all_ = enclosed_air(chest.ct.hu.astype(np.float32))
    lungs = chest.lungs > 0
    for found in (largest, all_):
        assert np.count_nonzero(found & lungs) / np.count_nonzero(found) > 0.9
    assert np.count_nonzero(all_ & lungs) > 0.6 * np.count_nonzero(lungs)


def test_where_no_lung_is_nothing_is_said(chest):
    tissue = np.full(chest.ct.hu.shape, 40, np.int16)
    assert orientation_margins(tissue, np.zeros_like(chest.lungs), (3.0, 3.0, 5.0)) == (None, None, None)


def test_what_does_not_vary_is_like_nothing():
    assert correlation(np.ones((2, 3)), np.arange(6.0).reshape(2, 3)) == 0
    assert correlation(np.arange(6.0), -np.arange(6.0)) == pytest.approx(-1)


def test_the_picture_of_a_chest_is_that_of_phantoms_and_the_same_left_and_right():
    stored = np.load(CHEST, allow_pickle=False)
    assert np.array_equal(stored, stored[:, :, ::-1])
    assert correlation(stored.astype(float), mean_chest(PHANTOMS[:1]).astype(float)) > 0.85


def test_slices_that_are_not_axial_are_refused_on_the_way_to_the_encoders(chest):
    prepared = prepare(lying(chest.ct, (2, 0, 1), upside_down=True))
    crops = prepared.body.crops
    as_if_found = ((crops > -950) & (crops < -600)).astype(np.uint8)
    with pytest.raises(QualityError, match="the slices are not axial, whatever the header says"):
        view_lungs(prepared, as_if_found)


@pytest.mark.data
@pytest.mark.parametrize(
    "scan", ["ct/normal_001_5mm.mha", "ct_volumes/lidc_0002_slab.nii.gz", "ct_volumes/rider_0109.nii.gz"]
)
def test_the_real_scans_nearest_to_the_limits_are_not_warned_of_as_they_are(data, scan):
    """The narrowest field of view, the thinnest slab, and one lung that holds no air."""
    assert set(statuses(read_ct(data / scan)).values()) == {"ok"}
