"""The phantom and its opacities: reproducible, anatomically plausible, lesions of the volume that was asked for."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from balaitous.ct.volume import read_ct
from balaitous.synthetic.opacities import add_effusion, add_opacities
from balaitous.synthetic.phantom import Phantom, main, make_phantom
from helpers import PHANTOM

COARSE_MM = (4.0, 4.0, 8.0)
VOXEL_ML = 4.0 * 4.0 * 8.0 / 1000


@pytest.fixture(scope="module")
def phantom() -> Phantom:
    return make_phantom(11, spacing_mm=COARSE_MM, lesion_ml=300)


def test_the_same_seed_gives_the_same_voxels(phantom):
    again = make_phantom(11, spacing_mm=COARSE_MM, lesion_ml=300)
    assert np.array_equal(again.ct.hu, phantom.ct.hu)
    assert np.array_equal(again.lungs, phantom.lungs)
    assert np.array_equal(again.lesions, phantom.lesions)


def test_another_seed_gives_another_chest(phantom):
    other = make_phantom(12, spacing_mm=COARSE_MM, lesion_ml=300)
    assert other.lung_ml != phantom.lung_ml


@settings(max_examples=8)
@given(seed=st.integers(0, 2**31), lesion_ml=st.floats(0, 900))
def test_lesions_have_the_volume_asked_for_and_lie_in_plausible_lungs(seed, lesion_ml):
    phantom = make_phantom(seed, spacing_mm=COARSE_MM, lesion_ml=lesion_ml)
    assert phantom.lesion_ml == pytest.approx(min(lesion_ml, 0.95 * phantom.lung_ml), abs=VOXEL_ML)
    assert not (phantom.lesions & (phantom.lungs == 0)).any()
    assert 1200 < phantom.lung_ml < 9000
    left, right = (phantom.lungs == 2).sum(), (phantom.lungs == 1).sum()
    assert 0.5 < left / right < 1.6
    aerated = phantom.ct.hu[(phantom.lungs > 0) & ~phantom.lesions]
    assert -920 < np.median(aerated) < -700


def test_the_right_lung_lies_at_small_x_and_the_apex_on_top(phantom):
    _, _, x = np.nonzero(phantom.lungs == 1)
    _, _, x_left = np.nonzero(phantom.lungs == 2)
    assert x.max() < phantom.lungs.shape[2] * 0.6 < x_left.max()
    area = (phantom.lungs > 0).sum(axis=(1, 2))
    with_lung = np.flatnonzero(area)
    assert area[with_lung[-1]] < 0.4 * area.max()
    assert with_lung[0] > 0
    assert with_lung[-1] < len(area) - 1


def test_tissues_have_their_hounsfield_units(phantom):
    hu = phantom.ct.hu
    assert hu.dtype == np.int16
    assert hu.min() >= -1024
    assert np.median(hu[:, :3]) < -900  # air in front of the chest
    assert (hu > 300).sum() * VOXEL_ML > 50  # bone
    assert (np.abs(hu - 50) < 60).sum() * VOXEL_ML > 1000  # muscle, blood, liver


def test_spacing_and_size_are_those_asked_for():
    phantom = make_phantom(3, spacing_mm=(5.0, 4.0, 10.0), size=(70, 60, 25))
    assert phantom.ct.hu.shape == phantom.lungs.shape == phantom.lesions.shape == (25, 60, 70)
    assert phantom.ct.grid.spacing_mm == (5.0, 4.0, 10.0)


def test_opacities_leave_what_is_outside_the_lungs_and_raise_hu_inside(phantom):
    clean = make_phantom(11, spacing_mm=COARSE_MM)
    hu, mask = add_opacities(
        clean.ct.hu, clean.lungs, np.random.default_rng(5), volume_ml=400, spacing_mm=COARSE_MM, consolidation=1.0
    )
    assert np.array_equal(hu[~mask], clean.ct.hu[~mask])
    assert (hu[mask] >= clean.ct.hu[mask]).all()
    assert not (mask & (clean.lungs == 0)).any()
    assert mask.sum() * VOXEL_ML == pytest.approx(400, abs=VOXEL_ML)
    assert np.percentile(hu[mask], 90) > -150  # consolidated cores
    assert np.median(hu[mask]) > np.median(clean.ct.hu[clean.lungs > 0]) + 300


def test_ground_glass_stays_between_lung_and_consolidation():
    clean = make_phantom(4, spacing_mm=COARSE_MM)
    hu, mask = add_opacities(
        clean.ct.hu, clean.lungs, np.random.default_rng(1), volume_ml=300, spacing_mm=COARSE_MM, consolidation=0.0
    )
    assert -760 < np.median(hu[mask]) < -300


def test_no_lung_or_no_volume_changes_nothing(phantom):
    rng = np.random.default_rng(0)
    for lungs, volume_ml in ((np.zeros_like(phantom.lungs), 100.0), (phantom.lungs, 0.0)):
        hu, mask = add_opacities(phantom.ct.hu, lungs, rng, volume_ml=volume_ml, spacing_mm=COARSE_MM)
        assert np.array_equal(hu, phantom.ct.hu)
        assert not mask.any()


def test_an_effusion_fills_the_back_of_one_lung():
    clean = make_phantom(6, spacing_mm=COARSE_MM)
    hu, mask = add_effusion(clean.ct.hu, clean.lungs, np.random.default_rng(2), share=0.3, label=2)
    assert mask.sum() == pytest.approx(0.3 * (clean.lungs == 2).sum(), rel=0.05)
    assert not mask[clean.lungs != 2].any()
    assert np.argwhere(mask)[:, 1].mean() > np.argwhere(clean.lungs == 2)[:, 1].mean()
    assert -60 < np.median(hu[mask]) < 60


def test_the_command_writes_a_ct_that_reads_back_the_same(tmp_path: Path, monkeypatch):
    out = tmp_path / "phantom.mha"
    spacing = [str(each) for each in COARSE_MM]
    monkeypatch.setattr("sys.argv", ["phantom", "--seed", "9", "--out", str(out), "--spacing", *spacing])
    main()
    expected = make_phantom(9, spacing_mm=COARSE_MM, lesion_ml=600, age_years=62, sex=1)
    ct = read_ct(out)
    assert np.array_equal(ct.hu, expected.ct.hu)
    assert ct.patient == expected.ct.patient


def test_the_committed_phantom_is_the_one_its_command_makes():
    committed = read_ct(PHANTOM)
    made = make_phantom(7, spacing_mm=(2.5, 2.5, 5.0), lesion_ml=600, age_years=62, sex=1)
    assert committed.hu.shape == made.ct.hu.shape
    # Other processors may round a voxel in a thousand to the next HU.
    assert np.mean(committed.hu != made.ct.hu) < 0.01
    assert committed.patient == made.ct.patient
    assert made.lesion_ml == pytest.approx(600, abs=0.1)
