"""The steps without a network, as prediction takes them, on a volume whose lungs are known."""

from dataclasses import replace

import numpy as np
import pytest

from balaitous.ct.grid import StoredOrder
from balaitous.ct.lungs import UNET_GRID
from balaitous.ct.volume import read_ct, write_mha
from balaitous.errors import InputError
from balaitous.reading.fingerprint import content_sha256
from balaitous.severity.preparation import prepare, view_lungs
from balaitous.synthetic.phantom import make_phantom
from helpers.lungs import dice, in_view, true_labels


@pytest.fixture(scope="module")
def phantom():
    """Wide enough for the encoders' 224 voxels of 1.5 mm to find room in it."""
    return make_phantom(5, spacing_mm=(3.0, 3.0, 5.0), size=(130, 120, 58))


@pytest.fixture(scope="module")
def prepared(phantom):
    return prepare(phantom.ct)


def crop_labels(prepared, labels):
    """What a network without fault says of the crops: each pixel's label is that of the voxel below it."""
    crops = np.empty((len(labels), UNET_GRID, UNET_GRID), np.uint8)
    for axial, box, crop in zip(labels, prepared.body.boxes, crops, strict=True):
        body = axial[box]
        rows, columns = (np.linspace(0, length - 1, UNET_GRID).round().astype(int) for length in body.shape)
        crop[:] = body[np.ix_(rows, columns)]
    return crops


def test_a_scan_that_is_exchanged_after_it_was_read_gets_no_hash(phantom, tmp_path, monkeypatch):
    path = tmp_path / "scan.mha"
    write_mha(path, phantom.ct)

    def read_then_exchange(scan, series):
        ct = read_ct(scan, series=series)
        write_mha(path, make_phantom(6, spacing_mm=(3.0, 3.0, 5.0), size=(130, 120, 58)).ct)
        return ct

    assert prepare(path).input_sha256 == content_sha256(path)
    monkeypatch.setattr("balaitous.severity.preparation.read_ct", read_then_exchange)
    with pytest.raises(InputError, match=r"scan\.mha: expected files that stay as they are while they are read"):
        prepare(path)


def test_known_lungs_come_out_whole_and_in_their_place_in_what_the_encoders_see(phantom, prepared):
    labels = true_labels(phantom, prepared.ct.grid)
    view = view_lungs(prepared, crop_labels(prepared, labels))
    assert view.volume_litres == pytest.approx(phantom.lung_ml / 1000, rel=0.01)
    assert dice(view.mask, in_view(view.image, prepared.ct.hu, labels) > 0) > 0.99  # voxels at the edge
    assert view.image.shape == view.mask.shape == (len(view.image), 224, 224)
    with_lung = np.flatnonzero(labels.any(axis=(1, 2)))
    assert len(view.image) == pytest.approx(0.8 * np.ptp(with_lung), abs=1)


def test_a_stored_back_to_front_scan_shows_the_encoders_the_same_voxels_the_other_way_round(phantom, prepared):
    labels = true_labels(phantom, prepared.ct.grid)
    turned = replace(prepared, ct=replace(prepared.ct, stored=StoredOrder(reversed=(False, True, False))))
    view, other = (view_lungs(each, crop_labels(prepared, labels)) for each in (prepared, turned))
    assert dice(other.mask, view.mask[:, ::-1]) > 0.95  # the crop may fall one voxel beside
    assert other.volume_litres == view.volume_litres


def test_a_lung_that_the_network_takes_for_the_other_is_a_lung_all_the_same(phantom, prepared):
    labels = true_labels(phantom, prepared.ct.grid)
    view, swapped = (
        view_lungs(prepared, crop_labels(prepared, each)) for each in (labels, (3 - labels) * (labels > 0))
    )
    assert np.array_equal(view.mask, swapped.mask)


def test_lungs_cut_in_two_by_an_empty_slice_are_warned_of(phantom, prepared):
    labels = crop_labels(prepared, true_labels(phantom, prepared.ct.grid))
    whole = {check.name: check for check in view_lungs(prepared, labels).checks}
    assert whole["lung_dropped"].status == "ok"
    assert whole["lung_dropped"].value < 1
    with_lung = np.flatnonzero(labels.any(axis=(1, 2)))
    labels[int(with_lung.mean())] = 0
    cut = {check.name: check for check in view_lungs(prepared, labels).checks}
    assert cut["lung_dropped"].status == "warn"
    assert cut["lung_dropped"].value > 25
