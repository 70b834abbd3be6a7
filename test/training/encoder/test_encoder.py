"""Encoders learn without labels: slices, views, schedules, probes, and runs that are interrupted."""

import dataclasses
import signal

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file

from helpers.commands import run_command, run_python
from helpers.phantoms import write_small_chest
from helpers.rows import SEVERITY

pytest.importorskip("lightly", reason="needs lightly and accelerate, which are an optional extra (balaitous[train])")
pytest.importorskip("accelerate", reason="needs lightly and accelerate, which are an optional extra (balaitous[train])")

from balaitous.cohort.items import list_items
from balaitous.errors import InputError, WeightsError
from balaitous.networks.layouts import vit_from
from balaitous.networks.vit import ClassTokenEncoder
from balaitous.severity.features import encoder_input
from balaitous.training.encoder.ibot import ClassToken, Ibot, IbotSettings, make_vit
from balaitous.training.encoder.probe import ProbeCase, read_probe
from balaitous.training.encoder.recipe import FOLDER, Recipe, Schedule, check_views, read_recipe
from balaitous.training.encoder.slices import (
    Slices,
    SliceStore,
    begin_keeping,
    list_material,
    picture_as_hu,
    write_array,
)
from balaitous.training.encoder.train import Order, Probe, train_encoder
from balaitous.training.encoder.views import Views, ViewSettings, crop, draw_view
from balaitous.weights.bundle import open_bundle

pytestmark = pytest.mark.usefixtures("logging_as_it_was")

SMALL = Recipe(
    timm_name="vit_tiny_patch16_224",
    blocks=1,
    epochs=2,
    batch=2,
    accumulate=2,
    warmup_epochs=0.5,
    ibot=IbotSettings(prototypes=32, hidden=32, bottleneck=16),
    views=ViewSettings(global_size=112, local_size=32, local_views=1),
)
SMALL_TOML = """
timm_name = "vit_tiny_patch16_224"
blocks = 1
epochs = 1
batch = 4
warmup_epochs = 0.5
[ibot]
prototypes = 32
hidden = 32
bottleneck = 16
[views]
global_size = 112
local_size = 32
local_views = 1
"""


def store(folder, counts, lungs=()):
    """Files of random slices; those named in `lungs` with a lung."""
    rng = np.random.default_rng(0)
    for name, count in counts.items():
        write_array(folder / f"{name}.npy", rng.integers(-1024, 600, (count, 224, 224)).astype(np.int16))
        if name in lungs:
            write_array(folder / f"{name}.lung.npy", np.arange(224)[None, :, None] < np.full((count, 1, 224), 100))
    return [folder / f"{name}.npy" for name in counts]


@pytest.fixture(scope="module")
def slices(tmp_path_factory):
    return Slices(store(tmp_path_factory.mktemp("slices"), {"a": 9, "b": 5}), "full")


def trained(slices, out, recipe=SMALL, **options):
    torch.manual_seed(recipe.seed)
    vit = make_vit(recipe.timm_name, recipe.blocks)
    return train_encoder(slices, vit, recipe, out, start="drawn anew", cpu=True, **options)


# --- slices -----------------------------------------------------------------------------------------------------------


def test_neighbours_are_of_the_same_scan(slices):
    assert len(slices) == 14
    assert slices.neighbour(3, 1) == 4
    assert slices.neighbour(8, 1) == 8
    assert slices.neighbour(9, -1) == 9
    assert slices.neighbour(0, -1) == 0


def test_the_lung_view_is_air_outside_the_lung_and_refuses_pictures(tmp_path):
    files = store(tmp_path, {"volume": 2, "picture": 1}, lungs=["volume"])
    lung, full = Slices(files[:1], "lung")[1], Slices(files[:1], "full")[1]
    assert (lung[100:] == -1024).all()
    assert np.array_equal(lung[:100], full[:100])
    with pytest.raises(InputError, match="1 of 2 are 2-D images"):
        Slices(files, "lung")


def test_a_volume_s_slices_are_those_the_encoders_see_and_are_kept_once(model, tmp_path):
    scan = tmp_path / "scan.mha"
    write_small_chest(scan, 1)
    store = SliceStore(tmp_path / "slices", model)
    prediction = model.predict(scan)
    store.save(prediction)
    kept = Slices([store.path(prediction.input_sha256)], "full")
    assert np.array_equal(kept.of_file(0), prediction.image)
    masked = Slices(kept.files, "lung").of_file(0)
    assert np.array_equal(masked, np.where(prediction.mask, prediction.image, -1024))
    for expected in (1, 0):  # what another process wrote is taken up
        run, rows = begin_keeping(model, store, list_items([scan], SEVERITY), workers=1)
        for row in rows:
            run.add(row)
        run.finish()
        assert run.added == expected


