"""Lung labels, cleaning and crops, on small volumes whose right answer is plain."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from balaitous.ct.lungs import (
    AIR_HU,
    LEFT,
    RIGHT,
    UNET_GRID,
    body_box,
    body_crops,
    clean_lungs,
    dropped_share,
    fill_holes,
    merge_components,
    nearest,
    volume_labels,
)
from balaitous.errors import NoLungError
from balaitous.severity.crops import crop_in_plane, crop_to_lungs, lung_slices

LUNG_HU, TISSUE_HU = -850, 40


def chest_slice(height: int = 200, width: int = 240) -> np.ndarray:
    """A body of tissue with two lungs, rows 40–160 and columns 30–210, in air."""
    hu = np.full((height, width), AIR_HU, np.int16)
    hu[40:160, 30:210] = TISSUE_HU
    hu[60:140, 45:110] = LUNG_HU
    hu[60:140, 130:195] = LUNG_HU
    return hu


def two_lungs(slices: int = 12, size: int = 40) -> np.ndarray:
    labels = np.zeros((slices, size, size), np.uint8)
    labels[1:-1, 10:30, 4:16] = RIGHT
    labels[1:-1, 10:30, 24:36] = LEFT
    return labels


def test_body_box_holds_the_body_and_little_more():
    rows, columns = body_box(chest_slice())
    assert 34 <= rows.start <= 41
    assert 159 <= rows.stop <= 166
    assert 24 <= columns.start <= 31
    assert 209 <= columns.stop <= 216


def test_body_box_of_air_is_the_whole_slice():
    assert body_box(np.full((90, 70), AIR_HU, np.int16)) == (slice(0, 90), slice(0, 70))


def test_body_crops_show_the_body_windowed_in_whole_hounsfield_units():
    hu = chest_slice()
    hu[95:105, 50:60] = 3000
    body = body_crops(hu[None])
    crops, boxes = body.crops, body.boxes
    assert crops.shape == (1, UNET_GRID, UNET_GRID)
    assert crops.dtype == hu.dtype
    assert boxes == [body_box(hu)]
    assert crops.min() >= AIR_HU
    assert crops.max() == 600
    assert crops[0, UNET_GRID // 2, UNET_GRID // 2] == TISSUE_HU


@given(st.integers(1, 400), st.integers(1, 400))
def test_nearest_resize_keeps_corners_and_order(size_in, size_out):
    index = nearest(size_in, size_out)
    assert len(index) == size_out
    assert index[0] == 0
    assert (np.diff(index) >= 0).all()
    if size_out > 1:
        assert index[-1] == size_in - 1


def test_labels_return_to_their_place_in_the_slice():
    hu = np.stack([chest_slice()] * 6)

    def network(crops):  # air inside the body, right half and left half
        lung = (crops > -940) & (crops < -540)
        side = np.where(np.arange(UNET_GRID) < UNET_GRID // 2, RIGHT, LEFT)
        return np.where(lung, side, 0).astype(np.uint8)

    body = body_crops(hu)
    labels = volume_labels(network(body.crops), body)
    truth = np.zeros(hu.shape, bool)
    truth[:, 60:140, 45:110] = truth[:, 60:140, 130:195] = True
    overlap = 2 * (truth & (labels > 0)).sum() / (truth.sum() + (labels > 0).sum())
    assert overlap > 0.98
    assert set(np.unique(labels[:, 100, 50:100])) == {RIGHT}
    assert set(np.unique(labels[:, 100, 140:190])) == {LEFT}


def test_a_stray_component_joins_the_lung_around_it():
    labels = two_lungs()
    labels[4:7, 15:18, 8:11] = LEFT  # inside the right lung
    assert np.array_equal(merge_components(labels), two_lungs())


def test_a_component_without_neighbours_is_dropped():
    labels = two_lungs()
    labels[0:1, 0:3, 0:3] = RIGHT
    assert np.array_equal(merge_components(labels), two_lungs())


def test_a_hole_in_a_lung_is_filled():
    labels = two_lungs()
    labels[5, 18, 8] = 0
    assert np.array_equal(merge_components(labels), two_lungs())


def components(mask):
    return ndimage.label(mask, structure=np.ones((3, 3, 3)))


@given(hnp.arrays(np.uint8, (4, 9, 9), elements=st.sampled_from([0] * 8 + [RIGHT, LEFT])))
def test_merging_leaves_at_most_one_component_a_lung(labels):
    merged = merge_components(labels)
    for label in (RIGHT, LEFT):
        assert components(merge_components(labels * (labels == label)))[1] == labels.__contains__(label)
    assert components(merged == LEFT)[1] <= 1
    # the left lung is filled last and may cut the right one, into parts that all lie at the cut
    parts, count = components(merged == RIGHT)
    beside_left = ndimage.binary_dilation(merged == LEFT, np.ones((3, 3, 3)))
    assert count <= 1 or set(np.unique(parts[beside_left])) >= set(range(1, count + 1))


@given(hnp.arrays(bool, (5, 6, 7)))
def test_holes_are_what_scipy_calls_holes(mask):
    if mask.any():
        assert np.array_equal(fill_holes(mask), ndimage.binary_fill_holes(mask))


def test_cleaning_keeps_one_component_a_lung():
    labels = two_lungs()
    labels[0, 0:4, 0:4] = RIGHT
    mask = clean_lungs(np.full(labels.shape, LUNG_HU, np.int16), labels)
    assert np.array_equal(mask, two_lungs() > 0)


def test_cleaning_drops_a_part_of_a_slice_that_holds_no_air():
    labels = two_lungs()
    hu = np.full(labels.shape, LUNG_HU, np.int16)
    hu[3, :, :20] = TISSUE_HU
    mask = clean_lungs(hu, labels)
    assert not mask[3, :, :20].any()
    assert mask[3, :, 20:].any()
    assert mask[4, :, :20].any()


def test_what_merging_and_cleaning_leave_out_is_measured():
    """Lungs of ten slices, cut through by an empty one: of each, the smaller part goes."""
    found = two_lungs()
    hu = np.full(found.shape, LUNG_HU, np.int16)
    found[4] = 0
    labels = merge_components(found)
    kept = int(clean_lungs(hu, labels).sum())
    assert dropped_share(found, labels, kept) == pytest.approx(100 * 3 / 9)
    assert dropped_share(found, found, kept) == pytest.approx(100 * 3 / 9)  # whoever drops it
    assert dropped_share(two_lungs(), two_lungs(), int((two_lungs() > 0).sum())) == 0
    assert dropped_share(np.zeros_like(found), np.zeros_like(found), 0) == 0


@given(
    height=st.integers(150, 300),
    width=st.integers(150, 300),
    top=st.integers(0, 100),
    left=st.integers(0, 100),
)
def test_crop_in_plane_gives_224_and_keeps_the_lung_when_it_fits(height, width, top, left):
    mask = np.zeros((1, height, width), bool)
    mask[0, top : top + 50, left : left + 50] = True
    hu = np.where(mask, LUNG_HU, TISSUE_HU).astype(np.int16)
    image, view = crop_in_plane(hu, mask)
    assert image.shape == view.shape == (1, 224, 224)
    assert view.sum() == mask.sum()
    assert (image[view] == LUNG_HU).all()


def test_padding_is_air_with_the_odd_voxel_last():
    mask = np.ones((1, 221, 224), bool)
    image, view = crop_in_plane(np.zeros((1, 221, 224), np.int16), mask)
    assert (image[0, [0, -1, -2]] == AIR_HU).all()
    assert (image[0, [1, -3]] == 0).all()
    assert not view[0, [0, -1, -2]].any()


def test_the_crop_is_centred_on_the_lung():
    mask = np.zeros((1, 224, 400), bool)
    mask[0, 50:60, 100:301] = True  # middle 200
    columns = np.arange(400, dtype=np.int16)[None, None].repeat(224, 1)
    image, _ = crop_in_plane(columns, mask)
    assert image[0, 0, 0] == 200 - 112
    assert image[0, 0, -1] == 200 + 111


@pytest.mark.parametrize(
    ("first", "last", "expected"), [(5, 45, slice(9, 41)), (0, 2, slice(0, 1)), (3, 13, slice(4, 12))]
)
def test_ten_percent_at_either_end_and_the_last_slice_are_left_out(first, last, expected):
    mask = np.zeros((60, 4, 4), bool)
    mask[first : last + 1, 1, 1] = True
    assert lung_slices(mask) == expected


@pytest.mark.parametrize("count", [1, 2])
def test_too_few_slices_with_lung_are_refused(count):
    mask = np.zeros((10, 4, 4), bool)
    mask[:count, 1, 1] = True
    with pytest.raises(NoLungError, match=r"lung found in .* at least 3"):
        lung_slices(mask)


def test_no_lung_is_said():
    with pytest.raises(NoLungError, match="no lung found"):
        crop_to_lungs(np.zeros((5, 30, 30), np.int16), np.zeros((5, 30, 30), np.uint8))
