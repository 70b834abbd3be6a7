import hashlib
import json
import shutil
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import torch

from balaitous.errors import WeightsError
from balaitous.networks.loading import build_network, load_strictly
from balaitous.severity.heads_file import check_heads
from balaitous.severity.parts import load_heads, open_parts
from balaitous.weights.bundle import check_hash, open_bundle
from helpers.checkpoints import heads_arrays


@pytest.fixture
def folder(made_once, tmp_path):
    """A bundle of its own for each test, to be damaged."""
    return Path(shutil.copytree(made_once, tmp_path / "tiny"))


def rewrite(folder: Path, **changes) -> None:
    path = folder / "bundle.json"
    facts = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in facts.items() if value is not None}))


def assert_one_line(error: pytest.ExceptionInfo) -> None:
    assert error.value.exit_code == 4
    assert "\n" not in str(error.value)


# What is in a bundle


def test_a_bundle_states_its_name_use_networks_and_hash(folder):
    bundle = open_bundle(folder)
    assert bundle.name == "tiny"
    assert bundle.sha256 == hashlib.sha256((folder / "bundle.json").read_bytes()).hexdigest()
    assert bundle.networks["lung_unet"].architecture == {"kind": "unet", "classes": 3, "depth": 3, "width": 4}
    assert bundle.networks["encoder_lung"].architecture == {
        "kind": "vit",
        "timm_name": "vit_tiny_patch16_224",
        "blocks": 1,
    }
    assert not bundle.demonstration
    assert set(bundle.files) == {path.name for path in folder.iterdir()} - {"bundle.json", "CARD.md"}


@pytest.mark.parametrize("network", ["lung_unet", "encoder_full", "encoder_lung"])
def test_a_network_takes_its_weights_strictly_and_runs_in_float32(folder, network):
    bundle = open_bundle(folder)
    module = build_network(bundle.networks[network].architecture).eval()
    load_strictly(module, bundle.load_state(network), source=network)
    assert {tensor.device.type for tensor in module.state_dict().values()} == {"cpu"}
    image = torch.zeros(1, 1, 32, 32) if network == "lung_unet" else torch.zeros(1, 3, 224, 224)
    with torch.inference_mode():
        output = module(image)
    assert output.dtype == torch.float32
    assert torch.isfinite(output).all()


def test_heads_come_back_bit_for_bit(folder):
    heads = load_heads(open_bundle(folder))
    for name, array in heads_arrays().items():
        assert heads[name].tobytes() == array.tobytes()
        assert heads[name].shape == array.shape


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="counts in /proc what is read")
def test_a_file_is_read_to_be_hashed_once_until_it_changes(folder):
    path = folder / "lung_unet.safetensors"
    with path.open("ab") as file:  # so large that nothing else counts
        file.write(bytes(64 << 20))
    checked = {"expected_sha256": hashlib.sha256(path.read_bytes()).hexdigest()}

    def share_read() -> float:
        """Of the file, in a check."""
        before = bytes_read()
        with suppress(WeightsError):
            check_hash(path, **checked)
        return (bytes_read() - before) / path.stat().st_size

    assert share_read() >= 1
    assert share_read() + share_read() < 0.1
    with path.open("r+b") as file:
        file.write(b"?")
    assert share_read() >= 1
    with pytest.raises(WeightsError, match="expected SHA-256"):
        check_hash(path, **checked)


def bytes_read() -> int:
    """What this process has read of files so far."""
    return int(Path("/proc/self/io").read_text().split()[1])


# What a bundle must not be


@pytest.mark.parametrize(
    "fact", ["format_version", "name", "licence", "intended_use", "model", "networks", "arrays", "training"]
)
def test_a_missing_fact_is_named(folder, fact):
    rewrite(folder, **{fact: None})
    with pytest.raises(WeightsError, match=f"bundle.json: expected '{fact}' .* found nothing") as error:
        open_bundle(folder)
    assert_one_line(error)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format_version": 99}, "format_version must be 1 or 2. Got 99"),
        ({"demonstration": "no"}, "expected 'demonstration' .bool., found 'no'"),
        ({"arrays": {"heads": {"file": "../heads.safetensors", "sha256": "0"}}}, "a name inside the bundle's folder"),
    ],
)
def test_a_fact_that_cannot_be_is_refused(folder, changes, message):
    rewrite(folder, **changes)
    with pytest.raises(WeightsError, match=message) as error:
        open_bundle(folder)
    assert_one_line(error)


@pytest.mark.parametrize(
    ("architecture", "message"),
    [
        ({"kind": "vit", "timm_name": "vit_tiny_patch16_224", "blocks": 2}, "lung_unet must be of kind unet"),
        ({"kind": "resnet"}, "lung_unet must be of kind unet. Got 'resnet'"),
        ({"kind": "unet", "classes": 3, "depth": 5}, "of kind unet must have classes, depth, width. Got"),
        ({"kind": "unet", "classes": 3, "depth": 5, "width": "64"}, "lung_unet: width must be of type int. Got '64'"),
    ],
)
def test_an_architecture_must_be_complete(folder, architecture, message):
    networks = json.loads((folder / "bundle.json").read_text())["networks"]
    networks["lung_unet"]["architecture"] = architecture
    rewrite(folder, networks=networks)
    with pytest.raises(WeightsError, match=message):
        open_parts(folder)


