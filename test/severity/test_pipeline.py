"""The whole chain on the phantom with the default weights; golden values come from test/severity/make_golden.py."""

import hashlib
import json
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context

import numpy as np
import pytest
import SimpleITK as sitk

from balaitous import Balaitous, InputError, NoLungError
from balaitous.ct.volume import read_ct, resample
from balaitous.networks.runtime import Chunker
from balaitous.severity.heads import OUTCOMES, VIEWS
from balaitous.synthetic.phantom import make_phantom
from helpers import PHANTOM, ROOT
from helpers.lungs import dice, in_view, true_labels
from helpers.phantoms import COMMITTED, small_chest, with_hu

GOLDEN = json.loads((ROOT / "test/severity/golden.json").read_text())
# Kernels differ between processors and library versions; a change of the method moves far more than this.
PROBABILITY_TOLERANCE, FEATURE_TOLERANCE, LUNG_TOLERANCE = 2e-3, 1e-2, 2e-3


def test_every_stage_on_the_phantom_has_its_golden_values(prediction):
    assert prediction.provenance.bundle_sha256 == GOLDEN["bundle_sha256"], "new weights: run make_golden.py"
    assert list(prediction.image.shape) == GOLDEN["image_shape"]
    assert float(prediction.image.mean()) == pytest.approx(GOLDEN["image_mean_hu"], abs=0.5)
    assert prediction.lung_volume_litres == pytest.approx(GOLDEN["lung_volume_litres"], rel=LUNG_TOLERANCE)
    for view in VIEWS:
        golden = np.array(GOLDEN["features"][view])
        distance = np.linalg.norm(prediction.features[view] - golden) / np.linalg.norm(golden)
        assert distance < FEATURE_TOLERANCE
    for key, golden in GOLDEN["probabilities"].items():
        assert prediction.probabilities[key] == pytest.approx(golden, abs=PROBABILITY_TOLERANCE)


def test_the_lung_mask_is_the_phantom_s_lung(prediction):
    """The phantom is made by balaitous.synthetic.phantom, which knows its lungs voxel by voxel."""
    assert prediction.lung_volume_litres == pytest.approx(GOLDEN["true_lung_volume_litres"], rel=0.05)
    ct = resample(read_ct(PHANTOM))
    labels = true_labels(make_phantom(**COMMITTED), ct.grid)
    assert dice(prediction.mask, in_view(prediction.image, ct.hu, labels) > 0) > 0.97


def test_the_prediction_says_what_made_it(prediction, model):
    facts = prediction.to_dict()
    assert json.loads(json.dumps(facts)) == facts
    assert facts["provenance"]["bundle"] == "mini"
    assert facts["provenance"]["demonstration"] is True
    assert facts["provenance"]["bundle_sha256"] == model.bundle.sha256
    assert facts["age_source"] == facts["sex_source"] == "header"
    assert set(facts["seconds"]) == {
        *("read", "resample", "body_crops", "lung_unet", "lung_view", "features_full", "features_lung")
    }
    assert facts["input_sha256"] == hashlib.sha256(PHANTOM.read_bytes()).hexdigest()


def test_the_published_dictionary_has_the_published_keys_and_shapes(model, short_scan, short_prediction):
    out = model(str(short_scan), return_dict=True)
    slices = len(short_prediction.image)
    assert out["image"].shape == out["unmasked_image"].shape == out["mask"].shape == (224, 224, slices)
    assert out["mask"].dtype == bool
    assert set(out["features"]) == set(VIEWS)
    assert set(out["prediction"]) == {*(f"{view}_{outcome}" for view in VIEWS for outcome in OUTCOMES), *OUTCOMES}
    assert (out["image"][~out["mask"]] == -1024).all()
    assert (out["image"][out["mask"]] == out["unmasked_image"][out["mask"]]).all()
    assert out["age"] == pytest.approx(short_prediction.patient.age_years / 100)
    assert out["sex"] == short_prediction.patient.sex


def test_a_call_gives_the_two_probabilities_and_age_and_sex_move_only_severity(model, short_scan, short_prediction):
    p_covid, p_severe = model(short_scan, age=30, sex="F")
    assert p_covid == short_prediction.probability_covid
    assert p_severe != short_prediction.probability_severe
    assert 0 <= p_severe <= 1


