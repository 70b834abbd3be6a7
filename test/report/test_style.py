"""One look: colours that stay apart in grey, letters that fit, scale bars that are as long as they say."""

import numpy as np
import pytest

from balaitous.report.style import COLOURS, PAGE_STYLE, coloured, letters, window_name, with_marks, wrapped


def luminance(rgb):
    """Relative luminance as WCAG has it, of 8-bit sRGB."""
    linear = np.where((share := np.asarray(rgb) / 255) <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    return linear @ (0.2126, 0.7152, 0.0722)


def of_hex(text):
    text = text.lstrip("#")
    text = "".join(2 * each for each in text) if len(text) == 3 else text
    return [int(text[k : k + 2], 16) for k in (0, 2, 4)]


def test_maps_grow_lighter_with_what_they_show_so_that_grey_print_keeps_the_order():
    light = luminance(coloured(np.linspace(0, 1, 256)))
    assert np.all(np.diff(light) > -1e-4)
    assert light[-1] - light[0] > 0.9
    assert coloured(np.full((2, 3), 2.0)).tolist() == coloured(np.ones((2, 3))).tolist()


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
@pytest.mark.parametrize("name", ["ink", "faint", "link"])
def test_text_of_pages_stands_out_from_the_paper(theme, name):
    themes = PAGE_STYLE.split("prefers-color-scheme")
    colours = [of_hex(themes[theme].partition(f"--{each}: ")[2].partition(";")[0]) for each in (name, "paper")]
    high, low = sorted(map(luminance, colours), reverse=True)
    assert (high + 0.05) / (low + 0.05) >= 4.5


def test_two_colours_of_drawings_differ_in_grey():
    dark, light = (luminance(of_hex(each)) for each in COLOURS)
    assert light > 1.3 * dark


def test_a_window_is_called_by_name_level_and_width():
    assert window_name("lung", -1350, 150) == "lung window, level −600 HU, width 1500 HU"


@pytest.mark.parametrize("width", [40, 120, 400])
def test_a_text_is_wrapped_to_its_width_and_loses_no_word(width):
    text = "Research use only. pneumonoultramicroscopicsilicovolcanoconiosis is one word; not for diagnosis."
    lines = wrapped(text, letters(13), width)
    assert "".join("".join(lines).split()) == "".join(text.split())
    assert all(letters(13).getlength(line) <= width for line in lines)


@pytest.mark.parametrize(("pixel_mm", "length_mm"), [(0.7, 50), (2.5, 100), (0.1, 10), (3.0, 100)])
def test_a_scale_bar_is_as_long_as_it_says(pixel_mm, length_mm):
    size = 400
    marked = with_marks(np.full((size, size, 3), 90, np.uint8), pixel_mm)
    bottom = marked[-size // 40 - 1, :, 0]  # the lowest line of the bar
    assert abs((bottom == 255).sum() - length_mm / pixel_mm) <= 1
    assert (marked[: size // 2] == 90).all()


def test_marks_are_left_out_where_nothing_is_known():
    picture = np.random.default_rng(0).integers(0, 255, (60, 80, 3), np.uint8)
    assert np.array_equal(with_marks(picture), picture)
    sides = with_marks(picture, sides=("R", "L"))
    changed = (sides != picture).any(axis=(0, 2))
    assert changed[:20].any()
    assert changed[-20:].any()
    assert not changed[25:55].any()
