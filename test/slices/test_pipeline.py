"""The slices model, from a picture, an array or a CT to its answers and maps."""

import csv
import json

import numpy as np
import pytest
import torch
from PIL import Image

from balaitous.checks import QualityError
from balaitous.ct.volume import read_ct
from balaitous.errors import NoLungError, WeightsError
from balaitous.reading.pictures import read_picture
from balaitous.slices.hounsfield import lung_window
from balaitous.slices.lesions import OUTPUTS
from balaitous.slices.pipeline import SliceClassifier
from helpers import PHANTOM
from helpers.commands import run_command
from helpers.slices import phantom_slice, untrained_network, write_phantom_slice, write_slices_bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return write_slices_bundle(tmp_path_factory.mktemp("bundles") / "tiny")


@pytest.fixture(scope="module")
def model(bundle):
    return SliceClassifier(bundle, device="cpu")


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    return write_phantom_slice(tmp_path_factory.mktemp("pictures") / "slice.png")


def test_a_picture_gets_a_probability_of_each_output(model, picture):
    found = model.predict(picture)
    assert list(found.probabilities) == list(OUTPUTS)
    assert (found.kind, found.name, found.slices_in_item, len(found.slices)) == ("picture", "slice", 1, 1)
    assert [check.status for check in found.checks] == ["ok", "ok"]
    network = untrained_network().half().float()  # as the bundle stores it
    with torch.no_grad():
        image = torch.nn.functional.interpolate(
            torch.from_numpy(found.grey)[None, None], (64, 64), mode="bilinear", antialias=True
        )
        expected = torch.sigmoid(network((image.expand(-1, 3, -1, -1) - 0.5) / 0.5))[0]
    assert list(found.probabilities.values()) == pytest.approx(expected.tolist(), abs=1e-5)
    json.dumps(found.to_dict())


def test_path_picture_and_array_are_the_same_to_it(model, picture):
    read = read_picture(picture)
    probabilities = [model.predict(each).probabilities for each in (picture, read, read.grey)]
    assert probabilities[0] == probabilities[1] == probabilities[2]
    assert model.predict(read.grey).input_sha256 is None
    assert model.predict(picture).input_sha256


@pytest.mark.parametrize(
    ("array", "says"),
    [
        (np.zeros((3, 40, 40)), r"array must be grey \(Y, X\)\. Got shape \(3, 40, 40\)"),
        (np.full((64, 64), 40.0), r"grey in \[0, 1\], black to white\. Got 40 … 40"),
        (np.full((64, 64), np.nan), "Got nan"),
    ],
)
def test_an_array_that_is_no_picture_is_refused(model, array, says):
    with pytest.raises(ValueError, match=says):
        model.predict(array)


def test_maps_are_of_the_slices_own_size_and_of_each_output(model, picture):
    found = model.predict(picture)
    maps = found.maps()
    assert list(maps) == list(OUTPUTS)
    for each in maps.values():
        assert each.shape == found.grey.shape
        assert each.dtype == np.float32
        assert each.min() >= 0
    assert list(found.maps(("ggo",))) == ["ggo"]
    assert model.predict(picture).probabilities == found.probabilities
    with pytest.raises(ValueError, match="outputs must be of covid"):
        found.maps(("tumour",))


def test_a_ct_is_answered_by_the_mean_over_its_lung_slices(model):
    ct = read_ct(PHANTOM)
    found = model.predict(PHANTOM)
    assert found.kind == "ct"
    assert 0 < len(found.indices) < found.slices_in_item == len(ct.hu)
    covid = [model.predict(lung_window(ct.hu[index])).probabilities["covid"] for index in found.indices[:3]]
    assert found.slice_probabilities[:3, 0] == pytest.approx(covid, abs=1e-5)
    row = found.row()
    assert row["probability_covid"] == pytest.approx(found.slice_probabilities[:, 0].mean())
    assert row["probability_covid_max"] == found.slice_probabilities[:, 0].max()
    position = found.indices.index(row["slice_max"])
    assert row["z_max_mm"] == pytest.approx(ct.grid.origin_mm[2] + row["slice_max"] * ct.grid.spacing_mm[2])
    assert np.array_equal(found.grey, found.slices[position])
    assert f"{len(found.indices)} of {len(ct.hu)} axial slices show lungs" in row["converted"]


def test_a_ct_without_lungs_is_refused(model):
    ct = read_ct(PHANTOM)
    from dataclasses import replace

    with pytest.raises((NoLungError, QualityError)):
        model.predict(replace(ct, hu=np.clip(ct.hu, -100, 3000).astype(np.int16)))


