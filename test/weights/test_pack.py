import hashlib
import json
import os
import shutil

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from balaitous.errors import WeightsError
from balaitous.networks.layouts import unet_from, vit_from
from balaitous.severity.heads import Heads
from balaitous.weights.bundle import open_bundle
from balaitous.weights.heads import HEADS, heads_csv, read_heads
from balaitous.weights.inventory import verify
from balaitous.weights.pack import pack, read_state, repack, write_bundle
from balaitous.weights.registry import PUBLISHED, STOIC_HEADS
from helpers.checkpoints import heads_arrays, unet_state, vit_state, write_checkpoints

# Of the twelve arrays' bytes in the order of their names, as in the published package's balaitous.npz
PUBLISHED_HEADS_SHA256 = "4d8cbc67fb3d7b3cc70232b22837e353873e7386cdef24d3b30d6f18e9b6a7b4"


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    return write_checkpoints(tmp_path_factory.mktemp("checkpoints"))


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


# Packing the published layouts


def test_packing_keeps_exactly_the_layers_that_run(checkpoints, tmp_path):
    bundle = open_bundle(pack(**checkpoints, out=tmp_path / "tiny", blocks_full=2, blocks_lung=1))
    unet, full, lung = (bundle.load_state(name) for name in bundle.networks)
    published_full, published_lung = vit_state(2), vit_state(3)
    assert {key for key in unet_state() if "residual" not in key} == set(unet)
    assert {key for key in published_full if not key.startswith("norm.")} == set(full)
    assert {key for key in full if not key.startswith("blocks.1.")} == set(lung)
    assert all(torch.equal(tensor, published_full[key]) for key, tensor in full.items())
    assert all(torch.equal(tensor, published_lung[key]) for key, tensor in lung.items())
    assert all(check.ok for check in verify(bundle.folder))


def test_safetensors_files_pack_to_the_same_networks(checkpoints, tmp_path):
    converted = {}
    for name in ("lung_unet", "encoder_full", "encoder_lung"):
        converted[name] = tmp_path / f"{name}.safetensors"
        safetensors.torch.save_file(read_state(checkpoints[name]), converted[name])
    blocks = {"blocks_full": 2, "blocks_lung": 2}
    first = open_bundle(pack(**checkpoints, out=tmp_path / "first", **blocks))
    second = open_bundle(pack(**checkpoints | converted, out=tmp_path / "second", **blocks))
    assert first.files == second.files


def test_the_same_files_give_the_same_bytes(checkpoints, tmp_path):
    first, second = (
        pack(**checkpoints, out=tmp_path / place / "tiny", blocks_full=2, blocks_lung=1) for place in ("here", "there")
    )
    assert contents(first) == contents(second)


def test_a_bundle_says_what_it_was_packed_from(checkpoints, tmp_path):
    bundle = open_bundle(pack(**checkpoints, out=tmp_path / "mine", blocks_full=1, blocks_lung=1))
    assert bundle.name == "mine"
    for role, path in checkpoints.items():
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        assert bundle.training["packed_from"][role] == {"file": path.name, "sha256": digest}


def test_float16_halves_the_networks_and_leaves_the_heads(checkpoints, tmp_path):
    blocks = {"blocks_full": 2, "blocks_lung": 2}
    whole = open_bundle(pack(**checkpoints, out=tmp_path / "whole", **blocks))
    half = open_bundle(pack(**checkpoints, out=tmp_path / "half", dtype="float16", **blocks))
    for name in whole.networks:
        half_bytes, whole_bytes = ((b.folder / f"{name}.safetensors").stat().st_size for b in (half, whole))
        assert half_bytes < 0.6 * whole_bytes
        stored = half.load_state(name)
        assert {t.dtype for t in stored.values() if t.is_floating_point()} == {torch.float16}
        for key, tensor in whole.load_state(name).items():
            np.testing.assert_allclose(stored[key].numpy(), tensor.numpy(), rtol=1e-3, atol=1e-6)
    assert half.files["heads.safetensors"] == whole.files["heads.safetensors"]


