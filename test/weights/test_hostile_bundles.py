"""Whatever stands in a bundle.json, and whatever numbers its files hold: exit 4 and one line, or a bundle that runs."""

import copy
import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from balaitous.errors import WeightsError
from balaitous.networks.loading import MOST, build_network, check_fit
from balaitous.severity.heads import OUTCOMES
from balaitous.severity.parts import check_parts, open_parts
from balaitous.weights.bundle import open_bundle
from balaitous.weights.calibration import stored_in
from balaitous.weights.card import is_line
from balaitous.weights.inventory import list_bundles, verify
from balaitous.weights.pack import Facts
from helpers.commands import run_command

EXAMPLES = 50
DAMAGED = "lung_unet.safetensors"


@pytest.fixture
def folder(made_once, tmp_path):
    """A bundle of its own for each test, to be damaged."""
    return Path(shutil.copytree(made_once, tmp_path / "tiny"))


def facts_of(folder):
    return json.loads((folder / "bundle.json").read_text())


def with_numbers(folder, file, change):
    """The bundle with other tensors in a file, and the hash of that."""
    state = {key: tensor.clone() for key, tensor in safetensors.torch.load_file(folder / file).items()}
    safetensors.torch.save_file(state | change(state), folder / file)
    facts = facts_of(folder)
    for record in [*facts["networks"].values(), *facts["arrays"].values()]:
        if record["file"] == file:
            record["sha256"] = hashlib.sha256((folder / file).read_bytes()).hexdigest()
    (folder / "bundle.json").write_text(json.dumps(facts))
    return folder


def refused(capsys, folder, said):
    """`balaitous weights verify` ends with code 4 and one line that says this."""
    assert run_command("weights", "verify", folder) == 4
    err = capsys.readouterr().err
    assert err.startswith("ERROR: ")
    assert err.count("\n") == 1
    assert said in err


# Numbers


@pytest.mark.parametrize(
    ("file", "key"),
    [(DAMAGED, "last.bias"), ("encoder_full.safetensors", "cls_token"), ("heads.safetensors", "intercept_full_covid")],
)
@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_a_number_that_is_not_finite_is_found_by_verify_and_before_a_network_runs(folder, capsys, file, key, number):
    with_numbers(folder, file, lambda state: {key: torch.full_like(state[key], number)})
    refused(capsys, folder, f"{file}: expected finite numbers, found NaN or infinity in {key}. ")
    bundle, name = open_bundle(folder), file.partition(".")[0]
    with pytest.raises(WeightsError, match="expected finite numbers"):
        bundle.load_arrays(name) if name == "heads" else bundle.load_state(name)


def test_one_number_in_the_middle_of_many_is_enough(folder, capsys):
    def spoil(state):
        weight = state["down_path.1.block.0.weight"]
        weight.view(-1)[weight.numel() // 2] = torch.nan
        return {"down_path.1.block.0.weight": weight}

    refused(capsys, with_numbers(folder, DAMAGED, spoil), "in down_path.1.block.0.weight")


@pytest.mark.parametrize(
    ("tensor", "said"),
    [
        (torch.ones(3, dtype=torch.int32), "1 of another type (last.bias: expected fractions, found int32)"),
        (torch.ones(3, dtype=torch.bool), "found bool"),
        (torch.ones(3).to(torch.float8_e4m3fn), "found float8_e4m3fn"),
        (torch.full((3,), 1e300, dtype=torch.float64), "found NaN or infinity in last.bias"),
        (torch.ones(4), "last.bias: expected (3,), found (4,)"),
    ],
)
def test_tensors_of_another_type_are_named(folder, capsys, tensor, said):
    refused(capsys, with_numbers(folder, DAMAGED, lambda _: {"last.bias": tensor}), said)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_fractions_of_other_widths_are_taken(folder, dtype):
    with_numbers(
        folder, DAMAGED, lambda state: {key: each.to(dtype) for key, each in state.items() if each.is_floating_point()}
    )
    assert all(check.ok for check in verify(folder))


def test_whole_numbers_where_the_network_has_fractions_are_named_all_of_them(folder):
    bundle = open_bundle(folder)
    state = {key: torch.ones(tensor.shape, dtype=torch.int64) for key, tensor in bundle.load_state("lung_unet").items()}
    with pytest.raises(WeightsError, match=r"found [0-9]+ of another type"):
        check_fit(build_network(bundle.networks["lung_unet"].architecture), state, source="x")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float8_e4m3fn, torch.int64])