def test_material_is_scans_and_pictures(tmp_path):
    Image.fromarray(np.full((50, 60), 255, np.uint8)).save(tmp_path / "white.png")
    (tmp_path / "notes.txt").touch()
    assert list_material([tmp_path]) == ([], [tmp_path / "white.png"])
    (tmp_path / "scan.mha").touch()
    (tmp_path / "both.csv").write_text("path\nscan.mha\nwhite.png\n")
    for source in (tmp_path, tmp_path / "both.csv"):
        found, pictures = list_material([source])
        assert [scan.path.name for scan in found] == ["scan.mha"]
        assert [each.name for each in pictures] == ["white.png"]
    assert list_material([tmp_path / "white.png"]) == ([], [tmp_path / "white.png"])
    white = picture_as_hu(tmp_path / "white.png")
    assert white.shape == (1, 224, 224)
    assert (white == 600).all()
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(InputError, match="expected PNG as its ending says"):
        picture_as_hu(tmp_path / "text.png")
    with pytest.raises(InputError, match="no such file"):
        list_material([tmp_path / "nothing"])


# --- views ------------------------------------------------------------------------------------------------------------


def test_views_depend_on_seed_epoch_and_slice_alone(slices):
    first, again = (Views(slices, ViewSettings(local_views=1), 1) for _ in range(2))
    large, small = first[3]
    assert large.shape == (2, 224, 224)
    assert small.shape == (1, 96, 96)
    again[2]
    assert torch.equal(again[3][0], large)
    again.epoch = 1
    assert not torch.equal(again[3][0], large)
    assert not torch.equal(Views(slices, ViewSettings(local_views=1), 2)[3][0], large)


@given(seed=st.integers(0, 1000), scale=st.floats(0.05, 1.0), ratio=st.floats(1.0, 3.0))
@settings(max_examples=25)
def test_a_crop_shows_a_part_of_the_slice_the_right_way_round(seed, scale, ratio):
    slice_hu = torch.linspace(-500, 500, 224).expand(224, 224)
    view = crop(slice_hu, 96, (scale, scale), ViewSettings(ratio=ratio), torch.Generator().manual_seed(seed))
    assert view.shape == (96, 96)
    assert -500.1 <= view.min() <= view.max() <= 500.1
    assert (view.diff(dim=1) > -1e-2).all(), "left stays left"


def test_views_show_tissue_where_there_is_some():
    slice_hu = torch.full((224, 224), -1024)
    slice_hu[60:160, 20:90] = -850
    rng = torch.Generator().manual_seed(0)
    shares = [(crop(slice_hu, 80, (0.05, 0.1), ViewSettings(), rng) > -1000).float().mean() for _ in range(50)]
    assert np.median(shares) > 0.3
    assert (np.array(shares) > 0.2).mean() > 0.95
    assert crop(torch.full((224, 224), -1024), 80, (0.05, 0.1), ViewSettings(), rng).max() == -1024


def test_without_disturbance_a_view_is_the_slice_or_its_flip():
    still = ViewSettings(shift_hu=0, gain=0, noise_hu=0, blur_pixels=0, ratio=1.0)
    slice_hu = torch.randn(64, 64).mul(100).sub(500)
    for seed in range(5):
        view = draw_view(slice_hu, 64, (1.0, 1.0), still, torch.Generator().manual_seed(seed))
        assert any(torch.allclose(view, each, atol=1) for each in (slice_hu, slice_hu.flip(0)))


# --- recipe -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [each.stem for each in FOLDER.glob("*.toml")])
def test_recipes_in_the_package_can_be_read(name):
    recipe = read_recipe(name)
    assert Schedule(recipe, 10).at(0)["learning_rate"] > 0


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("epoch = 3", "unknown epoch"),
        ("[ibot]\nprototype = 3", "unknown prototype"),
        ("epochs = ", "expected a recipe"),
        ("epochs = 0", "at least 1"),
        ('precision = "fp8"', "fp32, bf16, fp16"),
        ("learning_rate = nan", "learning_rate must be like 0.0005, numbers from 0 to 2147483647. Got nan"),
        ("learning_rate = inf", "Got inf"),
        ("seed = -1", "seed must be like 0"),
        ("batch = 1.5", "batch must be like 64"),
        ("batch = true", "Got True"),
        (f"batch = {'9' * 400}", "Got 9999"),
        (f"batch = {'9' * 5000}", "expected a recipe"),
        ("weight_decay = [0.1]", "weight_decay must be like"),
        ("weight_decay = [0.1, [0.2]]", "weight_decay must be like"),
        ("ibot = 3", "ibot must be like"),
        ("ibot = " + "[" * 10_000, "expected a recipe"),
        ("seed = 1\nseed = 2", "expected a recipe"),
    ],
)
def test_a_wrong_recipe_is_refused_in_words(tmp_path, text, complaint):
    (tmp_path / "recipe.toml").write_text(text)
    with pytest.raises(InputError, match=complaint):
        read_recipe(tmp_path / "recipe.toml")
    with pytest.raises(InputError, match="mini, stoic, or a TOML file"):
        read_recipe("nothing")


