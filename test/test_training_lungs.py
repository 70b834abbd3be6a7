"""Training of the lung U-Net: labels, augmentation, and a short run that learns and resumes exactly."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from balaitous.ct.lungs import UNET_GRID, body_box, body_crops
from balaitous.ct.phantom import make_phantom
from balaitous.networks.unet import UNet
from balaitous.severity.features import windowed
from balaitous.training.lung_cases import (
    IGNORE,
    LungCase,
    load_cases,
    pseudo_labels,
    save_cases,
    split_sides,
    with_disease,
)
from balaitous.training.lungs import (
    augment_geometry,
    dice,
    draw_slice,
    evaluate_lungs,
    swap_sides,
    train_lungs,
    unet_loss,
)

SPACING_MM = (4.0, 4.0, 10.0)


def tiny_case(seed: int, real: bool) -> LungCase:
    phantom = make_phantom(seed, spacing_mm=SPACING_MM)
    return LungCase(f"case_{seed}", phantom.ct.hu, phantom.lungs, SPACING_MM, real)


@pytest.fixture(scope="module")
def cases() -> list[LungCase]:
    return [tiny_case(21, True), tiny_case(22, False)]


# --- labels


def test_pseudo_labels_find_the_lungs_of_a_phantom():
    phantom = make_phantom(5, spacing_mm=(2.0, 2.0, 5.0))
    labels = pseudo_labels(phantom.ct.hu, phantom.ct.spacing_mm)
    assert set(np.unique(labels)) <= {0, 1, 2, IGNORE}
    found = dice(np.where(labels == IGNORE, 0, labels), phantom.lungs)
    assert found["right"] > 0.93
    assert found["left"] > 0.93


def test_lungs_that_touch_are_split_into_right_and_left():
    z, y, x = np.mgrid[:5, :40, :60]
    right, left = (np.hypot((y - 20) / 18, (x - centre) / 15.5) < 1 for centre in (15, 45))
    bridge = (abs(y - 20) < 3) & (abs(x - 30) < 5)
    labels = split_sides(right | left | bridge)
    assert (labels[right & ~left & (x < 28)] == 1).all()
    assert (labels[left & ~right & (x > 32)] == 2).all()
    assert np.array_equal(labels > 0, right | left | bridge)
    assert z.shape == labels.shape


def test_no_lung_gives_no_labels():
    assert not split_sides(np.zeros((3, 8, 8), bool)).any()
    assert not pseudo_labels(np.full((3, 40, 40), 40, np.int16), SPACING_MM).any()


def test_cases_come_back_from_the_cache_as_they_were(cases, tmp_path: Path):
    save_cases(tmp_path / "cases.npz", cases)
    for case, back in zip(cases, load_cases(tmp_path / "cases.npz"), strict=True):
        assert np.array_equal(back.hu, case.hu)
        assert np.array_equal(back.labels, case.labels)
        assert (back.name, back.spacing_mm, back.real) == (case.name, case.spacing_mm, case.real)


# --- augmentation


def test_disease_changes_the_lungs_and_not_the_labels(cases):
    case = cases[0]
    ill = with_disease(case, np.random.default_rng(1))
    assert ill.labels is case.labels
    inside = case.labels > 0
    assert ill.hu[inside].mean() > case.hu[inside].mean() + 20
    assert np.array_equal(ill.hu[:, :5], case.hu[:, :5])


@given(st.lists(st.sampled_from([0, 1, 2, IGNORE]), min_size=1))
def test_a_mirror_swaps_right_and_left_only(values):
    labels = torch.tensor(values)
    swapped = swap_sides(labels)
    assert torch.equal(swap_sides(swapped), labels)
    assert torch.equal(swapped == 1, labels == 2)
    assert torch.equal(swapped == IGNORE, labels == IGNORE)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_the_right_lung_stays_on_the_left_of_the_image_whatever_the_augmentation(seed):
    hu, labels = torch.full((64, 80), 40.0), torch.zeros(64, 80)
    labels[20:44, 12:32], labels[20:44, 48:68] = 1, 2
    box = (slice(4, 60), slice(4, 76))
    _, target = augment_geometry(hu, labels, box, np.random.default_rng(seed), 64)
    right, left = (torch.nonzero(target == label)[:, 1].float().mean() for label in (1, 2))
    assert right < left


def test_without_augmentation_a_slice_is_what_the_method_feeds_the_network(cases):
    axial = cases[0].hu[len(cases[0].hu) // 2].astype(np.float32)
    crops, boxes = body_crops(axial[None])
    labels = torch.zeros(axial.shape)
    image, _ = augment_geometry(
        torch.from_numpy(axial), labels, body_box(axial), np.random.default_rng(0), UNET_GRID, strength=0.0
    )
    found = windowed(image[0])
    assert boxes == [body_box(axial)]
    assert (
        found - windowed(torch.from_numpy(crops[0]))
    ).abs().mean() < 2e-3  # clipping and interpolation change places


def test_drawn_slices_fit_the_network(cases):
    for seed in range(20):
        image, target = draw_slice(cases[seed % 2], np.random.default_rng(seed), 64)
        assert image.shape == (1, 64, 64)
        assert 0 <= image.min() <= image.max() <= 1
        assert target.dtype == torch.int64
        assert set(target.unique().tolist()) <= {0, 1, 2, IGNORE}


# --- loss and measures


def test_unknown_pixels_do_not_count():
    logits = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    labels = torch.randint(0, 3, (2, 8, 8), generator=torch.Generator().manual_seed(1))
    labels[:, :4] = IGNORE
    changed = logits.clone()
    changed[:, :, :4] = 17.0
    assert unet_loss(logits, labels) == unet_loss(changed, labels)


def test_dice_of_equal_and_of_disjoint_labels():
    labels = np.array([0, 1, 1, 2, IGNORE], np.uint8)
    assert dice(np.array([0, 1, 1, 2, 0]), labels) == {"lungs": 1.0, "right": 1.0, "left": 1.0}
    found = dice(np.array([0, 2, 2, 1, 1]), labels)
    assert found == {"lungs": 1.0, "right": 0.0, "left": 0.0}


# --- training

TINY: dict[str, Any] = {
    "steps": 30,
    "batch": 2,
    "learning_rate": 0.02,
    "width": 8,
    "depth": 3,
    "grid": 64,
    "variants": 1,
    "seed": 3,
}


@pytest.fixture(scope="module")
def trained(cases, tmp_path_factory) -> tuple[UNet, Path]:
    out = tmp_path_factory.mktemp("trained")
    return train_lungs(cases, out, **TINY), out


def batch_loss(network: UNet, cases: list[LungCase]) -> float:
    drawn = [draw_slice(cases[seed % 2], np.random.default_rng(seed), 64) for seed in range(16)]
    with torch.no_grad():
        logits = network(torch.stack([image for image, _ in drawn]))
    return float(unet_loss(logits, torch.stack([target for _, target in drawn])))


def test_thirty_steps_lower_the_loss(trained, cases, tmp_path):
    network, _ = trained
    untrained = train_lungs(cases, tmp_path, **{**TINY, "steps": 1})
    assert batch_loss(network, cases) < 0.8 * batch_loss(untrained, cases)


def test_a_resumed_run_ends_with_the_same_weights(trained, cases, tmp_path, monkeypatch):
    network, _ = trained
    calls = 0

    def loss_until_interrupted(logits, labels):
        nonlocal calls
        calls += 1
        if calls == 18:
            raise KeyboardInterrupt
        return unet_loss(logits, labels)

    with monkeypatch.context() as patched:
        patched.setattr("balaitous.training.lungs.unet_loss", loss_until_interrupted)
        with pytest.raises(KeyboardInterrupt):
            train_lungs(cases, tmp_path, **TINY, checkpoint_every=10)
    resumed = train_lungs(cases, tmp_path, **TINY, checkpoint_every=10)
    for (name, tensor), other in zip(network.state_dict().items(), resumed.state_dict().values(), strict=True):
        assert torch.equal(tensor, other), name


def test_the_stored_weights_are_those_of_the_network(trained):
    network, out = trained
    stored = load_file(out / "lung_unet.safetensors")
    state = network.state_dict()
    assert set(stored) == set(state)
    for key, tensor in stored.items():
        assert torch.equal(tensor, state[key].half() if state[key].is_floating_point() else state[key])


def test_evaluation_names_every_case(cases):
    torch.manual_seed(0)
    scores = evaluate_lungs(UNet(classes=3, depth=1, width=1).eval(), cases)
    assert set(scores) == {"case_21", "case_22"}
    assert set(scores["case_21"]) == {"lungs", "right", "left"}


def test_cases_without_lung_are_refused(cases, tmp_path):
    empty = replace(cases[0], labels=np.zeros_like(cases[0].labels))
    with pytest.raises(ValueError, match="case_21 has none"):
        train_lungs([empty], tmp_path, **TINY)
    with pytest.raises(ValueError, match="at least one labelled volume"):
        train_lungs([], tmp_path, **TINY)