def test_heads_of_a_type_that_numpy_lacks_or_that_no_head_has_are_refused(folder, dtype):
    with_numbers(folder, "heads.safetensors", lambda state: {key: each.to(dtype) for key, each in state.items()})
    assert not all(check.ok for check in verify(folder))


# Sizes


@pytest.mark.parametrize(
    ("network", "key", "value"),
    [
        *[("encoder_full", "blocks", value) for value in (2**60, 257, 0, -1, 10**299)],
        *[("lung_unet", "width", value) for value in (10**9, 0, -4)],
        *[("lung_unet", "depth", value) for value in (10**9, 60, 0)],
        ("lung_unet", "classes", 10**18),
    ],
)
def test_absurd_sizes_are_refused_at_once(folder, capsys, network, key, value):
    facts = facts_of(folder)
    facts["networks"][network]["architecture"][key] = value
    (folder / "bundle.json").write_text(json.dumps(facts))
    assert run_command("weights", "verify", folder) == 4
    assert capsys.readouterr().err.count("\n") == 1
    architecture = facts["networks"][network]["architecture"]
    with pytest.raises(WeightsError, match=f"{key} must be from 1 to {MOST[key]}. Got "):
        build_network(architecture)


@pytest.mark.parametrize(
    "name", ["resnet18", "swin_tiny_patch4_window7_224", "vit_base_patch16_siglip_224", "eva02_tiny_patch14_224"]
)
def test_an_architecture_of_timm_that_is_no_plain_vit_is_refused(name):
    with pytest.raises(WeightsError, match=r"expected a network of kind vit, .* make none"):
        build_network({"kind": "vit", "timm_name": name, "blocks": 2})


# Texts


@pytest.mark.parametrize("fact", ["name", "licence", "model", "intended_use"])
@pytest.mark.parametrize(
    "text", ["a\0b", "\ud800", "\x1b[31m", "a\nERROR: x", "\u202egpj", "a\u2028b", "a\x85b", "x" * 10_001]
)
def test_texts_that_fake_lines_or_steer_terminals_are_refused(folder, fact, text):
    (folder / "bundle.json").write_text(json.dumps(facts_of(folder) | {fact: text}))
    with pytest.raises(WeightsError, match=f"{fact} must be a line of text|surrogates not allowed") as error:
        open_bundle(folder)
    assert str(error.value).isprintable()


def test_texts_of_any_language_are_taken(folder):
    texts = {"name": "肺 – poumon\u00a0nº 1", "licence": "Лицензия; © « Hôpital »", "intended_use": "للبحث فقط"}
    (folder / "bundle.json").write_text(json.dumps(facts_of(folder) | texts))
    assert open_bundle(folder).name == texts["name"]


@pytest.mark.parametrize("fact", ["name", "licence", "intended_use"])
def test_no_bundle_is_made_that_could_not_be_opened(fact):
    with pytest.raises(ValueError, match=f"{fact} must be a line of text. Got 'a.nb' instead."):
        Facts(**{"name": "x", fact: "a\nb"})


@pytest.mark.parametrize("file", ["../heads.safetensors", "/etc/passwd", "a/b", "..", ".", "", "a\0b", "a\\b", "a\nb"])
@pytest.mark.parametrize("part", ["networks", "arrays"])
def test_files_outside_of_the_bundle_are_never_opened(folder, part, file):
    facts = facts_of(folder)
    next(iter(facts[part].values()))["file"] = file
    (folder / "bundle.json").write_text(json.dumps(facts))
    with pytest.raises(WeightsError, match=r"bundle\.json: file must be"):
        open_bundle(folder)


