"""What is shown of slices: maps of every output at the slice's own size, and beside those of other weights."""

import re
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from balaitous.report.overlays import as_colour, overlay, scaled
from balaitous.report.style import coloured
from balaitous.slices.pictures import maps_sheet, save, what_is_seen
from balaitous.slices.pipeline import SliceClassifier
from helpers import PHANTOM
from helpers.commands import run_command
from helpers.slices import write_phantom_slice, write_slices_bundle


@pytest.fixture(scope="module")
def bundles(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundles")
    return [write_slices_bundle(folder / "first"), write_slices_bundle(folder / "second", seed=3)]


@pytest.fixture(scope="module")
def models(bundles):
    return [SliceClassifier(each, device="cpu") for each in bundles]


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    return write_phantom_slice(tmp_path_factory.mktemp("pictures") / "slice.png")


def shown_in(whole, part):
    """How often a panel is in a sheet, pixel by pixel."""
    height, width = part.shape[:2]
    starts = np.argwhere((whole == part[0, 0]).all(axis=2))
    return sum(np.array_equal(whole[y : y + height, x : x + width], part) for y, x in starts)


def read(path):
    with Image.open(path) as image:
        return np.asarray(image)


def test_maps_and_overlay_are_of_the_pictures_own_size(models, picture, tmp_path):
    found = models[0].predict(picture)
    shown = save(found, tmp_path)
    assert [each.file for each in shown] == ["overlay.png", "maps.png"]
    maps = found.maps()
    over = read(tmp_path / "overlay.png")
    assert over.shape == (*found.grey.shape, 3)
    assert np.array_equal(over, overlay(found.grey, scaled(maps["covid"])))
    whole = read(tmp_path / "maps.png")
    assert shown_in(whole, as_colour(found.grey)) >= len(maps)
    for each in maps.values():
        assert shown_in(whole, coloured(scaled(each))) >= 1
        assert shown_in(whole, overlay(found.grey, scaled(each))) >= 1


def test_maps_of_other_weights_stand_beside(models, picture):
    first, second = (each.predict(picture) for each in models)
    alone, both = maps_sheet([first]), maps_sheet([first, second])
    assert both.shape[1] > alone.shape[1]
    for each in (first, second):
        assert shown_in(both, coloured(scaled(each.maps()["ggo"]))) >= 1
    other = replace(second, slices=(second.grey[::-1].copy(),))
    with pytest.raises(ValueError, match="predictions must be of one slice"):
        maps_sheet([first, other])


def test_of_a_ct_the_slice_is_told_with_window_sides_and_scale(models, tmp_path):
    found = models[0].predict(PHANTOM)
    told = what_is_seen(found)
    assert f"axial slice {found.indices[found.most_likely]} of {found.slices_in_item}" in told
    assert "lung window, level −600 HU, width 1500 HU" in told
    assert found.spacing_mm == pytest.approx((2.4, 2.4), abs=2)
    save(found, tmp_path)
    over = read(tmp_path / "overlay.png")
    plain = overlay(found.grey, scaled(found.maps()["covid"]))
    assert over.shape == plain.shape
    assert (over != plain).any(axis=(0, 2))[:20].any()


@pytest.mark.usefixtures("logging_as_it_was")
def test_the_command_saves_pictures_and_volumes_and_compares(bundles, tmp_path, capsys):
    (tmp_path / "in").mkdir()
    write_phantom_slice(tmp_path / "in/slice.png")
    (tmp_path / "in/scan.mha").write_bytes(PHANTOM.read_bytes())
    words = ("predict", tmp_path / "in", "--model", "slices", "--weights", bundles[0], "--out", tmp_path / "t.csv")
    words = (*words, "--save", tmp_path / "out", "--compare", bundles[1])
    assert run_command(*words, "--report", tmp_path / "run.json") == 0
    assert "Compared with 'second'" in capsys.readouterr().err
    assert '"compared_with": {' in (tmp_path / "run.json").read_text()
    for name in ("slice", "scan"):
        files = sorted(each.name for each in (tmp_path / "out" / name).iterdir())
        assert files == ["case.json", "index.html", "maps.png", "overlay.png"]
        page = (tmp_path / "out" / name / "index.html").read_text()
        assert page.count("<figure>") == 2
        assert not re.search(r'src="(?!data:)', page)
    assert run_command(*words, "--resume") == 0
    assert "2 done before" in capsys.readouterr().err
    assert run_command(*words[:-2], "--resume") == 0  # what is shown would be another picture
    assert "2 done" in capsys.readouterr().err.splitlines()[-1]
