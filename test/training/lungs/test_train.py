"""Training of the lung U-Net: labels, augmentation, and a short run that learns and resumes exactly."""

import os
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from balaitous.ct.lungs import UNET_GRID, body_box, body_crops
from balaitous.ct.volume import write_mha, write_volume
from balaitous.errors import WeightsError
from balaitous.files import write_whole
from balaitous.networks.lungs import windowed
from balaitous.networks.unet import UNet
from balaitous.severity.pack import pack
from balaitous.synthetic.phantom import make_phantom
from balaitous.training.lungs.augment import augment_geometry, augment_intensity, draw_slice, swap_sides
from balaitous.training.lungs.cases import (
    IGNORE,
    LungCase,
    add_disease,
    cached_case,
    pseudo_labels,
    split_sides,
)
from balaitous.training.lungs.train import (
    LungTraining,
    dice,
    diseased_pools,
    evaluate_lungs,
    read_unet,
    take_step,
    train_lungs,
    unet_loss,
)
from helpers.checkpoints import unet_state, write_checkpoints
from helpers.commands import run_command, run_python

SPACING_MM = (4.0, 4.0, 10.0)


def tiny_case(seed: int, real: bool) -> LungCase:
    phantom = make_phantom(seed, spacing_mm=SPACING_MM)
    return LungCase(f"case_{seed}", phantom.ct.hu, phantom.lungs, SPACING_MM, real)


@pytest.fixture(scope="module")
def cases() -> list[LungCase]:
    return [tiny_case(21, True), tiny_case(22, False)]


# --- labels


def test_pseudo_labels_find_the_lungs_of_a_phantom():
    phantom = make_phantom(5, spacing_mm=(3.0, 3.0, 5.0))
    labels = pseudo_labels(phantom.ct.hu, phantom.ct.grid.spacing_mm)
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


def test_a_case_is_made_once_and_kept(cases, tmp_path: Path):
    path = tmp_path / "folder/case.safetensors"
    for make in (lambda: cases[0], lambda: pytest.fail("it was there")):
        case = cached_case(path, make)
        assert np.array_equal(case.hu, cases[0].hu)
        assert np.array_equal(case.labels, cases[0].labels)
        assert (case.name, case.spacing_mm, case.real, case.pseudo) == ("case_21", SPACING_MM, True, False)
    assert [each.name for each in path.parent.iterdir()] == ["case.safetensors"]


# --- augmentation


def test_disease_changes_the_lungs_and_not_the_labels(cases):
    case = cases[0]
    ill = add_disease(case, np.random.default_rng(1))
    assert ill.labels is case.labels
    inside = case.labels > 0
    assert ill.hu[inside].mean() > case.hu[inside].mean() + 20
    assert np.array_equal(ill.hu[:, :5], case.hu[:, :5])


def test_most_of_what_is_drawn_from_has_disease_of_its_own(cases, tmp_path):
    real, phantoms = diseased_pools(cases, ["a", "b"], 3, 0, tmp_path)
    assert [case.name for case in real] == ["case_21"] * 4
    assert [case.name for case in phantoms] == ["case_22"] * 2
    assert len({case.hu.tobytes() for case in real}) == 4
    assert all(np.array_equal(case.labels, cases[0].labels) for case in real)


def test_noise_reaches_the_lung():
    lung = torch.full((1, 64, 64), -850.0)
    deviations = [augment_intensity(lung, np.random.default_rng(seed)).std().item() for seed in range(40)]
    assert 10 < sum(deviation * 1624 > 5 for deviation in deviations) < 30  # in HU; others stay clean


@given(st.lists(st.sampled_from([0, 1, 2, IGNORE]), min_size=1))
def test_a_mirror_swaps_right_and_left_only(values):
    labels = torch.tensor(values)
    swapped = swap_sides(labels)
    assert torch.equal(swap_sides(swapped), labels)
    assert torch.equal(swapped == 1, labels == 2)
    assert torch.equal(swapped == IGNORE, labels == IGNORE)


