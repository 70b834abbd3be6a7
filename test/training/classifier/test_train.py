"""Training of a classifier: it learns, resumes bit for bit, and the command makes a bundle that predicts."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from balaitous.errors import InputError
from balaitous.slices.lesions import OUTPUTS
from balaitous.slices.pipeline import SliceClassifier
from balaitous.training.classifier.augment import AugmentSettings
from balaitous.training.classifier.data import LabelledPicture, Pictures
from balaitous.training.classifier.inputs import draw_batch, shares
from balaitous.training.classifier.losses import gated_loss
from balaitous.training.classifier.recipe import FOLDER, Recipe, read_recipe
from balaitous.training.classifier.slices import fitted_temperature
from balaitous.training.classifier.start import start_from
from balaitous.training.classifier.train import train_classifier
from helpers.commands import run_command
from helpers.slices import TIMM_NAME

RECIPE = Recipe(
    timm_name=TIMM_NAME,
    size=(32, 32),
    frozen_blocks=2,
    versions=3,
    head_decay=1e-4,
    epochs=3,
    batch=6,
    learning_rate=1e-3,
    head_learning_rate=1e-2,
    dropout=0.1,
    average=0.8,
    runs=2,
    gate="negatives",
    augment=AugmentSettings(flip=0.5, zoom=(0.95, 1.05), gamma=0.1),
)


def blobs(count: int, seed: int) -> Pictures:
    """Pictures with a bright upper half where the first output is there."""
    rng = np.random.default_rng(seed)
    labels = np.zeros((count, 6), np.float32)
    labels[:, 0] = np.arange(count) % 2
    labels[::4, 1] = labels[::4, 0]
    grey = rng.integers(0, 90, (count, 32, 32), np.uint8)
    grey[labels[:, 0] == 1, :16] += 120
    listed = [
        LabelledPicture(f"{seed}-{i}", Path(f"{seed}-{i}.png"), tuple(labels[i]), f"{i}", "ab"[i % 3 == 0])
        for i in range(count)
    ]
    return Pictures(listed, grey, labels)


TRAINING, VALIDATION = blobs(18, 0), blobs(10, 1)


def trained(out: Path, recipe: Recipe = RECIPE, training: Pictures = TRAINING):
    start = start_from("none", recipe.timm_name, 6, recipe.seed)
    return train_classifier(training, VALIDATION, recipe, start, out)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    out = tmp_path_factory.mktemp("whole")
    return trained(out), out


def same(one, other) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def test_it_learns_and_writes_its_curves(whole):
    network, out = whole
    validations = pd.read_csv(out / "validation.csv")
    assert validations.run.astype(str).tolist() == ["0", *["1"] * 3, *["2"] * 3, "mean"]
    assert validations.first_auc.iloc[-1] > 0.9
    curve = pd.read_csv(out / "curve.csv")
    assert curve.step.tolist() == list(range(1, 19))
    assert (out / "curves.png").exists()
    assert json.loads((out / "training.json").read_text())["recipe"]["frozen_blocks"] == 2
    frozen = start_from("none", TIMM_NAME, 6, 0).network.backbone
    assert torch.equal(network.backbone.conv_stem.weight, frozen.conv_stem.weight)
    assert not torch.equal(network.backbone.conv_head.weight, frozen.conv_head.weight)


class Killed(BaseException):
    """Stands for a kill: nothing catches it."""


@pytest.mark.parametrize("at", [2, 8, 13])  # in the first run, its last epoch, and in the second
def test_a_training_that_is_killed_ends_with_the_same_weights_and_curves(whole, at, tmp_path, monkeypatch):
    import balaitous.training.classifier.train as module

    monkeypatch.setattr("balaitous.training.resume.CHECKPOINT_SECONDS", 0.0)
    calls = []

    def until(*arguments):
        calls.append(1)
        if len(calls) == at:
            raise Killed
        return draw_batch(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(module, "draw_batch", until)
        with pytest.raises(Killed):
            trained(tmp_path)
    network, out = whole
    assert same(trained(tmp_path), network)
    for name in ("curve.csv", "validation.csv", "training.json"):
        assert (tmp_path / name).read_bytes() == (out / name).read_bytes()


def test_a_training_that_is_done_is_not_done_again(whole, monkeypatch):
    network, out = whole
    monkeypatch.setattr("balaitous.training.classifier.train.draw_batch", lambda *_: pytest.fail("it was done"))
    assert same(trained(out), network)


@pytest.mark.parametrize(
    ("recipe", "training", "says"),
    [
        (replace(RECIPE, epochs=4), TRAINING, r"recipe epochs 4 \(was 3\)"),
        (RECIPE, blobs(18, 5), r"training digest \w+ \(was \w+\)"),
    ],
)
def test_other_settings_or_pictures_do_not_mix_with_a_training_that_is_there(whole, recipe, training, says):
    with pytest.raises(ValueError, match=says):
        trained(whole[1], recipe, training)


def test_the_linear_layer_alone_is_the_minimum_of_its_loss(tmp_path):
    recipe = replace(RECIPE, epochs=0, versions=1, augment=AugmentSettings(flip=0), frozen_blocks=2)
    network = trained(tmp_path, recipe)
    images = (torch.from_numpy(TRAINING.grey).float()[:, None].expand(-1, 3, -1, -1) / 255 - 0.5) / 0.5
    labels = torch.from_numpy(TRAINING.labels)
    mean, std = start_from("none", TIMM_NAME, 6, 0).mean, start_from("none", TIMM_NAME, 6, 0).std
    images = (images * 0.5 + 0.5 - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    features = network.features(images).detach().double()
    spread = features.std(dim=0) + 0.1
    weight = (network.head.weight.detach().double() * spread).requires_grad_()
    bias = (network.head.bias.detach().double()).requires_grad_()
    loss = gated_loss((features / spread) @ weight.T + bias, labels.double(), (), "negatives")
    (loss + recipe.head_decay * weight.square().sum()).backward()
    assert bias.grad.abs().max() < 2e-3
    assert weight.grad.abs().max() < 2e-3


def test_every_layer_learns_where_none_is_frozen(tmp_path):
    recipe = replace(RECIPE, frozen_blocks=0, epochs=1, runs=1, balanced=False, frozen_norms=False, schedule="constant")
    network = trained(tmp_path, recipe)
    start = start_from("none", TIMM_NAME, 6, 0).network
    assert not torch.equal(network.backbone.conv_stem.weight, start.backbone.conv_stem.weight)
    assert not (tmp_path / "stages").exists()


def test_blocks_that_a_backbone_has_not_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"frozen_blocks must be 0, or .* Got 1 of ResNet"):
        trained(tmp_path, replace(RECIPE, timm_name="test_resnet", frozen_blocks=1))


def test_a_loss_that_becomes_infinite_ends_in_a_message(tmp_path):
    with pytest.raises(ValueError, match="learning_rate must be lower"):
        trained(tmp_path, replace(RECIPE, learning_rate=1e30, head_learning_rate=1e30))


def test_balanced_sources_and_classes_are_as_likely_as_each_other():
    found = shares(TRAINING)
    assert found.sum() == pytest.approx(1)
    for source in "ab":
        for covid in (0, 1):
            chosen = [each.source == source and each.labels[0] == covid for each in TRAINING.listed]
            assert found[chosen].sum() == pytest.approx(0.25)


def test_without_balance_an_epoch_has_every_picture():
    recipe = replace(RECIPE, balanced=False)
    seen = np.concatenate([draw_batch(TRAINING, recipe, 0, step) for step in range(3)])
    assert sorted(seen) == list(range(18))
    again = np.concatenate([draw_batch(TRAINING, recipe, 0, step) for step in range(3, 6)])
    assert list(again) != list(seen)


def test_the_temperature_is_the_one_that_made_the_probabilities():
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, 20_000)
    labels = (rng.random(20_000) < 1 / (1 + np.exp(-logits))).astype(np.float32)
    assert fitted_temperature(3 * logits, labels).temperature == pytest.approx(3, rel=0.05)
    assert fitted_temperature(-logits, labels) is None


def test_recipes_are_read_and_what_they_cannot_have_is_refused(tmp_path):
    for path in FOLDER.glob("*.toml"):
        assert read_recipe(path.stem).epochs > 0
    published = read_recipe("la-dnn-densenet169")
    assert (published.timm_name, published.gate, published.output_weights[0]) == ("densenet169", "bearing", 5)
    (tmp_path / "odd.toml").write_text('gate = "ajar"')
    with pytest.raises(InputError, match=r"gate must be one of bearing, negatives, off\. Got 'ajar'"):
        read_recipe(tmp_path / "odd.toml")


# --- the command

TINY = """
timm_name = "test_efficientnet"
size = [32, 32]
frozen_blocks = 2
versions = 2
head_decay = 0.01
epochs = 1
batch = 6
gate = "negatives"
"""


@pytest.fixture
def tables(tmp_path) -> Path:
    rng = np.random.default_rng(0)
    for split, count in (("train", 12), ("val", 6)):
        lines = ["imgname,CVD19,GGO,Csld,CrPa,AirBr,InSepThi"]
        for i in range(count):
            name = f"{split}{i // 2}%{i % 2}.png"
            picture = rng.integers(0, 120, (100, 110), np.uint8)
            picture[:50] += np.uint8(100 * (i // 2 % 2))
            Image.fromarray(picture).save(tmp_path / name)
            lines.append(f"{name},{'CVD19,GGO' if i // 2 % 2 else ','},,,,")
        (tmp_path / f"{split}_meta.csv").write_text("\n".join(lines) + "\n")
    (tmp_path / "recipe.toml").write_text(TINY)
    return tmp_path


@pytest.mark.usefixtures("logging_as_it_was")
def test_the_command_makes_a_bundle_that_predicts_and_out_of_fold_predictions(tables, capsys):
    words = (
        *("train", "slices", "--data", tables / "train_meta.csv", "--validation", tables / "val_meta.csv"),
        *("--recipe", tables / "recipe.toml", "--start", "none", "--out", tables / "out", "--device", "cpu"),
    )
    more = ("--folds", "patient", "--licence", "research only", "--name", "tiny")
    assert run_command(*words, *more) == 0
    said = capsys.readouterr().out
    assert "wrote " in said
    model = SliceClassifier(tables / "out/bundle", calibrated=True)
    assert (model.bundle.name, model.bundle.licence) == ("tiny", "research only")
    assert model.bundle.training["pictures"][tables.name]["covid"] == 6
    found = model.predict(tables / "val0%0.png")
    assert list(found.probabilities) == list(OUTPUTS)
    with (tables / "out/out_of_fold.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 12
    assert len({row["fold"] for row in rows if row["patient"] == "train0"}) == 1
    assert run_command(*words, *more) == 0  # done before: the same bundle again
    assert SliceClassifier(tables / "out/bundle").bundle.sha256 == model.bundle.sha256


@pytest.mark.parametrize(
    ("more", "code", "says"),
    [
        (("--validation", "train_meta.csv"), 3, "expected to validate on other pictures than those trained on"),
        ((), 3, "expected pictures to train on and others to validate on, found 12 and 0"),
        (("--validation", "val_meta.csv", "--start", "nowhere"), 4, "weights 'nowhere': expected a weight bundle"),
        (("--validation", "val_meta.csv", "--recipe", "nothing"), 3, "nothing: expected a recipe (la-dnn-densenet121"),
        (("--validation", "val_meta.csv", "--folds", "scanner"), 2, "folds must be patient or source"),
    ],
)
@pytest.mark.usefixtures("logging_as_it_was")
def test_misuse_ends_in_one_line(tables, more, code, says, capsys, monkeypatch):
    monkeypatch.chdir(tables)
    words = (
        "train",
        "slices",
        "--data",
        "train_meta.csv",
        "--recipe",
        "recipe.toml",
        "--start",
        "none",
        "--out",
        "out",
    )
    assert run_command(*words, *more) == code
    assert says in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("name", ["la-dnn-densenet169", "la-dnn-densenet121", "la-dnn-vgg16"])
def test_published_recipes_run(name, tmp_path):
    recipe = replace(read_recipe(name), epochs=1, batch=2)
    pictures = Pictures(TRAINING.listed, np.kron(TRAINING.grey, np.ones((1, 7, 7), np.uint8)), TRAINING.labels)
    start = start_from("none", recipe.timm_name, 6, 0)
    two_steps, held = pictures.subset(np.arange(4)), pictures.subset(np.arange(10, 14))
    train_classifier(two_steps, held, recipe, start, tmp_path)
    assert len(pd.read_csv(tmp_path / "curve.csv")) == 2