@pytest.mark.parametrize("orientation", ["LAS", "LPI", "SLP"])
def test_a_scan_that_is_stored_back_to_front_gets_the_same_answer(
    model, short_scan, short_prediction, tmp_path, orientation
):
    turned = tmp_path / "b.nii.gz"
    sitk.WriteImage(sitk.DICOMOrient(sitk.ReadImage(str(short_scan)), orientation), str(turned))
    patient = short_prediction.patient
    other = model.predict(turned, age=patient.age_years, sex=patient.sex)
    # voxels of the native grid and of the new one round differently from the other end
    for view, features in short_prediction.features.items():
        assert np.linalg.norm(other.features[view] - features) < 5e-4 * np.linalg.norm(features)
    for key, value in other.probabilities.items():
        assert value == pytest.approx(short_prediction.probabilities[key], abs=5e-4)


def test_the_scan_s_own_array_is_left_as_it_was(model, short_scan):
    ct = read_ct(short_scan)
    before = ct.hu.copy()
    model.predict(ct)
    assert np.array_equal(ct.hu, before)


def test_the_answer_does_not_depend_on_the_chunk(short_scan, short_prediction):
    other = Balaitous("mini", device="cpu")
    other.chunkers = dict.fromkeys(other.chunkers, Chunker(2))
    for key, value in other.predict(short_scan).probabilities.items():
        assert value == pytest.approx(short_prediction.probabilities[key], abs=1e-5)


def test_the_answer_does_not_depend_on_where_the_steps_without_a_network_run(model, short_scan, short_prediction):
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        elsewhere = model.predict(short_scan, executor=pool)
        with pytest.raises(InputError, match="found nothing"):
            model.predict(short_scan.with_name("nowhere.mha"), executor=pool)
    assert elsewhere.probabilities == short_prediction.probabilities
    assert np.array_equal(elsewhere.image, short_prediction.image)


def test_threads_share_a_model_and_nothing_mixes(model, short_scans, short_prediction):
    ages = [20, 40, 60, 80]
    scans = [short_scans / name for name in ("b.mha", "a.mha", "b.mha", "a.mha")]
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda scan, age: model.predict(scan, age=age), scans, ages))
    alone = {"b": short_prediction.probability_covid, "a": model.predict(scans[1]).probability_covid}
    for age, answer in zip(ages, answers, strict=True):
        assert answer.patient.age_years == age
        assert answer.probability_covid == alone[answer.name]
    assert alone["a"] != alone["b"]
    assert len({answer.probability_severe for answer in answers}) == len(ages)


@pytest.mark.slow
@pytest.mark.parametrize(("precision", "tolerance"), [("fp16", 0.005), ("bf16", 0.01)])
def test_lower_precision_agrees(model, precision, tolerance):
    ct = small_chest(3)
    lower = Balaitous("mini", device="cpu", precision=precision).predict(ct)
    for outcome, value in model.predict(ct).probabilities.items():
        if outcome in OUTCOMES:
            assert lower.probabilities[outcome] == pytest.approx(value, abs=tolerance)


def test_a_volume_without_lung_says_so_and_how_it_looked(model):
    ct = read_ct(PHANTOM)
    ct = with_hu(ct, ct.hu[20:30])
    tissue = np.random.default_rng(0).normal(40, 20, ct.hu.shape).astype(np.int16)
    tissue[:, 0] = -1000
    with pytest.raises(NoLungError, match=r"no lung found in phantom \(\d+ slices, -1000…\d+ HU\).*chest CT"):
        model.predict(with_hu(ct, tissue))


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.parametrize(
    ("scan", "litres"),
    [
        ("covid_P001_5mm.mha", (3.0, 7.5)),
        ("normal_001_5mm.mha", (2.5, 7.5)),
        ("lungdx_A0001_native.mha", (2.0, 7.5)),
        ("lowres_id003.nii.gz", (1.5, 7.5)),
    ],
)
def test_real_scans_get_lungs_of_a_plausible_size(model, data, scan, litres):
    prediction = model.predict(data / "ct" / scan)
    assert litres[0] < prediction.lung_volume_litres < litres[1]
    assert 0 <= prediction.probability_covid <= 1
    warned = {check.name for check in prediction.checks if check.status == "warn"}
    assert warned <= ({"pixel_spacing", "slice_spacing"} if "lowres" in scan else set())
