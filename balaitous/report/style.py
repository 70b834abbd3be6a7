"""One look for all that people see: colours, letters, names of windows, scale bar, side letters, the disclaimer.

The colours are told apart by people who see no red or no green, and by how light they are, in grey print.
"""

from __future__ import annotations

import textwrap
from functools import lru_cache
from pathlib import Path

import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from balaitous.weights.card import RESEARCH_USE

DISCLAIMER = RESEARCH_USE  # which a bundle tells as well, unless it has words of its own

COLOURS = ("#0b5fa5", "#c8551b")  # of one thing and another: blue and orange, which is lighter
MAP_COLOURS = "inferno"  # of matplotlib: from black over purple and orange to yellow, ever lighter
PAPER, INK, FAINT = (255, 255, 255), (26, 26, 26), (96, 96, 96)  # of pictures with text: readable in print and on dark
LETTERS = "DejaVuSans.ttf"  # comes with matplotlib
BAR_LENGTHS_MM = (100, 50, 20, 10, 5, 2, 1)
BAR_SHARE = 0.3  # of the picture's width that a scale bar takes at most

# The greys and colours of pages, which follow the reader's choice of light or dark.
PAGE_STYLE = f"""
:root {{ color-scheme: light dark; --paper: #fff; --ink: #222; --faint: #595959; --line: #ccc; --warn: {COLOURS[1]};
  --link: {COLOURS[0]}; --bar: #9dbfdc; }}
@media (prefers-color-scheme: dark) {{ :root {{ --paper: #16181b; --ink: #e6e6e6; --faint: #a8a8a8; --line: #44484d;
  --warn: #f0935f; --link: #8fc1ee; --bar: #35607f; }} }}
body {{ font: 14px/1.45 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 60rem;
  margin: 2rem auto; padding: 0 1rem; }}
h1 {{ font-size: 1.5rem; overflow-wrap: anywhere; }} h2 {{ font-size: 1.1rem; margin-top: 1.6rem; }}
a {{ color: var(--link); }}
.wide {{ overflow-x: auto; }}
table {{ border-collapse: collapse; width: 100%; }}
td, th {{ text-align: left; vertical-align: top; padding: .25rem .6rem .25rem 0; }}
th {{ border-bottom: 1px solid var(--faint); font-weight: 600; }} td {{ border-bottom: 1px solid var(--line); }}
td {{ font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }}
img {{ width: 100%; }} img.own {{ width: auto; max-width: 100%; }}
figure {{ margin: 1rem 0; }} figure img {{ width: auto; min-width: min(100%, 20rem);
  max-width: 100%; background: #fff; }}
figcaption, .note {{ color: var(--faint); font-size: .9em; }}
.use {{ border-left: 4px solid var(--warn); padding-left: .7rem; }}
.thumbnail {{ width: 96px; }} .thumbnail img {{ width: 96px; display: block; }}
.share {{ display: block; width: 4.5rem; height: .45rem; margin-top: .2rem; outline: 1px solid var(--line); }}
.share span {{ display: block; height: 100%; background: var(--bar); }}
@media print {{ :root {{ --paper: #fff; --ink: #000; --faint: #444; --line: #bbb; }} }}
"""


def window_name(name: str, low_hu: float, high_hu: float) -> str:
    """What a window is called: its name, level and width in HU."""
    level, width = (low_hu + high_hu) / 2, high_hu - low_hu
    return f"{name} window, level {level:g} HU, width {width:g} HU".replace("-", "−")


@lru_cache(maxsize=32)
def letters(pixels: int) -> ImageFont.FreeTypeFont:
    """The letters of all pictures, of a height in pixels."""
    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts/ttf" / LETTERS, pixels)


def wrapped(text: str, font: ImageFont.FreeTypeFont, width: int) -> list[str]:
    """A text in lines that are at most so many pixels wide; a word that is wider is cut in pieces."""
    columns = max(1, len(text))
    while columns > 1:
        lines = textwrap.wrap(text, columns) or [""]
        widest = max(lines, key=font.getlength)
        if font.getlength(widest) <= width:
            return lines
        columns = min(columns - 1, int(len(widest) * width / font.getlength(widest)) + 1)
    return textwrap.wrap(text, 1) or [""]


def coloured(shares: NDArray) -> NDArray[np.uint8]:
    """Numbers in [0, 1] of any shape as the colours of maps, red, green, blue in the last axis."""
    return _map_colours()[np.round(255 * np.clip(shares, 0, 1)).astype(int)]


@lru_cache(maxsize=1)
def _map_colours() -> NDArray[np.uint8]:
    return np.round(255 * matplotlib.colormaps[MAP_COLOURS](np.arange(256))[:, :3]).astype(np.uint8)


def with_marks(
    picture: NDArray[np.uint8], pixel_mm: float | None = None, sides: tuple[str, str] | None = None
) -> NDArray[np.uint8]:
    """A picture with a scale bar and the letters of its sides, white with a dark rim, on top; the rest as it was.

    Parameters
    ----------
    picture : (Y, X, 3)
    pixel_mm : of a pixel along x; None where that is not known: no bar
    sides : what lies to the left and to the right of the picture, such as ("R", "L"); None where that is not known
    """
    image = Image.fromarray(picture)
    draw, (width, height) = ImageDraw.Draw(image), image.size
    size = max(10, min(width, height) // 20)
    edge, font, rim = size // 2, letters(size), max(1, size // 10)

    def write(x: int, y: int, text: str, anchor: str) -> None:
        draw.text((x, y), text, (255, 255, 255), font, anchor, stroke_width=rim, stroke_fill=(0, 0, 0))

    if sides:
        write(edge, height // 2, sides[0], "lm")
        write(width - edge, height // 2, sides[1], "rm")
    length = next((each for each in BAR_LENGTHS_MM if pixel_mm and each / pixel_mm <= BAR_SHARE * width), None)
    if length and pixel_mm:
        right, bottom, thick = edge + round(length / pixel_mm), height - edge, max(2, size // 5)
        draw.rectangle((edge - rim, bottom - thick - rim, right + rim, bottom + rim), fill=(0, 0, 0))
        draw.rectangle((edge, bottom - thick, right, bottom), fill=(255, 255, 255))
        write(edge, bottom - thick - 2 * rim, f"{length} mm", "ls")
    return np.asarray(image)