@settings(max_examples=30)
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
    body = body_crops(axial[None])
    crops, boxes = body.crops, body.boxes
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

TINY = LungTraining(steps=30, batch=2, learning_rate=0.02, width=8, depth=3, grid=64, variants=1, seed=3)


@pytest.fixture(scope="module")
def trained(cases, tmp_path_factory) -> tuple[UNet, Path]:
    out = tmp_path_factory.mktemp("trained")
    return train_lungs(cases, out, TINY), out


def batch_loss(network: UNet, cases: list[LungCase]) -> float:
    drawn = [draw_slice(cases[seed % 2], np.random.default_rng(seed), 64) for seed in range(16)]
    with torch.no_grad():
        logits = network(torch.stack([image for image, _ in drawn]))
    return float(unet_loss(logits, torch.stack([target for _, target in drawn])))


@pytest.mark.slow
def test_thirty_steps_lower_the_loss(trained, cases, tmp_path):
    network, _ = trained
    untrained = train_lungs(cases, tmp_path, replace(TINY, steps=1))
    assert batch_loss(network, cases) < 0.8 * batch_loss(untrained, cases)


class Killed(BaseException):
    """Stands for a kill: nothing catches it."""


def killed_at(call: int, function):
    """The function, until it is called for the n-th time."""
    calls = iter(range(1, 10_000))

    def until(*arguments):
        if next(calls) == call:
            raise Killed
        return function(*arguments)

    return until


@pytest.mark.slow
@pytest.mark.parametrize(
    ("where", "function", "call"),
    [
        ("take_step", take_step, 3),  # before the first checkpoint
        ("take_step", take_step, 18),  # between two
        ("torch.save", torch.save, 2),  # while one is written
        ("write_whole", write_whole, 1),  # when the weights are to be
    ],
)
def test_a_training_that_is_killed_ends_with_the_same_weights_and_curve(
    where, function, call, trained, cases, tmp_path, monkeypatch
):
    monkeypatch.setattr("balaitous.training.lungs.train.CHECKPOINT_STEPS", 10)
    with monkeypatch.context() as patched:
        patched.setattr(f"balaitous.training.lungs.train.{where}", killed_at(call, function))
        with pytest.raises(Killed):
            train_lungs(cases, tmp_path, TINY)
    assert not (tmp_path / "lung_unet.safetensors").exists()
    network, out = trained
    resumed = train_lungs(cases[::-1], tmp_path, TINY)
    assert same(network, resumed)
    for name in ("loss.csv", "lung_unet.safetensors", "training.json"):
        assert (tmp_path / name).read_bytes() == (out / name).read_bytes()


def same(network: UNet, other: UNet) -> bool:
    pairs = zip(network.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(tensor, twin) for tensor, twin in pairs)


@pytest.mark.slow
def test_the_loss_of_every_step_is_written(trained):
    curve = pd.read_csv(trained[1] / "loss.csv")
    assert curve.step.tolist() == list(range(1, 31))
    assert np.isfinite(curve.loss).all()
    rates = curve.learning_rate.to_numpy() / TINY.learning_rate
    rises, step = 4, np.arange(30)  # a tenth of the steps, and one
    assert rates[:rises] == pytest.approx([0.25, 0.5, 0.75, 1.0], rel=0.05)
    assert (np.diff(rates[rises - 1 :]) < 0).all()
    assert rates[rises:] == pytest.approx((0.01 + 0.99 * np.cos(np.pi * step / 60) ** 2)[rises:], rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings_", "change", "says"),
    [
        ({"steps": 31}, lambda cases: cases, r"steps 31 \(was 30\)\. Go on with"),
        ({"seed": 4, "variants": 2}, lambda cases: cases, r"variants 2 \(was 1\), seed 4 \(was 3\)"),
        ({}, lambda cases: cases[:1], r"cases case_22 absent \(was \w+\)"),
        ({}, lambda cases: [replace(cases[0], hu=cases[0].hu + 1), cases[1]], r"cases case_21 \w+ \(was \w+\)"),
    ],
)
def test_other_settings_or_cases_do_not_mix_with_a_training_that_is_there(settings_, change, says, trained, cases):
    before = {path.name: path.read_bytes() for path in trained[1].iterdir() if path.is_file()}
    with pytest.raises(ValueError, match=says):
        train_lungs(change(cases), trained[1], replace(TINY, **settings_))
    assert {path.name: path.read_bytes() for path in trained[1].iterdir() if path.is_file()} == before


