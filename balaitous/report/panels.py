"""A sheet of pictures: rows of panels beside each other, with titles, labels, the key of the colours and a caption."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from balaitous.report.style import FAINT, INK, PAPER, coloured, letters, wrapped

LARGEST_PANEL = 1024  # pixels of the longer side; larger pictures are made smaller for the sheet
LEAST_WIDTH = 480  # pixels of a sheet, so that its caption can be read
KEY_WIDTH = 256  # pixels: a column a colour


@dataclass(frozen=True)
class PanelRow:
    """A row of a sheet.

    Attributes
    ----------
    label : what stands above it
    panels : (Y, X, 3) each, all of one size
    """

    label: str
    panels: Sequence[NDArray[np.uint8]]


def sheet(titles: Sequence[str], rows: Sequence[PanelRow], caption: str, key: str = "") -> NDArray[np.uint8]:
    """Rows of panels as one picture (Y, X, 3) on white.

    Panels are shown pixel by pixel, but for those whose longer side is above `LARGEST_PANEL`.

    Parameters
    ----------
    titles : of the columns
    caption : below: what is seen, of what, with units
    key : what the colours of maps mean from 0 to 1; "": no key
    """
    height, width = rows[0].panels[0].shape[:2]
    shrink = min(1.0, LARGEST_PANEL / max(height, width))
    height, width = max(1, round(height * shrink)), max(1, round(width * shrink))
    size = min(28, max(13, width // 20))
    font, small = letters(size), letters(max(11, round(0.8 * size)))
    gap, line, small_line = size // 2, round(1.4 * size), round(1.15 * size)
    column = max(width, (LEAST_WIDTH - 2 * size - (len(titles) - 1) * gap) // len(titles))
    whole = 2 * size + len(titles) * column + (len(titles) - 1) * gap
    inner = whole - 2 * size
    heads = [wrapped(title, font, column) for title in titles]
    labels = [wrapped(row.label, font, inner) for row in rows]
    captions = wrapped(caption, small, inner)
    head = line * max(map(len, heads))
    body = sum(line * len(label) + height + size for label in labels)
    tall = size + head + gap + body + (2 * line if key else 0) + small_line * len(captions) + size
    image = Image.new("RGB", (whole, tall), PAPER)
    draw, top = ImageDraw.Draw(image), size
    lefts = [size + place * (column + gap) for place in range(len(titles))]
    for left, lines in zip(lefts, heads, strict=True):
        for place, text in enumerate(lines):
            draw.text((left, top + place * line), text, INK, font)
    top += head + gap
    for row, lines in zip(rows, labels, strict=True):
        for text in lines:
            draw.text((size, top), text, INK, font)
            top += line
        for left, panel in zip(lefts, row.panels, strict=True):
            shown = Image.fromarray(panel)
            image.paste(shown if shrink == 1 else shown.resize((width, height), Image.Resampling.LANCZOS), (left, top))
        top += height + size
    if key:
        colours = np.tile(coloured(np.linspace(0, 1, KEY_WIDTH)), (size, 1, 1))
        draw.text((size, top), "0", INK, small)
        left = size + round(small.getlength("0 "))
        image.paste(Image.fromarray(colours), (left, top))
        draw.text((left + KEY_WIDTH + size // 3, top), f"1  {key}", INK, small)
        top += 2 * line
    for text in captions:
        draw.text((size, top), text, FAINT, small)
        top += small_line
    return np.asarray(image)