def test_a_number_beyond_float16_is_refused(checkpoints, tmp_path):
    state = unet_state() | {"last.bias": torch.full((3,), 1e6)}
    torch.save(state, tmp_path / "large.pth")
    with pytest.raises(WeightsError, match=r"lung_unet: last.bias must be finite as torch.float16"):
        pack(**checkpoints | {"lung_unet": tmp_path / "large.pth"}, out=tmp_path / "o", blocks_full=2, blocks_lung=2,
             dtype="float16")  # fmt: skip
    assert not (tmp_path / "o").exists()


# Telling architectures from shapes


@pytest.mark.parametrize(("width", "depth", "classes"), [(4, 2, 3), (6, 4, 2), (64, 5, 3)])
def test_unet_numbers_are_read_off_the_shapes(width, depth, classes):
    from balaitous.networks.unet import UNet

    _, architecture = unet_from(UNet(classes, depth, width).state_dict(), source="here")
    assert architecture == {"kind": "unet", "classes": classes, "depth": depth, "width": width}


@pytest.mark.parametrize("size", ["tiny", "small", "base", "large"])
def test_a_vit_is_told_by_its_width(size):
    import timm

    name = f"vit_{size}_patch16_224"
    with torch.device("meta"):
        state = timm.create_model(name, num_classes=0).state_dict()
    assert vit_from(state, 3, source="here")[1] == {"kind": "vit", "timm_name": name, "blocks": 3}


def test_the_published_sizes_make_the_published_architectures():
    import timm

    with torch.device("meta"):
        state = timm.create_model("vit_large_patch16_224", num_classes=0).state_dict()
    stoic = PUBLISHED["stoic"]
    for blocks in (stoic.blocks_full, stoic.blocks_lung):
        kept, architecture = vit_from(state, blocks, source="here")
        assert architecture == {"kind": "vit", "timm_name": "vit_large_patch16_224", "blocks": blocks}
        assert {int(key.split(".")[1]) for key in kept if key.startswith("blocks.")} == set(range(blocks))


# Files that are not what they should be


def wide_vit():
    return {"cls_token": torch.zeros(1, 1, 200), "blocks.0.norm1.weight": torch.zeros(200)}


def without(state, key):
    return {name: tensor for name, tensor in state.items() if name != key}


@pytest.mark.parametrize(
    ("role", "content", "message"),
    [
        ("lung_unet", vit_state(1), "expected a U-Net in the layout of R231, found no 'down_path.0.block.0.weight'"),
        ("lung_unet", without(unet_state(), "last.bias"), r"found 1 missing \(last.bias\)"),
        ("lung_unet", unet_state() | {"extra": torch.zeros(1)}, r"found 1 not expected \(extra\)"),
        ("encoder_full", unet_state(), "expected a ViT in the layout of timm or iBOT, found no 'cls_token'"),
        ("encoder_full", wide_vit(), "embedding width must be one of 192, 384, 768, 1024. Got 200"),
        ("encoder_lung", vit_state(1) | {"pos_embed": torch.zeros(1, 5, 192)}, "1 of another shape .pos_embed"),
        ("encoder_lung", {"state_dict": [1, 2]}, "expected a state dict"),
        ("encoder_lung", {"cls_token": "text"}, "expected a state dict"),
        ("encoder_lung", vit_state(1) | {"cls_token": torch.full((1, 1, 192), torch.nan)}, "cls_token must be finite"),
    ],
)
def test_a_file_that_holds_another_network_is_refused(checkpoints, tmp_path, role, content, message):
    torch.save(content, tmp_path / "wrong.pth")
    with pytest.raises(WeightsError, match=message) as error:
        pack(**checkpoints | {role: tmp_path / "wrong.pth"}, out=tmp_path / "out", blocks_full=2, blocks_lung=2)
    assert "\n" not in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["wrong.pth"]


class Surprise:
    """Unpickling this would run code."""

    def __reduce__(self):
        return (shutil.rmtree, ("/nowhere",))


