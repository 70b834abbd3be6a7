"""Quality checks: what they say of a good chest and of a spoilt one, and where what they say is found again."""

import csv
import json
import math
import pickle
import re
from dataclasses import asdict, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from balaitous.checks import Check, QualityError, check_value, refuse, verdict
from balaitous.cohort.growing import ItemTable
from balaitous.cohort.items import Item
from balaitous.cohort.local import predict_item
from balaitous.cohort.run import Run
from balaitous.cohort.table import checks_of
from balaitous.container.grand_challenge import Case, open_output, predict_cases
from balaitous.ct.lungs import LEFT, RIGHT
from balaitous.ct.quality import blood_hu, check_lungs, check_scan, largest_jump
from balaitous.ct.quality_limits import LIMITS
from balaitous.ct.volume import read_ct, write_mha, write_volume
from balaitous.errors import InputError
from balaitous.severity.preparation import prepare
from balaitous.synthetic.phantom import make_phantom
from helpers import ROOT
from helpers.commands import run_command
from helpers.phantoms import with_hu, write_small_chest
from helpers.rows import COLUMNS, SEVERITY

RANK = {"ok": 0, "warn": 1, "fail": 2}
NAMES = st.sampled_from(sorted(LIMITS))
VALUES = st.none() | st.just(math.nan) | st.floats(-1e9, 1e9)


@pytest.fixture(scope="module")
def chest():
    """A phantom without contrast agent, as a scanner would give it."""
    return make_phantom(5, spacing_mm=(2.75, 2.75, 5.0))


def check_phantom(ct, labels):
    litres = np.count_nonzero(labels) * math.prod(ct.grid.spacing_mm) / 1e6
    return {check.name: check for check in (*check_scan(ct), *check_lungs(ct, labels, litres))}


def status_of(checks):
    """What is not ok."""
    return {name: check.status for name, check in checks.items() if check.status != "ok"}


# --- what is measured


def test_a_good_chest_has_every_check_and_all_are_ok(chest):
    checks = check_phantom(chest.ct, chest.lungs)
    assert list(checks) == list(LIMITS)
    assert status_of(checks) == {}
    assert checks["air_peak"].value == pytest.approx(-1010, abs=20)
    assert checks["soft_tissue_peak"].value == pytest.approx(50, abs=5)
    assert checks["lung_volume"].value == pytest.approx(chest.lung_ml / 1000, rel=1e-3)
    assert checks["smaller_lung"].value < 50


def base_cut(hu, labels):
    first = np.flatnonzero(labels.any(axis=(1, 2)))[0]
    return hu[first + 8 :], labels[first + 8 :]


def top_cut(hu, labels):
    last = np.flatnonzero(labels.any(axis=(1, 2)))[-1]
    return hu[: last - 8], labels[: last - 8]


def side_cut(hu, labels):
    return hu[:, :, 40:], labels[:, :, 40:]


def slices_missing(hu, labels):
    kept = np.r_[: len(hu) // 2, len(hu) // 2 + 8 : len(hu)]
    return hu[kept], labels[kept]


def slices_mixed(hu, labels):
    order = np.random.default_rng(0).permutation(len(hu))
    return hu[order], labels[order]


def one_lung(hu, labels):
    return np.where(labels == RIGHT, 40, hu), np.where(labels == RIGHT, 0, labels)


def one_lung_without_air(hu, labels):
    """A network that knows consolidation calls a part of it lung."""
    back = np.arange(hu.shape[1])[:, None] > hu.shape[1] * 0.6
    return np.where(labels == RIGHT, 40, hu), np.where((labels == RIGHT) & ~back, 0, labels)


def metal(hu, labels):
    hu = hu.copy()
    hu[25:30, 20:26, 60:66] = 3071
    return hu, labels


def contrast_agent(hu, labels):
    middle = np.abs(np.arange(hu.shape[2]) - hu.shape[2] / 2) < hu.shape[2] / 6
    return np.where(middle & (hu > 0) & (hu < 100), hu + 200, hu), labels


def offset_under_padding(hu, labels):
    """1024 was not subtracted, and what lies outside the scanner's circle hides it from the range of values."""
    rows, columns = np.ogrid[-1 : 1 : hu.shape[1] * 1j, -1 : 1 : hu.shape[2] * 1j]
    return np.where(rows**2 + columns**2 > 1, -1024, hu + 1024), labels


def offset_twice(hu, labels):
    return np.maximum(hu - 1024, -1024), labels


def halved(hu, labels):
    return hu // 2, labels


def display_window(hu, labels):
    return np.minimum(hu, 150), labels


def noise(hu, labels):
    return np.random.default_rng(0).normal(-600, 300, hu.shape).clip(-1024), labels


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (base_cut, {"lung_base": "warn"}),
        (top_cut, {"lung_top": "warn"}),
        (side_cut, {"lung_edge": "warn"}),
        (slices_missing, {"slice_jump": "warn"}),
        (slices_mixed, {"slice_order": "warn"}),
        (one_lung, {"smaller_lung": "warn"}),
        (one_lung_without_air, {"smaller_lung": "warn"}),
        (metal, {"metal": "warn"}),
        (contrast_agent, {"mediastinum": "warn"}),
        (offset_under_padding, {"dense_share": "fail"}),
        (offset_twice, {"soft_tissue_peak": "fail"}),
        (halved, {"air_peak": "fail"}),
        (display_window, {"dense_share": "warn"}),
        (noise, {"soft_tissue_peak": "fail", "lung_contrast": "fail"}),
    ],
)
def test_what_spoils_a_chest_is_named(chest, spoil, expected):
    hu, labels = spoil(chest.ct.hu, chest.lungs)
    found = status_of(check_phantom(with_hu(chest.ct, hu.astype(np.int16)), labels))
    assert found.items() >= expected.items()
    if "fail" not in expected.values():
        assert "fail" not in found.values()


