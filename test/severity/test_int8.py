"""Networks in int8: how far from fp32, kept once per bundle, and what is said when they cannot be had."""

import json
import shutil
import sys

import numpy as np
import pytest
import torch

from balaitous import Balaitous, WeightsError
from balaitous.networks import runtime
from balaitous.weights.bundle import open_bundle
from balaitous.weights.int8 import Int8Store, load_int8
from helpers import PHANTOM, ROOT

# The design's: on real scans, with a bundle whose heads make much of small differences.
PROBABILITY_TOLERANCE, FEATURE_TOLERANCE, LEAST_DICE = 0.02, 0.06, 0.997
REAL_SCANS = ("covid_P001_5mm.mha", "cap_001_5mm.mha", "cmbcrc_MSB01068_5mm.mha")


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """A user's cache where mini is quantised on the phantom."""
    pytest.importorskip("nncf", reason="needs OpenVINO and NNCF, which are optional extras (balaitous[int8])")
    from balaitous.severity.quantize import quantize_bundle

    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BALAITOUS_CACHE", str(folder))
        quantize_bundle(ROOT / "resources/mini", [PHANTOM])
    return folder


@pytest.fixture
def used(cache, monkeypatch):
    """That cache as the one in use."""
    monkeypatch.setenv("BALAITOUS_CACHE", str(cache))
    return cache


@pytest.fixture
def own(used, tmp_path, monkeypatch):
    """The files of a copy of that cache, as the one in use."""
    shutil.copytree(used, tmp_path / "cache")
    monkeypatch.setenv("BALAITOUS_CACHE", str(tmp_path / "cache"))
    return Int8Store(mini()).folder


def mini():
    return open_bundle(ROOT / "resources/mini")


def assert_agree(int8, fp32):
    for view, features in fp32.features.items():
        assert np.linalg.norm(int8.features[view] - features) <= FEATURE_TOLERANCE * np.linalg.norm(features)
    for outcome in ("covid", "severe"):
        assert int8.probabilities[outcome] == pytest.approx(fp32.probabilities[outcome], abs=PROBABILITY_TOLERANCE)
    overlap = 2 * np.count_nonzero(int8.mask & fp32.mask) / (int8.mask.sum() + fp32.mask.sum())
    assert overlap >= LEAST_DICE


@pytest.mark.slow
def test_int8_agrees_with_fp32(used, prediction):
    int8 = Balaitous("mini", device="cpu", precision="int8").predict(PHANTOM)
    assert_agree(int8, prediction)
    assert int8.provenance.precision == "int8"
    assert any((int8.features[view] != prediction.features[view]).any() for view in int8.features)


@pytest.mark.slow
@pytest.mark.data
def test_int8_agrees_with_fp32_on_real_scans(used, data, model):
    """Calibrated on a phantom: on scans of the kind it is used for it agrees better."""
    int8 = Balaitous("mini", device="cpu", precision="int8")
    for scan in REAL_SCANS:
        assert_agree(int8.predict(data / "ct" / scan), model.predict(data / "ct" / scan))


@pytest.mark.slow
def test_slices_together_are_slices_alone(used):
    """Each slice's answer is its own, whatever it is computed with: batches are cut for speed."""
    crops = torch.rand(3, 1, 256, 256, generator=torch.Generator().manual_seed(0))
    unet = load_int8(mini(), "lung_unet")
    together = unet(crops)
    assert torch.equal(together, torch.cat([unet(crop[None]) for crop in crops]))


@pytest.mark.slow
def test_the_record_says_what_was_quantised_with_what_on_what(used):
    facts = json.loads((Int8Store(mini()).folder / "int8.json").read_text())
    assert facts["bundle_sha256"] == mini().sha256
    assert set(facts["made_with"]) == {"openvino", "nncf", "torch"}
    assert facts["calibration"]["slices"] == 32
    assert set(facts["files"]) == {
        f"{network}.{kind}" for network in ("lung_unet", "encoder_full", "encoder_lung") for kind in ("bin", "xml")
    }


@pytest.mark.slow
def test_a_changed_file_is_not_run(own):
    with (own / "encoder_lung.bin").open("r+b") as file:
        file.seek(1000)
        file.write(b"\xff\xff")
    with pytest.raises(WeightsError, match=r"encoder_lung.bin: .*Delete .* and quantise again: .*weights quantize"):
        Balaitous("mini", device="cpu", precision="int8")


@pytest.mark.slow
def test_another_format_or_bundle_counts_as_none(own):
    record = own / "int8.json"
    record.write_text(record.read_text().replace('"format_version": 1', '"format_version": 0'))
    assert not Int8Store(mini()).exists()
    with pytest.raises(WeightsError, match=r"expected bundle 'mini' in int8, found nothing.*--precision int8"):
        load_int8(mini(), "lung_unet")


@pytest.mark.slow
def test_a_record_that_cannot_be_read_says_so(own):
    (own / "int8.json").write_text("{")
    with pytest.raises(WeightsError, match=r"int8.json: cannot be read .*Delete"):
        Balaitous("mini", device="cpu", precision="int8")


@pytest.mark.slow
def test_networks_are_replaced_whole_or_not_at_all(own):
    before = {path.name: path.read_bytes() for path in own.iterdir()}

    def write_and_be_interrupted():
        with Int8Store(mini()).replaced({}) as partial:
            (partial / "lung_unet.bin").write_bytes(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_and_be_interrupted()
    assert {path.name: path.read_bytes() for path in own.iterdir()} == before
    with Int8Store(mini()).replaced({}) as partial:
        (partial / "lung_unet.bin").write_bytes(b"whole")
    assert {path.name for path in own.iterdir()} == {"lung_unet.bin", "int8.json"}
    assert [path.name for path in own.parent.iterdir()] == [own.name]


@pytest.mark.slow
def test_without_openvino_the_extra_is_named(monkeypatch, used):
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(ValueError, match=r"needs OpenVINO: pip install 'balaitous\[int8\]'"):
        Balaitous("mini", device="cpu", precision="int8")


def test_int8_is_for_the_cpu():
    with pytest.raises(ValueError, match="int8 is for the CPU, not for cuda"):
        runtime.choose_precision("int8", torch.device("cuda"))


def test_a_cpu_without_vnni_is_told(monkeypatch, caplog):
    able = {"architecture": "x86_64", "avx512_vnni": False, "avx_vnni": False}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: able)
    assert runtime.choose_precision("int8", torch.device("cpu")) == ("int8", torch.float32)
    assert "no VNNI" in caplog.text