@pytest.mark.slow
def test_a_damaged_checkpoint_is_named(trained, cases, tmp_path):
    (tmp_path / "training.json").write_bytes((trained[1] / "training.json").read_bytes())
    (tmp_path / "checkpoint.pt").write_bytes(b"")
    with pytest.raises(WeightsError, match=r"checkpoint\.pt: expected the checkpoint .*Remove it"):
        train_lungs(cases, tmp_path, TINY)


@pytest.mark.slow
def test_training_can_start_from_weights_and_leaves_them_as_they_were(trained, cases, tmp_path):
    start = read_unet(str(trained[1] / "lung_unet.safetensors"))
    assert same(start, trained[0])
    network = train_lungs(cases, tmp_path, replace(TINY, width=None, steps=2, learning_rate=1e-6), start=start)
    assert same(start, trained[0])
    assert not same(network, start)
    assert abs(batch_loss(network, cases) - batch_loss(start.eval(), cases)) < 0.1
    with pytest.raises(ValueError, match="width is that of the U-Net to start from"):
        train_lungs(cases, tmp_path, TINY, start=start)


def test_weights_to_start_from_are_those_of_a_bundle_or_a_file(tmp_path):
    assert read_unet("mini").last.in_channels == 16
    torch.save(unet_state(), tmp_path / "r231.pth")
    assert read_unet(str(tmp_path / "r231.pth")).last.in_channels == 4
    torch.save(UNet(classes=6, depth=2, width=2).state_dict(), tmp_path / "lobes.pth")
    with pytest.raises(WeightsError, match=r"expected a U-Net with 3 classes .* found 6"):
        read_unet(str(tmp_path / "lobes.pth"))
    with pytest.raises(WeightsError, match="nowhere"):
        read_unet(str(tmp_path / "nowhere.pth"))


def test_a_training_that_diverges_says_so(cases, tmp_path):
    with pytest.raises(ValueError, match=r"learning_rate must be lower than .*: the loss is nan at step \d+"):
        train_lungs(cases, tmp_path, replace(TINY, learning_rate=1e30))


@pytest.mark.slow
def test_the_stored_weights_are_those_of_the_network(trained):
    network, out = trained
    stored = load_file(out / "lung_unet.safetensors")
    state = network.state_dict()
    assert set(stored) == set(state)
    assert all(torch.equal(tensor, state[key]) for key, tensor in stored.items())


def test_evaluation_names_every_case(cases):
    torch.manual_seed(0)
    scores = evaluate_lungs(UNet(classes=3, depth=1, width=1).eval(), cases)
    assert set(scores) == {"case_21", "case_22"}
    assert set(scores["case_21"]) == {"lungs", "right", "left"}


def test_cases_without_lung_are_refused(cases, tmp_path):
    empty = replace(cases[0], labels=np.zeros_like(cases[0].labels))
    with pytest.raises(ValueError, match="case_21 has none"):
        train_lungs([empty], tmp_path, TINY)
    with pytest.raises(ValueError, match="at least one labelled volume"):
        train_lungs([], tmp_path, TINY)
    with pytest.raises(ValueError, match="Got case_21 twice"):
        train_lungs([cases[0], cases[0]], tmp_path, TINY)


# --- the command