@pytest.mark.parametrize("name", ["file.pth", "file.safetensors"])
@pytest.mark.parametrize(
    "content", [b"", b"<html>404</html>", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", b"PK\x03\x04"]
)
def test_bytes_that_are_no_weights_are_refused_in_one_line(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(WeightsError, match=name) as error:
        read_state(tmp_path / name)
    assert "\n" not in str(error.value)


def test_a_pickle_is_never_executed(tmp_path):
    torch.save({"cls_token": Surprise()}, tmp_path / "surprise.pth")
    with pytest.raises(WeightsError, match=r"surprise.pth: expected a network's state dict"):
        read_state(tmp_path / "surprise.pth")
    np.savez(tmp_path / "surprise.npz", coef_full_covid=np.array([Surprise()], dtype=object))
    with pytest.raises(WeightsError, match=r"surprise\.npz"):
        read_heads(tmp_path / "surprise.npz")


@pytest.mark.parametrize("role", ["lung_unet", "encoder_full", "encoder_lung", "heads"])
def test_a_missing_file_is_named(checkpoints, tmp_path, role):
    with pytest.raises(WeightsError, match=r"gone\.pth: expected"):
        pack(**checkpoints | {role: tmp_path / "gone.pth"}, out=tmp_path / "out")


def test_more_blocks_than_the_file_has_is_an_argument_error(checkpoints, tmp_path):
    with pytest.raises(ValueError, match=r"blocks must be in 1…2, what .*vitl_16_ct.pth has. Got 24"):
        pack(**checkpoints, out=tmp_path / "out")


# The new folder


def test_an_occupied_folder_is_left_alone(checkpoints, tmp_path):
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(ValueError, match="out must be a new or empty folder"):
        pack(**checkpoints, out=tmp_path, blocks_full=2, blocks_lung=2)
    assert contents(tmp_path) == {"mine.txt": b"precious"}
    with pytest.raises(ValueError, match="out must be a new or empty folder"):
        pack(**checkpoints, out=tmp_path / "mine.txt", blocks_full=2, blocks_lung=2)


def test_an_empty_folder_is_filled_and_nothing_stays_beside_it(checkpoints, tmp_path):
    (tmp_path / "out").mkdir()
    pack(**checkpoints, out=tmp_path / "out", blocks_full=2, blocks_lung=2)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_every_user_may_read_a_bundle(checkpoints, tmp_path):
    """A container runs as a user that did not build its image."""
    out = pack(**checkpoints, out=tmp_path / "out", blocks_full=1, blocks_lung=1)
    assert {path.stat().st_mode & 0o444 for path in out.iterdir()} == {0o444 & ~current_umask()}


def current_umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_a_place_that_cannot_be_written_is_named(checkpoints, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(WeightsError, match="the bundle could not be written"):
        pack(**checkpoints, out=tmp_path / "file" / "out", blocks_full=2, blocks_lung=2)


def test_networks_from_memory_are_written_with_their_facts(tmp_path):
    out = write_bundle(
        tmp_path / "mini",
        name="mini",
        licence="research use only",
        intended_use="demonstration",
        demonstration=True,
        networks={
            "lung_unet": unet_from(unet_state(), source="unet"),
            "encoder_full": vit_from(vit_state(2), 2, source="full"),
            "encoder_lung": vit_from(vit_state(3), 1, source="lung"),
        },
        heads={name: array.reshape(1, -1) for name, array in heads_arrays().items()},  # as scikit-learn has them
        training={"seed": 1},
        metrics={"auc_covid": {"value": 0.9, "ci_low": 0.8, "ci_high": 0.95}},
    )
    bundle = open_bundle(out)
    assert bundle.demonstration
    assert (bundle.licence, bundle.intended_use) == ("research use only", "demonstration")
    assert bundle.training == {"seed": 1}
    assert bundle.metrics["auc_covid"]["ci_low"] == 0.8
    assert all(check.ok for check in verify(out))
    assert json.loads((out / "bundle.json").read_text())["format_version"] == 1


def test_a_training_that_states_another_architecture_is_refused(tmp_path):
    state, architecture = vit_from(vit_state(2), 2, source="full")
    with pytest.raises(WeightsError, match="encoder_lung: expected exactly"):
        write_bundle(
            tmp_path / "out",
            name="out",
            licence="",
            intended_use="",
            demonstration=True,
            networks={
                "lung_unet": unet_from(unet_state(), source="unet"),
                "encoder_full": (state, architecture),
                "encoder_lung": (state, architecture | {"blocks": 1}),
            },
            heads=heads_arrays(),
        )
    assert not any(tmp_path.iterdir())


# Heads as files


def test_the_carried_heads_are_the_published_ones_bit_for_bit():
    heads = read_heads(STOIC_HEADS)
    digest = hashlib.sha256(b"".join(heads[name].tobytes() for name in sorted(heads)))
    assert digest.hexdigest() == PUBLISHED_HEADS_SHA256
    assert [len(heads[f"coef_{head}"]) for head in HEADS] == [1024, 1024, 1026, 1026]
    assert [float(heads[f"alpha_{head}"]) for head in HEADS] == pytest.approx([0.35, 0.65, 0.5, 0.5])


def test_the_carried_heads_state_their_licence_and_source():
    text = STOIC_HEADS.read_text(encoding="utf-8")
    for words in ("MIT License", "Copyright (c) 2022 Simon Jégou", "https://github.com/SimJeg/balaitous", "1.2"):
        assert words in text


@given(
    values=st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=6),
    more=st.integers(0, 3),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_heads_survive_csv_bit_for_bit(tmp_path, values, more):
    arrays = {}
    for head in HEADS:  # the lung encoder may be wider than the full one
        coefficients = values + [0.5] * (more * head.startswith("lung") + 2 * head.endswith("severe"))
        arrays |= {f"coef_{head}": np.array(coefficients), f"intercept_{head}": np.array(values[0])}
        arrays[f"alpha_{head}"] = np.array(0.3 if head.startswith("full") else 0.7)
    (tmp_path / "heads.csv").write_text("# comment\n" + heads_csv(arrays))
    back = read_heads(tmp_path / "heads.csv")
    assert {name: array.tobytes() for name, array in back.items()} == {n: a.tobytes() for n, a in arrays.items()}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("full_covid", "another"), "full_covid"),
        (("feature_1,", "feature_7,"), "rows must be feature_0"),
        (("alpha,", "beta,"), "rows must be feature_0"),
        (("0.25", "a quarter"), "could not convert"),
    ],
)
def test_a_heads_table_in_another_layout_is_refused(tmp_path, change, message):
    (tmp_path / "heads.csv").write_text(heads_csv(heads_arrays(width=3)).replace(*change))
    with pytest.raises(WeightsError, match=message):
        read_heads(tmp_path / "heads.csv")


def test_parts_of_a_bundle_can_be_replaced(checkpoints, tmp_path):
    base = open_bundle(pack(**checkpoints, out=tmp_path / "base", blocks_full=2, blocks_lung=1, dtype="float16"))
    same = open_bundle(repack(base, tmp_path / "same", name=base.name))
    assert same.files == base.files
    other = open_bundle(repack(base, tmp_path / "other", encoder_lung=checkpoints["encoder_full"], licence="mine"))
    assert (other.name, other.licence) == ("other", "mine")
    assert other.training["others_of"]["sha256"] == base.sha256
    assert other.networks["encoder_full"].architecture == base.networks["encoder_full"].architecture
    heads = Heads(other.load_heads())
    features = {view: np.ones(len(other.load_heads()[f"coef_{view}_covid"])) for view in ("full", "lung")}
    assert set(heads.probabilities(features, 50, 1).values()) == {0.5}, "heads belong to their encoders"
    kept = open_bundle(repack(base, tmp_path / "kept", lung_unet=checkpoints["lung_unet"]))
    assert all(np.array_equal(kept.load_heads()[key], array) for key, array in base.load_heads().items())