@pytest.mark.parametrize("sha256", ["", "0", "\0", "A" * 64, "g" * 64, "0" * 65])
def test_a_hash_that_is_none_is_refused(folder, sha256):
    facts = facts_of(folder)
    facts["arrays"]["heads"]["sha256"] = sha256
    (folder / "bundle.json").write_text(json.dumps(facts))
    with pytest.raises(WeightsError, match="sha256 must be"):
        open_bundle(folder)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[" * 10**6, "more than 100 levels"),
        ('{"a":' * 10**5, "more than 100 levels"),
        (" " * 2**24 + "{}", "more than 16,777,216 bytes"),
        ('{"format_version": ' + "9" * 5000 + "}", "a number of 5,000 digits"),
        ('{"format_version": 2, "training": {"loss": NaN}}', "NaN, which is no number"),
        ('{"format_version": 2, "format_version": 1}', "the key 'format_version' twice"),
        ('{"format_version": ' + "9" * 300 + "}", "format_version must be 1 or 2"),
        ('{"format_version": 2.0}', "expected 'format_version' (int), found 2.0"),
        ('{"format_version": true}', "expected 'format_version' (int), found True"),
    ],
)
def test_json_that_no_reader_should_take_is_refused(folder, capsys, content, said):
    (folder / "bundle.json").write_text(content)
    refused(capsys, folder, said)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes with names")
@pytest.mark.parametrize("file", ["bundle.json", DAMAGED, "heads.safetensors"])
def test_pipes_are_refused_and_not_waited_for(folder, file):
    (folder / file).unlink()
    os.mkfifo(folder / file)
    wrong = {check.file: check.problem for check in verify(folder) if not check.ok}
    assert list(wrong) == [file]
    assert "it is a pipe, a device or a socket, not a file" in wrong[file]


# Everything at once

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from(
        [2**60, 10**9, -1, 10**299, "a\0b", "../x", "\ud800", "\x1b", "", "vit_base_patch16_224", "resnet18"]
    )
    | st.floats()
    | st.text(st.characters(), max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters(), max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)


def places(value, at=()):
    """The way to every value of a mapping."""
    yield at
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from places(inner, (*at, key))


CALIBRATED = {
    "covid": {"method": "platt", "slope": 1.5, "intercept": 0.1},
    "severe": {"method": "isotonic", "raw": [0.0, 0.5, 1.0], "calibrated": [0.1, 0.5, 0.9]},
    "facts": {"patients": 10},
}


def in_format_1(facts):
    """What a bundle.json says, as it was said before."""
    networks = {
        name: {key: value for key, value in record.items() if key not in ("input", "outputs")}
        for name, record in facts["networks"].items()
    }
    kept = {key: value for key, value in facts.items() if key not in ("arrays", "model")}
    return kept | {"format_version": 1, "networks": networks, "heads": facts["arrays"]["heads"]}


@settings(max_examples=EXAMPLES)
@given(st.data())
def test_whatever_a_field_of_bundle_json_holds_it_is_understood_or_refused_in_one_line(made_once, data):
    facts = facts_of(made_once) | {"calibration": CALIBRATED}
    facts = data.draw(st.sampled_from([facts, in_format_1(facts)]))
    for _ in range(data.draw(st.integers(1, 2))):
        at = data.draw(st.sampled_from([*places(facts)][1:]))
        changed = copy.deepcopy(facts)
        holder = changed
        for key in at[:-1]:
            holder = holder[key]
        if data.draw(st.booleans()):
            holder[at[-1]] = data.draw(JSON)
        else:
            holder[data.draw(st.text(st.characters(), max_size=5))] = holder.pop(at[-1])
        facts = changed
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for path in made_once.iterdir():
            (folder / path.name).symlink_to(path)
        (folder / "bundle.json").unlink()
        (folder / "bundle.json").write_text(json.dumps(facts))
        for work in (
            check_parts,
            lambda each: stored_in(open_parts(each), OUTCOMES),
            lambda each: open_bundle(each).calibrated_by,
        ):
            assert is_line(problem_of(work, folder))
        assert all(check.ok or is_line(check.problem) for check in verify(folder))


def problem_of(work, folder):
    """What is wrong with a bundle, "" where nothing is; no other error than `WeightsError` is one."""
    try:
        work(folder)
    except WeightsError as error:
        return str(error)
    return ""


def test_a_bundle_that_cannot_be_opened_is_listed_with_its_problem(folder, elsewhere):
    shutil.copytree(folder, elsewhere["cache"])
    (elsewhere["cache"] / "bundle.json").write_text("[" * 10**5)
    (problem,) = [each.problem for each in list_bundles() if each.problem]
    assert "more than 100 levels" in problem
