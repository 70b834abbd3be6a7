"""Which scans the lung U-Net learns from: folders and tables, masks of every kind, and what is kept of them."""

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from balaitous.ct.grid import Grid, StoredOrder
from balaitous.ct.volume import CT, SPACING_MM, read_ct, resample, write_mha, write_volume
from balaitous.errors import InputError, MaskError, NoLungError
from balaitous.synthetic.phantom import make_phantom
from balaitous.training.lungs.cases import IGNORE, mask_labels, read_case, slices_within
from balaitous.training.lungs.data import LungScan, list_lung_scans, prepare_cases, prepared_case, unsure_of

PHANTOM = make_phantom(41, spacing_mm=(4.0, 4.0, 10.0), size=(84, 70, 8))


def write_labels(path: Path, labels: np.ndarray) -> Path:
    write_volume(path, labels, PHANTOM.ct.grid)
    return path


@pytest.fixture
def scan(tmp_path) -> Path:
    write_mha(tmp_path / "p1.mha", PHANTOM.ct)
    return tmp_path / "p1.mha"


def touched(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


# --- listing


def test_masks_in_a_folder_belong_to_the_scans_beside_them(tmp_path):
    touched(tmp_path, "a.mha", "a_lungmask.nii.gz", "b.nii.gz", "b_mask.mha", "c.nrrd", "notes.txt", "sub/d_mask.mha")
    found = {scan.name: scan.mask and scan.mask.name for scan in list_lung_scans(tmp_path)}
    assert found == {"a": "a_lungmask.nii.gz", "b": "b_mask.mha", "c": None, "d_mask": None}


def test_scans_of_the_same_name_are_called_by_their_path(tmp_path):
    touched(tmp_path, "1/ct.mha", "1/ct_mask.mha", "2/ct.mha", "other.mha")
    scans = list_lung_scans(tmp_path, held_out=["2/ct.mha"])
    assert [(scan.name, scan.held_out) for scan in scans] == [
        ("1/ct.mha", False),
        ("2/ct.mha", True),
        ("other", False),
    ]
    assert scans[0].mask == tmp_path / "1/ct_mask.mha"


def test_a_table_says_mask_held_out_and_unsure_slices(tmp_path):
    table = tmp_path / "cohort.csv"
    table.write_text("path,mask,held_out,unsure,site\na.mha,m/a.mha,,3-5,Lyon\nsub/b.mha,,1,,\nc.mha,,False,,\n")
    a, b, c = list_lung_scans(table, held_out=["c"])
    assert (a.path, a.mask, a.held_out, a.unsure) == (tmp_path / "a.mha", tmp_path / "m/a.mha", False, slice(3, 6))
    assert (b.name, b.mask, b.held_out, b.unsure) == ("b", None, True, None)
    assert c.held_out


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("scan\na.mha\n", "expected the columns path; path not found"),
        ("path\n", "expected a line for every scan, found none"),
        ("path,held_out\na.mha,maybe\n", r"line 2: held_out must be 1 .*Got 'maybe'"),
        ("path,unsure\na.mha,\nb.mha,12\n", r"line 3: unsure must be the first and the last slice.*Got '12'"),
        ("path\na.mha\na.mha\n", "expected every scan once, found twice or more: .*a.mha"),
    ],
)
def test_a_table_that_makes_no_sense_is_refused(text, says, tmp_path):
    (tmp_path / "cohort.csv").write_text(text)
    with pytest.raises(InputError, match=says):
        list_lung_scans(tmp_path / "cohort.csv")


def test_an_unknown_name_cannot_be_held_out(tmp_path):
    touched(tmp_path, "a.mha", "b.mha")
    with pytest.raises(InputError, match=r"names of scans to hold out \(a, b\), found B, c\."):
        list_lung_scans(tmp_path, held_out=["a", "B", "c"])


@given(st.integers(0, 999), st.integers(0, 999))
def test_unsure_slices_include_both_ends(first, length):
    slices = unsure_of(f"{first}-{first + length}")
    assert list(range(1999)[slices]) == list(range(first, first + length + 1))


# --- masks


def test_right_and_left_are_taken_from_the_mask(scan, tmp_path):
    labels = mask_labels(write_labels(tmp_path / "m.mha", PHANTOM.lungs), read_ct(scan))
    assert labels.shape == resample(PHANTOM.ct).hu.shape
    for label in (1, 2):
        volume = (labels == label).sum() * np.prod(SPACING_MM)
        assert volume == pytest.approx((PHANTOM.lungs == label).sum() * np.prod(PHANTOM.ct.grid.spacing_mm), rel=0.15)


@pytest.mark.parametrize("value", [1, 255])
def test_a_binary_mask_is_split_into_right_and_left(value, scan, tmp_path):
    binary = write_labels(tmp_path / "b.mha", ((PHANTOM.lungs > 0) * value).astype(np.uint8))
    labels = mask_labels(write_labels(tmp_path / "m.mha", PHANTOM.lungs), read_ct(scan))
    assert (mask_labels(binary, read_ct(scan)) == labels).mean() > 0.999


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        (PHANTOM.lungs + 2, "expected 0, 1 .*found 2, 3, 4. Map the labels"),
        ((3 - PHANTOM.lungs) * (PHANTOM.lungs > 0), "found them the other way round"),
        (PHANTOM.lungs * np.float32(0.5), "found 0.5, 1. Map"),
    ],
)
def test_other_labels_are_refused(labels, says, scan, tmp_path):
    with pytest.raises(MaskError, match=says):
        mask_labels(write_labels(tmp_path / "m.mha", labels), read_ct(scan))