@pytest.mark.parametrize(
    ("spacing_mm", "expected"),
    [
        ((4.0, 4.0, 5.0), {"pixel_spacing": "warn"}),
        ((2.75, 2.75, 10.0), {"slice_spacing": "warn"}),
        ((2.75, 2.75, 25.0), {"slice_spacing": "fail"}),
        ((2.75, 2.75, 1.0), {"coverage": "warn", "lung_volume": "warn"}),
        ((0.5, 0.5, 5.0), {"field_of_view": "warn", "lung_volume": "fail"}),
        ((10.0, 10.0, 5.0), {"field_of_view": "warn", "lung_volume": "fail"}),
    ],
)
def test_a_spacing_that_is_coarse_or_wrong_is_named(chest, spacing_mm, expected):
    found = status_of(check_phantom(replace(chest.ct, grid=replace(chest.ct.grid, spacing_mm=spacing_mm)), chest.lungs))
    assert found.items() >= expected.items()


def test_few_slices_are_named_and_where_nothing_can_be_measured_nothing_is_said(chest):
    few = with_hu(chest.ct, chest.ct.hu[20:22])
    checks = check_phantom(few, chest.lungs[20:22])
    assert checks["slices"].status == "warn"
    assert checks["slice_order"].value is checks["slice_jump"].value is None
    assert checks["slice_jump"].status == "ok"


def test_the_scan_is_neither_changed_nor_judged_by_its_type(chest):
    before = chest.ct.hu.copy()
    as_float = check_phantom(with_hu(chest.ct, chest.ct.hu.astype(np.float32)), chest.lungs)
    assert as_float == check_phantom(chest.ct, chest.lungs)
    assert np.array_equal(chest.ct.hu, before)


@given(data=st.data(), shape=hnp.array_shapes(min_dims=3, max_dims=3, min_side=2, max_side=12))
def test_any_volume_with_any_labels_can_be_checked(chest, data, shape):
    hu = data.draw(hnp.arrays(np.int16, shape, elements=st.integers(-1024, 32767)))
    labels = data.draw(hnp.arrays(np.uint8, shape, elements=st.integers(0, 2)))
    labels[0, 0, 0] = LEFT
    checks = check_phantom(with_hu(chest.ct, hu), labels)
    assert list(checks) == list(LIMITS)
    json.dumps([asdict(check) for check in checks.values()], allow_nan=False)


@given(st.lists(st.floats(2, 100), min_size=5, max_size=30))
def test_a_jump_is_told_by_its_neighbours(steps):
    steps = np.array(steps)
    assert largest_jump(steps) == pytest.approx(largest_jump(steps[::-1]))
    assert largest_jump(np.full(10, steps[0])) == pytest.approx(1)
    assert largest_jump(np.r_[steps, [1000], steps]) >= 10


def test_blood_is_looked_for_between_two_lungs_only(chest):
    right_only = np.where(chest.lungs == LEFT, 0, chest.lungs)
    assert blood_hu(chest.ct.hu, right_only, voxel_ml=0.04) is None


# --- how it is judged


@given(NAMES, VALUES)
def test_a_recorded_value_is_judged_again_as_it_was(name, value):
    check = check_value(name, value, LIMITS[name])
    assert check_value(name, check.value, LIMITS[name]) == check
    assert Check(**json.loads(json.dumps(asdict(check), allow_nan=False))) == check