def test_sixteen_bits_of_hounsfield_units_are_recognised_and_said(model, tmp_path):
    hu = phantom_slice()
    Image.fromarray((hu.astype(np.int32) + 1024).astype(np.uint16)).save(tmp_path / "hu.png")
    found = model.predict(tmp_path / "hu.png")
    assert "peaks of air and soft tissue as of HU + 1024" in found.row()["converted"]
    assert np.allclose(found.grey, lung_window(hu), atol=1e-6)
    # twice the numbers are no Hounsfield units, whatever they show
    Image.fromarray(((hu.astype(np.int32) + 1024) * 2).astype(np.uint16)).save(tmp_path / "other.png")
    assert "HU" not in model.predict(tmp_path / "other.png").row()["converted"]


def test_a_picture_of_nothing_is_refused_and_a_small_one_warned_of(model, tmp_path):
    Image.fromarray(np.full((128, 128), 9, np.uint8)).save(tmp_path / "flat.png")
    with pytest.raises(QualityError, match="expected a picture of a CT slice, found standard deviation of grey: 0"):
        model.predict(tmp_path / "flat.png")
    small = Image.open(write_phantom_slice(tmp_path / "slice.png")).resize((80, 70))
    small.save(tmp_path / "small.png")
    assert [each.status for each in model.predict(tmp_path / "small.png").checks] == ["warn", "ok"]


def test_calibration_divides_the_logits_by_the_temperature(picture, tmp_path, bundle):
    calibration = {"covid": {"method": "temperature", "temperature": 2.0}, "facts": {}}
    warm = write_slices_bundle(tmp_path / "warm", calibration=calibration)
    plain = SliceClassifier(warm).predict(picture)
    found = SliceClassifier(warm, calibrated=True).predict(picture)
    assert found.provenance.calibration == "temperature"
    assert found.probabilities["covid"] == pytest.approx(1 / (1 + np.exp(-plain.logits[0, 0] / 2)))
    assert found.probabilities["ggo"] == plain.probabilities["ggo"]
    with pytest.raises(WeightsError, match="expected a calibrated bundle"):
        SliceClassifier(bundle, calibrated=True)


def test_other_bundles_are_refused_by_name(tmp_path):
    with pytest.raises(WeightsError, match="expected a bundle of the model slices, found one of severity"):
        SliceClassifier("mini")
    folder = write_slices_bundle(tmp_path / "odd")
    content = json.loads((folder / "bundle.json").read_text())
    content["networks"]["classifier"]["outputs"][0] = "cold"
    (folder / "bundle.json").write_text(json.dumps(content))
    with pytest.raises(WeightsError, match="outputs of classifier must be covid, ggo"):
        SliceClassifier(folder)


@pytest.mark.usefixtures("logging_as_it_was")
def test_the_command_predicts_pictures_and_volumes_and_goes_on(bundle, tmp_path, capsys):
    folder = tmp_path / "items"
    folder.mkdir()
    for index in (30, 34):
        write_phantom_slice(folder / f"slice_{index}.png", index)
    (folder / "scan.mha").write_bytes(PHANTOM.read_bytes())
    (folder / "broken.png").write_text("no picture")
    table = tmp_path / "table.csv"
    words = ("predict", folder, "--model", "slices", "--weights", bundle, "--out", table)
    assert run_command(*words) == 5
    with table.open() as file:
        rows = {row["PatientID"]: row for row in csv.DictReader(file)}
    assert {name: row["status"] for name, row in rows.items()} == {
        **{"broken": "failed", "scan": "ok"},
        **{"slice_30": "ok", "slice_34": "ok"},
    }
    assert list(rows["scan"])[2:8] == [f"probability_{name}" for name in OUTPUTS]
    assert (rows["scan"]["kind"], rows["slice_30"]["kind"]) == ("ct", "picture")
    assert rows["slice_30"]["probability_covid_max"] == ""
    assert run_command(*words, "--resume", "--workers", "2") == 5
    assert "3 done before" in capsys.readouterr().err


def test_half_precision_agrees_and_int8_is_refused(bundle, picture, model):
    exact, rough = model.predict(picture), SliceClassifier(bundle, precision="bf16").predict(picture)
    assert rough.probabilities == pytest.approx(exact.probabilities, abs=0.02)
    with pytest.raises(ValueError, match="int8 is not to be had of the model slices"):
        SliceClassifier(bundle, precision="int8")