# Ends itself without a word at the third step, after the checkpoint of the second.
KILLED = """
import os, signal, sys
from balaitous.cli import main
from balaitous.training.lungs import train as lungs
lungs.CHECKPOINT_STEPS = 2
take_step, taken = lungs.take_step, []
def until_killed(*arguments):
    taken.append(1)
    if len(taken) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return take_step(*arguments)
lungs.take_step = until_killed
main(sys.argv[1:])
"""


@pytest.fixture(scope="module")
def scans(tmp_path_factory) -> Path:
    """A folder with three scans: one with a mask, one without, one that is damaged."""
    folder = tmp_path_factory.mktemp("scans")
    for seed in (31, 32):
        phantom = make_phantom(seed, spacing_mm=(4.0, 4.0, 10.0), size=(84, 70, 8))
        write_mha(folder / f"p{seed}.mha", phantom.ct)
        if seed == 31:
            write_volume(folder / "p31_lungmask.mha", phantom.lungs, phantom.ct.grid)
    (folder / "damaged.nii").write_bytes(b"no scan")
    return folder


def lungs_command(scans: Path, out: Path, *more: str) -> list[str]:
    size = ["--batch", "1", "--width", "2", "--variants", "1", "--steps", "3", "--device", "cpu"]
    return ["train", "lungs", "--data", str(scans), "--held-out", "p32", "--out", str(out), *size, *more]


@pytest.mark.slow
@pytest.mark.usefixtures("logging_as_it_was")
def test_the_command_goes_on_after_a_kill_and_writes_weights_that_can_be_packed(scans, tmp_path, capsys):
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    environment = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    child = run_python("-c", KILLED, *lungs_command(scans, killed), env=environment)
    assert child.returncode == -signal.SIGKILL, child.stderr
    assert "damaged: left out: " in child.stderr
    assert (killed / "checkpoint.pt").exists()
    assert not (killed / "lung_unet.safetensors").exists()
    for out in (killed, whole):
        run_command(*lungs_command(scans, out))
    for name in ("lung_unet.safetensors", "loss.csv", "dice.csv"):
        assert (killed / name).read_bytes() == (whole / name).read_bytes(), name

    dice_table = pd.read_csv(whole / "dice.csv")
    assert dice_table.columns.tolist() == ["PatientID", "labels", "lungs", "right", "left"]
    assert dice_table[["PatientID", "labels"]].values.tolist() == [["p32", "pseudo-mask"]]
    printed = capsys.readouterr().out
    assert f"wrote {whole / 'lung_unet.safetensors'}" in printed
    assert "p32 pseudo-mask" in printed
    files = write_checkpoints(tmp_path / "others") | {"lung_unet": whole / "lung_unet.safetensors"}
    bundle = pack(files, tmp_path / "bundle", blocks={"encoder_full": 1, "encoder_lung": 1})
    assert same(read_unet(str(bundle)), read_unet(str(files["lung_unet"])))

    assert run_command(*lungs_command(scans, whole, "--steps", "4")) == 2
    assert "ERROR: " in (said := capsys.readouterr().err)
    assert "steps 4 (was 3)" in said


@pytest.mark.parametrize(
    ("more", "code", "says"),
    [
        ([], 2, "expected scans (--data), or phantoms alone"),
        (["--phantoms", "1", "--precision", "int8"], 2, "precision must be one of fp32, bf16. Got 'int8'"),
        (["--phantoms", "1", "--start", "mini", "--width", "3"], 2, "expected --width or --start, found both"),
        (["--data", "nowhere"], 3, "no such file or folder: nowhere"),
        (["--phantoms", "1", "--start", "nowhere"], 4, "weights 'nowhere': expected a weight bundle"),
    ],
)
@pytest.mark.usefixtures("logging_as_it_was")
def test_misuse_ends_in_one_line(more, code, says, tmp_path, capsys):
    assert run_command("train", "lungs", "--out", tmp_path, *more) == code
    assert says in capsys.readouterr().err