@given(NAMES, st.floats(0, 1e5), st.floats(0, 1e5))
def test_the_farther_from_what_is_expected_the_worse(name, step, more):
    low, high = LIMITS[name].ok
    for edge, away in ((low, -1), (high, 1)):
        if math.isfinite(edge):
            near, far = (check_value(name, edge + away * distance, LIMITS[name]) for distance in (step, step + more))
            assert RANK[near.status] <= RANK[far.status]
            assert check_value(name, edge, LIMITS[name]).status == "ok"


@pytest.mark.parametrize("name", LIMITS)
def test_every_limit_that_can_be_passed_says_what_it_means_and_what_to_do(name):
    limits = LIMITS[name]
    (low, high), (least, most) = limits.ok, limits.usable
    assert least <= low < high <= most
    passable = {
        "low": math.isfinite(low) and low != 0,  # what is measured is never negative where the least is 0
        "high": math.isfinite(high) and name != "smaller_lung",  # which is half at most
    }
    assert passable == {"low": bool(limits.low), "high": bool(limits.high)}
    for value, meaning in ((low - 1000, limits.low), (high + 1000, limits.high)):
        if meaning:
            message = check_value(name, value, LIMITS[name]).message
            assert re.match(rf"{re.escape(limits.subject)}: -?[\d.]+ ?{limits.unit}, expected at \w+ .*: ", message)
            assert message.endswith(meaning)


def test_a_failed_check_is_refused_a_warning_only_if_strict():
    fine, warned, failed = (
        check_value("slices", 60, LIMITS["slices"]),
        check_value("slices", 12, LIMITS["slices"]),
        check_value("lung_volume", 0.01, LIMITS["lung_volume"]),
    )
    refuse("scan", "a whole chest CT", [fine, warned])
    with pytest.raises(QualityError, match=r"^scan: expected a whole chest CT, found axial slices: 12, .* strict"):
        refuse("scan", "a whole chest CT", [fine, warned], strict=True)
    with pytest.raises(QualityError, match=r"found lung volume: 0\.01 l, expected at least 1\.5: .*; axial slices: 12"):
        refuse("scan", "a whole chest CT", [fine, warned, failed])
    assert verdict([]) == {"quality": None, "quality_notes": None, "checks": []}
    assert verdict([fine])["quality"] == "ok"


def test_a_refusal_keeps_its_checks_on_the_way_out_of_a_process():
    error = QualityError("scan: no chest", [check_value("slices", 3, LIMITS["slices"])])
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.checks) == (str(error), error.checks)


def test_the_document_has_the_limits():
    document = (ROOT / "docs/checks.md").read_text()

    def span(least, most):
        if least == -math.inf and most == math.inf:
            return "never"
        return f"≥ {least:g}" if most == math.inf else f"≤ {most:g}" if least == 0 else f"{least:g} to {most:g}"

    for name, each in LIMITS.items():
        row = f"| `{name}` | {each.subject} | {each.unit} | {span(*each.ok)} | {span(*each.usable)} |"
        assert row in document