def test_the_learning_rate_rises_then_falls_and_the_teacher_slows_down():
    schedule = Schedule(Recipe(epochs=10, warmup_epochs=2), 50)
    values = [schedule.at(step) for step in range(schedule.steps)]
    rates = [each["learning_rate"] for each in values]
    assert max(rates) == pytest.approx(Recipe().learning_rate * 64 / 256)
    assert rates[:100] == sorted(rates[:100])
    assert rates[100:] == sorted(rates[100:], reverse=True)
    momenta = [each["teacher_momentum"] for each in values]
    assert momenta == sorted(momenta)
    assert 0.996 <= momenta[0] < momenta[-1] <= 1


# --- method -----------------------------------------------------------------------------------------------------------


def test_the_class_token_is_the_one_the_method_takes():
    torch.manual_seed(0)
    vit = make_vit("vit_tiny_patch16_224", 2)
    ibot = Ibot(vit, SMALL.ibot)
    state, architecture = vit_from(ibot.encoder_state(), 2, source="test")
    encoder = ClassTokenEncoder(architecture["timm_name"], 2)
    encoder.load_state_dict(state)
    images = torch.randn(2, 3, 224, 224)
    with torch.inference_mode():
        assert torch.allclose(ClassToken(ibot.teacher.encoder)(images), encoder(images), atol=1e-5)


def test_the_teacher_follows_the_student_and_gets_no_gradient():
    torch.manual_seed(0)
    ibot = Ibot(make_vit("vit_tiny_patch16_224", 1), SMALL.ibot)
    large = [encoder_input(torch.randn(2, 64, 64) * 300 - 500) for _ in range(2)]
    class_loss, patch_loss = ibot(large, [encoder_input(torch.zeros(2, 32, 32))], 0.04)
    (class_loss + patch_loss).backward()
    assert all(each.grad is None for each in ibot.teacher.parameters())
    assert ibot.student.encoder.mask_token.grad.abs().sum() > 0, "some patches were masked"
    with torch.no_grad():
        for each in ibot.student.parameters():
            each.add_(1.0)
    before = ibot.teacher.encoder.vit.cls_token.clone()
    ibot.update_teacher(0.9)
    assert torch.allclose(ibot.teacher.encoder.vit.cls_token, before + 0.1, atol=1e-5)


@pytest.mark.parametrize(
    ("timm_name", "small"),
    [("vit_small_patch32_224", 96), ("vit_base_patch16_clip_224", 96), ("vit_small_patch14_reg4_dinov2", 98)],
)
def test_other_vits_of_timm_can_be_trained(timm_name, small):
    torch.manual_seed(0)
    ibot = Ibot(make_vit(timm_name, 1), SMALL.ibot)
    large = [torch.randn(1, 3, 224, 224) for _ in range(2)]
    losses = ibot(large, [torch.randn(1, 3, small, small)], 0.04)
    assert all(torch.isfinite(each) for each in losses)


def test_views_that_do_not_fit_the_patches_are_refused():
    check_views(SMALL, 16)
    with pytest.raises(ValueError, match="global_size must be a multiple of 14"):
        check_views(dataclasses.replace(SMALL, views=ViewSettings(global_size=100)), 14)
    with pytest.raises(ValueError, match="Got 9 patches"):
        check_views(dataclasses.replace(SMALL, views=ViewSettings(global_size=48)), 16)


def test_weights_of_another_architecture_are_refused():
    state = make_vit("vit_tiny_patch16_224", 1).state_dict()
    with pytest.raises(WeightsError, match="vit_tiny_patch16_224 with 2 blocks"):
        make_vit("vit_tiny_patch16_224", 2, state, source="file")
    for name in ("vit_of_nobody", "resnet18", "vit_small_patch16_dinov3"):
        with pytest.raises(ValueError, match="timm_name must be a"):
            make_vit(name, None)
    del state["norm.weight"]  # never runs in the method, and published files do without
    make_vit("vit_tiny_patch16_224", 1, {**state, "head.weight": torch.zeros(1)}, source="file")


# --- runs -------------------------------------------------------------------------------------------------------------


def test_an_order_is_all_slices_and_can_be_taken_up_in_the_middle():
    order = Order(10, seed=3)
    whole = list(order)
    assert sorted(whole) == list(range(10))
    order.begin = 4
    assert list(order) == whole[4:]
    order.epoch = 1
    assert list(order) != whole[4:]