def test_a_mask_without_lungs_is_refused(scan, tmp_path):
    with pytest.raises(NoLungError, match=r"expected lungs, found none in .*empty.mha"):
        read_case(scan, write_labels(tmp_path / "empty.mha", np.zeros_like(PHANTOM.lungs)))


def test_unsure_slices_are_unknown(scan):
    case, whole = read_case(scan, unsure=slice(2, 4)), read_case(scan)
    unsure = (case.labels == IGNORE).all(axis=(1, 2))
    assert np.flatnonzero(unsure).tolist() == [3, 4, 5, 6, 7]  # every 5 mm, of slices at 20 and 30 mm
    assert np.array_equal(case.labels[~unsure], whole.labels[~unsure])
    assert case.pseudo
    with pytest.raises(InputError, match="expected unsure slices from 0 to 7, found 2-8"):
        read_case(scan, unsure=slice(2, 9))


@given(st.integers(4, 80), st.booleans(), st.integers(0, 19), st.integers(1, 20))
def test_unsure_slices_are_those_that_are_interpolated_from_them(eighths, is_reversed, first, length):
    chosen = slice(first, first + length)
    inside = np.zeros((40, 4, 4), np.float32)
    inside[chosen] = 1
    ct = CT(
        inside,
        Grid(inside.shape, (1.5, 1.5, eighths / 8), (0.0, 0.0, -7.0)),
        name="scan",
        path="scan.mha",
        stored=StoredOrder(reversed=(False, False, is_reversed)),
    )
    resampled = resample(ct)
    assert slices_within(chosen, ct, resampled).tolist() == (resampled.hu[:, 0, 0] > 1e-4).tolist()


# --- preparation


def test_scans_are_prepared_once_and_those_that_fail_are_listed(scan, tmp_path, caplog, monkeypatch):
    touched(tmp_path, "damaged.mha")
    (tmp_path / "cohort.csv").write_text("path,mask\np1.mha,\ndamaged.mha,\np1_copy.mha,nowhere.mha\n")
    scans, folder = list_lung_scans(tmp_path / "cohort.csv"), tmp_path / "kept"
    with caplog.at_level(logging.INFO):
        first = prepare_cases(scans, folder, phantoms=1)
    assert "2/3 damaged: left out: " in caplog.text
    assert [case.name for case in first.training] == ["p1", "phantom_1000"]
    listed = pd.read_csv(folder / "scans.csv")
    assert listed.status.tolist() == ["ok", "failed", "failed"]
    assert listed.error.str.contains("p1_copy.mha: expected a scan or its mask, found no such file")[2]

    made = []
    monkeypatch.setattr("balaitous.training.lungs.data.read_case", lambda path, *_: made.append(path.name))
    monkeypatch.setattr("balaitous.training.lungs.data.phantom_case", made.append)
    second = prepare_cases(scans, folder, phantoms=1)
    assert made == ["damaged.mha"]
    for case, again in zip(first.training, second.training, strict=True):
        assert np.array_equal(case.hu, again.hu)
        assert np.array_equal(case.labels, again.labels)


def test_a_mask_that_changed_is_read_again(scan, tmp_path):
    labels = PHANTOM.lungs.copy()
    sums = []
    for _ in range(2):
        write_labels(tmp_path / "p1_mask.mha", labels)
        case = prepare_cases(list_lung_scans(tmp_path), tmp_path / "kept").training[0]
        sums.append(int((case.labels > 0).sum()))
        labels[6:] = 0
    assert 0 < sums[1] < 0.8 * sums[0]


def test_a_scan_that_changes_while_it_is_read_is_kept_under_no_hash(scan, tmp_path, monkeypatch):
    def read_then_change(*arguments):
        case = read_case(*arguments)
        write_mha(scan, replace(PHANTOM.ct, hu=PHANTOM.ct.hu - 1))
        return case

    monkeypatch.setattr("balaitous.training.lungs.data.read_case", read_then_change)
    with pytest.raises(InputError, match=r"p1\.mha: expected files that stay as they are while they are read"):
        prepared_case(LungScan("p1", scan), tmp_path / "kept")
    assert not (tmp_path / "kept").exists()


def test_a_scan_is_not_trained_on_and_held_out_under_another_name(scan, tmp_path):
    write_mha(tmp_path / "same.mha", replace(PHANTOM.ct, patient=replace(PHANTOM.ct.patient, age_years=30.0)))
    with pytest.raises(InputError, match=r"same \(held out\) and p1 are the same scan"):
        prepare_cases(list_lung_scans(tmp_path, held_out=["same"]), tmp_path / "kept")


def test_without_a_scan_to_train_on_nothing_begins(scan, tmp_path):
    touched(tmp_path, "damaged.mha")
    with pytest.raises(InputError, match=r"found 2 scans, of which 1 are held out and 1 failed. Why is in .*scans.csv"):
        prepare_cases(list_lung_scans(tmp_path, held_out=["p1"]), tmp_path / "kept")