# --- where it is found


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A small chest on disk, that checks warn of."""
    return write_small_chest(tmp_path_factory.mktemp("small") / "small.mha", 3)


@pytest.fixture(scope="module")
def thin(small):
    """The small chest with slices too far apart."""
    path = small.with_name("thin.mha")
    ct = read_ct(small)
    write_mha(path, replace(ct, grid=replace(ct.grid, spacing_mm=(4.0, 4.0, 25.0))))
    return path


@pytest.mark.parametrize("hu", [(-600, 300), (-850, 100), (0, 500)])
def test_noise_is_refused_before_any_network_looks_at_it(hu, chest):
    noise = np.random.default_rng(0).normal(*hu, chest.ct.hu.shape).clip(-1024, 3071).astype(np.int16)
    with pytest.raises(QualityError, match="expected a whole chest CT, found"):
        prepare(with_hu(chest.ct, noise))


def test_lungs_found_in_noise_are_refused(model, chest, monkeypatch):
    """The networks label lungs in noise, and what surrounds them is noise as well."""
    monkeypatch.setattr("balaitous.severity.preparation.check_scan", lambda ct: ())
    noise = np.random.default_rng(0).normal(-600, 300, chest.ct.hu[:12].shape).clip(-1024).astype(np.int16)
    with pytest.raises(QualityError, match="hardly denser than the lungs") as caught:
        model.predict(with_hu(chest.ct, noise))
    assert next(check for check in caught.value.checks if check.name == "lung_contrast").status == "fail"


@pytest.fixture(scope="module")
def row(model, small):
    """What a run says of the small chest."""
    return predict_item(model, Item(small))


def test_a_row_tells_the_worst_status_and_every_value(row):
    assert (row["status"], row["quality"]) == ("ok", "warn")
    assert "axial slices: 5, expected at least 30" in row["quality_notes"]
    checks = {check.name: check for check in checks_of(row, SEVERITY)}
    assert list(checks) == list(LIMITS)
    assert checks["lung_volume"].value == pytest.approx(row["lung_volume_litres"], rel=1e-3)


def test_a_row_of_a_refused_scan_tells_what_it_was_refused_for(model, thin):
    row = predict_item(model, Item(thin))
    assert (row["status"], row["error_kind"], row["quality"]) == ("failed", "QualityError", "fail")
    assert row["quality_notes"] in row["error"]
    assert [check.name for check in checks_of(row, SEVERITY) if check.status == "fail"] == ["slice_spacing"]


def test_a_strict_run_refuses_what_an_earlier_run_was_warned_of(row, small, tmp_path):
    def run(strict, *scans):
        return Run(scans, ItemTable(tmp_path / "table.csv", COLUMNS, resume=True), strict=strict)

    scan, other = Item(small), Item(tmp_path / "elsewhere.mha")
    first = run(False, scan)
    first.add(row)
    first.finish()
    assert run(False, scan).todo == []
    assert run(True, scan).todo == [scan]
    assert len(run(True, other).others) == 1  # a row of a scan that is not asked for stays


def test_the_command_warns_reports_and_if_strict_refuses(small, tmp_path, capsys, monkeypatch, logging_as_it_was):
    monkeypatch.setenv("BALAITOUS_WEIGHTS", "mini")
    table, report = tmp_path / "table.csv", tmp_path / "report.json"
    assert run_command("predict", small, "--out", table, "--report", report) == 0
    assert "; check: axial slices: 5, expected at least 30" in capsys.readouterr().err
    (row,) = csv.DictReader(table.open())
    (told,) = json.loads(report.read_text())["scans"]
    assert (row["quality"], told["quality"]) == ("warn", "warn")
    assert row["quality_notes"] == told["quality_notes"]
    assert [check["name"] for check in told["checks"]] == list(LIMITS)
    assert {check["status"] for check in told["checks"]} == {"ok", "warn"}

    assert run_command("predict", small, "--strict", "--report", report) == 3
    assert "strict" in capsys.readouterr().err.strip().splitlines()[-1]
    (told,) = json.loads(report.read_text())["scans"]
    assert (told["status"], told["error_kind"], told["quality"]) == ("failed", "QualityError", "warn")
    assert told["checks"]


def test_the_container_refuses_a_label_mask_and_records_what_failed(model, small, thin, tmp_path, capsys):
    """The test image of the STOIC template is a mask of labels 0, 1 and 2."""
    phantom = read_ct(small)
    labels = np.where(phantom.hu < -500, 1, np.where(phantom.hu > 0, 2, 0)).astype(np.int16)
    mask = Case(Item(tmp_path / "mask.mha"), "mask.mha")
    write_volume(mask.item.path, labels, phantom.grid)
    open_output(tmp_path)
    assert predict_cases(model, [mask], tmp_path) == InputError.exit_code
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("ERROR: ")
    assert line.endswith("this looks like a label mask or an 8-bit picture; give the CT itself")
    assert not (tmp_path / "probability-covid.json").exists()

    predict_cases(model, [mask, Case(Item(thin), "thin.mha")], tmp_path)
    masked, thinned = json.loads((tmp_path / "results.json").read_text())["cases"]
    assert (masked["status"], masked["quality"], masked["checks"]) == ("failed", None, [])
    assert (thinned["status"], thinned["quality"]) == ("failed", "fail")
    assert {check["name"]: check["value"] for check in thinned["checks"]}["slice_spacing"] == 25


@pytest.mark.data
@pytest.mark.parametrize("scan", ["cap_001_5mm.mha", "cmbcrc_MSB01068_5mm.mha", "lowres_id001.nii.gz"])
def test_real_scans_are_warned_of_for_low_resolution_only(data, scan):
    """Before their lungs are looked at; test_pipeline.py has four more, with lungs."""
    warned = {check.name: check.status for check in check_scan(read_ct(data / "ct" / scan)) if check.status != "ok"}
    assert warned == ({"pixel_spacing": "warn"} if "lowres" in scan else {})