@pytest.mark.slow
def test_a_run_that_was_interrupted_ends_with_the_same_weights(slices, tmp_path, monkeypatch):
    whole = load_file(trained(slices, tmp_path / "whole"))
    real_teach, steps = Ibot.update_teacher, []

    def teach_and_stop(self, momentum):
        steps.append(1)
        if len(steps) == 5:
            raise KeyboardInterrupt
        real_teach(self, momentum)

    monkeypatch.setattr(Ibot, "update_teacher", teach_and_stop)
    monkeypatch.setattr("balaitous.training.resume.CHECKPOINT_SECONDS", 0)
    with pytest.raises(KeyboardInterrupt):
        trained(slices, tmp_path / "stopped")
    resumed = load_file(trained(slices, tmp_path / "stopped"))
    assert len(steps) == 7, "two steps after the fourth, of which there is a checkpoint"
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)
    curves = [(tmp_path / run / "curves.csv").read_text() for run in ("whole", "stopped")]
    assert curves[0] == curves[1]
    with pytest.raises(ValueError, match="other settings: recipe "):
        trained(slices, tmp_path / "stopped", dataclasses.replace(SMALL, learning_rate=1.0))


def test_fewer_slices_than_a_step_takes_are_refused(slices, tmp_path):
    with pytest.raises(InputError, match="at least 32 slices"):
        trained(slices, tmp_path, dataclasses.replace(SMALL, batch=16))


@pytest.mark.slow
def test_an_encoder_is_tried_as_it_learns(tmp_path):
    dark, bright = np.full((1, 224, 224), -900, np.int16), np.full((1, 224, 224), 100, np.int16)
    rng = np.random.default_rng(1)
    files = []
    for i in range(12):
        write_array(tmp_path / f"{i}.npy", (dark, bright)[i % 2] + rng.integers(-50, 50, (1, 224, 224), np.int16))
        files.append(tmp_path / f"{i}.npy")
    cases = [ProbeCase(file, i % 2, "train" if i < 8 else "test") for i, file in enumerate(files)]
    slices = Slices(files, "full")
    trained(slices, tmp_path / "out", probed=Probe(slices, cases))
    lines = (tmp_path / "out" / "probe.csv").read_text().splitlines()
    assert lines[0] == "step,epoch,knn_accuracy,knn_auc,linear_accuracy,linear_auc"
    assert [line.split(",")[0] for line in lines[1:]] == ["0", "3", "6"]
    assert all(float(line.split(",")[-1]) == 1.0 for line in lines[1:]), "dark and bright can be told apart"
    assert (tmp_path / "out" / "curves.svg").exists()


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("path,label\na.png,1\n", "split not found"),
        ("path,label,split\na.png,2,train\n", "line 2: expected label 0 or 1"),
        ("path,label,split\na.png,1,train\nb.png,0,train\n", "two or more cases of each class"),
    ],
)
def test_a_wrong_probe_is_refused_in_words(tmp_path, text, complaint):
    (tmp_path / "probe.csv").write_text(text)
    with pytest.raises(InputError, match=complaint):
        read_probe(tmp_path / "probe.csv")


# Ends itself without a word when its second checkpoint is to take the place of the first.
KILLED = """
import os, signal, sys
import balaitous.training.encoder.train
from balaitous.cli import main

balaitous.training.resume.CHECKPOINT_SECONDS = 0
renamed = []
def kill_at_the_second(event, arguments):
    if event == "os.rename" and str(arguments[1]).endswith("checkpoint.pt"):
        renamed.append(1)
        if len(renamed) == 2:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(kill_at_the_second)
main(sys.argv[1:])
"""


@pytest.mark.slow
def test_the_command_goes_on_after_a_kill_and_its_encoder_can_be_packed(tmp_path, capsys):
    rng = np.random.default_rng(0)
    for i in range(16):
        Image.fromarray(rng.integers(0, 255, (64, 64), np.uint8)).save(tmp_path / f"{i}.png")
    (tmp_path / "recipe.toml").write_text(SMALL_TOML)
    out = tmp_path / "out"
    arguments = ["train", "encoder", "--data", tmp_path, "--out", out, "--recipe", tmp_path / "recipe.toml"]
    killed = run_python("-c", KILLED, *arguments, "--weights", "mini")
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert (out / "checkpoint.pt").exists()
    assert not (out / "encoder.safetensors").exists()
    assert run_command(*arguments, "--weights", "mini") == 0
    assert "going on from step 1" in capsys.readouterr().err
    packed = ["weights", "pack", "--base", "mini", "--encoder-full", out / "encoder.safetensors"]
    assert run_command(*packed, "--blocks-full", "1", "--out", tmp_path / "bundle") == 0
    assert open_bundle(tmp_path / "bundle").networks["encoder_full"].architecture["blocks"] == 1
