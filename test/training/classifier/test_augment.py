"""Augmentation: each step does what its name says, and the seed decides."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from balaitous.training.classifier.augment import STEPS, AugmentSettings, augment

ALL = AugmentSettings(0.5, (0.8, 1.2), 0.1, 5, 2, 0.05, 0.2, 0.1, 0.1, 0.05)
NONE = AugmentSettings(flip=0)


@pytest.fixture
def pictures():
    return torch.rand(5, 24, 20, generator=torch.Generator().manual_seed(0))


def test_nothing_changes_where_every_step_is_left_out(pictures):
    assert torch.equal(augment(pictures, NONE, np.random.default_rng(0)), pictures)


def test_the_seed_decides(pictures):
    one, same, other = (augment(pictures, ALL, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


@settings(max_examples=25)
@given(st.integers(0, 2**32 - 1))
def test_pictures_stay_pictures(seed):
    pictures = torch.rand(2, 16, 16, generator=torch.Generator().manual_seed(3))
    found = augment(pictures, ALL, np.random.default_rng(seed))
    assert found.shape == pictures.shape
    assert 0 <= found.min() <= found.max() <= 1


def test_flip_mirrors_left_for_right(pictures):
    assert torch.equal(augment(pictures, AugmentSettings(flip=1), np.random.default_rng(0)), pictures.flip(-1))
    some = augment(pictures, AugmentSettings(flip=0.5), np.random.default_rng(0))
    kinds = {torch.equal(a, b): None for a, b in zip(some, pictures, strict=True)}
    assert set(kinds) == {True, False}


def test_zoom_makes_what_is_in_the_middle_larger():
    square = torch.zeros(1, 64, 64)
    square[:, 24:40, 24:40] = 1
    found = augment(square, AugmentSettings(flip=0, zoom=(2.0, 2.0)), np.random.default_rng(0))
    assert found.sum() == pytest.approx(4 * 256, rel=0.05)
    assert found[0, 32, 32] == 1


def test_shear_stays_within_its_angle_and_rotation_keeps_areas():
    square = torch.zeros(1, 64, 64)
    square[:, 24:40, 24:40] = 1
    for how in (AugmentSettings(flip=0, shear_degrees=10), AugmentSettings(flip=0, rotate_degrees=20)):
        found = augment(square, how, np.random.default_rng(4))
        assert not torch.equal(found, square)
        assert found.sum() == pytest.approx(256, rel=0.05)


def test_grey_levels_keep_the_order_of_greys(pictures):
    found = augment(
        pictures, AugmentSettings(flip=0, gamma=0.3, contrast=0.1, brightness=0.05), np.random.default_rng(1)
    )
    for before, after in zip(pictures.flatten(1), found.flatten(1), strict=True):
        assert (after[before.argsort()].diff() >= -1e-6).all()
    assert not torch.equal(found, pictures)


def test_steps_have_names():
    assert list(STEPS) == ["flip", "geometry", "grey levels", "noise"]
