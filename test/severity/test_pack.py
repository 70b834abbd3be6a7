import hashlib
import os

import numpy as np
import pytest
import safetensors.torch
import torch

from balaitous.errors import WeightsError
from balaitous.networks.layouts import unet_from, vit_from
from balaitous.severity.heads import Heads
from balaitous.severity.pack import BLOCKS, facts_of, pack
from balaitous.severity.parts import load_heads
from balaitous.weights.bundle import open_bundle
from balaitous.weights.inventory import verify
from balaitous.weights.pack import read_state
from helpers.checkpoints import TINY_BLOCKS, unet_state, vit_state, write_checkpoints

ONE, TWO = ({"encoder_full": count, "encoder_lung": count} for count in (1, 2))


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    return write_checkpoints(tmp_path_factory.mktemp("checkpoints"))


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


# Packing the published layouts


def test_packing_keeps_exactly_the_layers_that_run(checkpoints, tmp_path):
    bundle = open_bundle(pack(checkpoints, tmp_path / "tiny", blocks=TINY_BLOCKS))
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
    first = open_bundle(pack(checkpoints, tmp_path / "first", blocks=TWO))
    second = open_bundle(pack(checkpoints | converted, tmp_path / "second", blocks=TWO))
    assert first.files == second.files


def test_the_same_files_give_the_same_bytes(checkpoints, tmp_path):
    first, second = (pack(checkpoints, tmp_path / place / "tiny", blocks=TINY_BLOCKS) for place in ("here", "there"))
    assert contents(first) == contents(second)


def test_a_bundle_says_what_it_was_packed_from(checkpoints, tmp_path):
    bundle = open_bundle(pack(checkpoints, tmp_path / "mine", blocks=ONE))
    assert bundle.name == "mine"
    for role, path in checkpoints.items():
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        assert bundle.training["packed_from"][role] == {"file": path.name, "sha256": digest}


def test_float16_halves_the_networks_and_leaves_the_heads(checkpoints, tmp_path):
    whole = open_bundle(pack(checkpoints, tmp_path / "whole", blocks=TWO))
    half = open_bundle(pack(checkpoints, tmp_path / "half", dtype="float16", blocks=TWO))
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
        pack(checkpoints | {"lung_unet": tmp_path / "large.pth"}, tmp_path / "o", blocks=TWO,
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
    for blocks in BLOCKS.values():
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
        pack(checkpoints | {role: tmp_path / "wrong.pth"}, tmp_path / "out", blocks=TWO)
    assert "\n" not in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["wrong.pth"]


@pytest.mark.parametrize("role", ["lung_unet", "encoder_full", "encoder_lung", "heads"])
def test_a_missing_file_is_named(checkpoints, tmp_path, role):
    with pytest.raises(WeightsError, match=r"gone\.pth: expected"):
        pack(checkpoints | {role: tmp_path / "gone.pth"}, tmp_path / "out")


def test_more_blocks_than_the_file_has_is_an_argument_error(checkpoints, tmp_path):
    with pytest.raises(ValueError, match=r"blocks must be in 1…2, what .*vitl_16_ct.pth has. Got 24"):
        pack(checkpoints, tmp_path / "out")


# The new folder


def test_an_occupied_folder_is_left_alone(checkpoints, tmp_path):
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(ValueError, match="out must be a new or empty folder"):
        pack(checkpoints, tmp_path, blocks=TWO)
    assert contents(tmp_path) == {"mine.txt": b"precious"}
    with pytest.raises(ValueError, match="out must be a new or empty folder"):
        pack(checkpoints, tmp_path / "mine.txt", blocks=TWO)


def test_an_empty_folder_is_filled_and_nothing_stays_beside_it(checkpoints, tmp_path):
    (tmp_path / "out").mkdir()
    pack(checkpoints, tmp_path / "out", blocks=TWO)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_every_user_may_read_a_bundle(checkpoints, tmp_path):
    """A container runs as a user that did not build its image."""
    out = pack(checkpoints, tmp_path / "out", blocks=ONE)
    assert {path.stat().st_mode & 0o444 for path in out.iterdir()} == {0o444 & ~current_umask()}


def current_umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_a_place_that_cannot_be_written_is_named(checkpoints, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(WeightsError, match="the bundle could not be written"):
        pack(checkpoints, tmp_path / "file" / "out", blocks=TWO)


def test_parts_that_are_missing_or_unknown_are_named(checkpoints, tmp_path):
    with pytest.raises(ValueError, match=r"expected all four parts, or a base.* Missing: encoder_lung, heads"):
        pack({name: checkpoints[name] for name in ("lung_unet", "encoder_full")}, tmp_path / "out")
    with pytest.raises(ValueError, match=r"parts must be among lung_unet, .*heads. Got head instead"):
        pack(checkpoints | {"head": checkpoints["heads"]}, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_parts_of_a_bundle_can_be_replaced(checkpoints, tmp_path):
    base = open_bundle(pack(checkpoints, tmp_path / "base", blocks=TINY_BLOCKS, dtype="float16"))
    same = open_bundle(pack({}, tmp_path / "same", base=base))
    assert same.files == base.files
    other = open_bundle(
        pack(
            {"encoder_lung": checkpoints["encoder_full"]},
            tmp_path / "other",
            base=base,
            facts=facts_of("other", base, "mine"),
        )
    )
    assert (other.name, other.licence) == ("other", "mine")
    assert other.training["others_of"]["sha256"] == base.sha256
    assert other.networks["encoder_full"].architecture == base.networks["encoder_full"].architecture
    heads = Heads(load_heads(other))
    features = {view: np.ones(len(load_heads(other)[f"coef_{view}_covid"])) for view in ("full", "lung")}
    assert set(heads.probabilities(features, 50, 1).values()) == {0.5}, "heads belong to their encoders"
    kept = open_bundle(pack({"lung_unet": checkpoints["lung_unet"]}, tmp_path / "kept", base=base))
    assert all(np.array_equal(load_heads(kept)[key], array) for key, array in load_heads(base).items())