@pytest.mark.parametrize("name", ["hf-hub:somebody/something", "vit_none_such", "../model"])
def test_an_architecture_is_never_looked_up_outside_timm(name):
    with pytest.raises(WeightsError, match="must be an architecture of timm"):
        build_network({"kind": "vit", "timm_name": name, "blocks": 2})


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b"null"])
def test_a_bundle_json_that_is_no_json_object_is_refused(folder, content):
    (folder / "bundle.json").write_bytes(content)
    with pytest.raises(WeightsError, match=r"bundle\.json: expected") as error:
        open_bundle(folder)
    assert_one_line(error)


@pytest.mark.parametrize("file", ["lung_unet.safetensors", "encoder_full.safetensors", "heads.safetensors"])
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.unlink(), "No such file"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), "expected SHA-256 .*, found"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1] + b"?"), "expected SHA-256 .*, found"),
        (
            lambda path: path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"),
            "found a Git LFS pointer to it. Run `git lfs pull`",
        ),
    ],
)
def test_a_damaged_file_is_named_and_never_opened(folder, file, damage, message):
    bundle = open_bundle(folder)
    damage(folder / file)
    with pytest.raises(WeightsError, match=f"{file}: .*{message}") as error:
        bundle.load_arrays("heads") if file.startswith("heads") else bundle.load_state(
            file.removesuffix(".safetensors")
        )
    assert_one_line(error)


def test_a_file_with_the_right_hash_that_is_not_safetensors_is_refused(folder):
    (folder / "lung_unet.safetensors").write_bytes(b"not a safetensors file")
    networks = json.loads((folder / "bundle.json").read_text())["networks"]
    networks["lung_unet"]["sha256"] = hashlib.sha256(b"not a safetensors file").hexdigest()
    rewrite(folder, networks=networks)
    with pytest.raises(WeightsError, match=r"lung_unet\.safetensors: expected a readable file") as error:
        open_bundle(folder).load_state("lung_unet")
    assert_one_line(error)


def test_tensors_that_do_not_fit_are_counted_and_named(folder):
    bundle = open_bundle(folder)
    state = bundle.load_state("lung_unet")
    module = build_network(bundle.networks["lung_unet"].architecture)
    state["last.weight"] = torch.zeros(6, 4, 1, 1)
    state["surplus"] = state.pop("last.bias")
    expected = (
        r"unet.safetensors: .* found 1 missing \(last.bias\); 1 not expected \(surplus\); "
        r"1 of another shape \(last.weight: expected \(3, 4, 1, 1\), found \(6, 4, 1, 1\)\)"
    )
    with pytest.raises(WeightsError, match=expected) as error:
        load_strictly(module, state, source="unet.safetensors")
    assert_one_line(error)


def with_head(name: str, array) -> dict:
    return heads_arrays() | {name: np.asarray(array, dtype=np.float64)}


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({}, "expected the arrays alpha_full_covid"),
        (heads_arrays() | {"coef_other": np.zeros(3)}, "wrong: coef_other"),
        (with_head("coef_lung_severe", np.zeros(192)), "194 coefficients of lung_severe .* found 192 and 192"),
        (with_head("coef_full_covid", np.full(192, np.nan)), "coef_full_covid must be float64, finite"),
        (
            with_head("coef_full_covid", np.full(192, 1e308)),
            "finite and ≤ 1e.09. Got float64, 0 of 192",
        ),
        (with_head("intercept_full_covid", [0.0, 1.0]), "intercept_full_covid must have the shape"),
        (with_head("alpha_full_covid", 0.9), "averaging weights of covid must be ≥ 0 and sum to 1"),
        (heads_arrays() | {"alpha_full_covid": np.array(0.25, dtype=np.float32)}, "Got float32"),
        (
            heads_arrays(width=384),
            "expected 192 coefficients of full_covid and 194 coefficients of full_severe .* 384 and 386",
        ),
    ],
)
def test_heads_that_are_not_four_regressions_on_these_encoders_are_refused(arrays, message):
    with pytest.raises(WeightsError, match=message) as error:
        check_heads(arrays, {"full": 192, "lung": 192}, source="heads.npz")
    assert_one_line(error)


def test_heads_are_checked_against_the_encoders_when_loaded(folder):
    safetensors.numpy.save_file(heads_arrays(width=384), folder / "heads.safetensors")
    digest = hashlib.sha256((folder / "heads.safetensors").read_bytes()).hexdigest()
    rewrite(folder, arrays={"heads": {"file": "heads.safetensors", "sha256": digest}})
    with pytest.raises(WeightsError, match="Were these heads fitted on this encoder"):
        load_heads(open_bundle(folder))
