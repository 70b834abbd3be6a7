"""Pages for people: HTML that needs nothing but itself, runs no script and loads nothing, light or dark.

Every text is escaped here, and nowhere else: what callers hand in is text, what `document` takes is what the other
functions made.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from html import escape
from io import BytesIO
from pathlib import Path
from urllib.parse import quote

from PIL import Image

from balaitous.report.style import DISCLAIMER, PAGE_STYLE

MADE_BY = '<meta name="generator" content="balaitous">'  # what a page of ours is known by
THUMBNAIL_PIXELS = 96
JPEG_QUALITY = 88
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def document(title: str, parts: Iterable[str]) -> str:
    """A page of HTML; `parts` are HTML already."""
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">{MADE_BY}'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{PAGE_STYLE}</style></head><body>\n"
        + "\n".join((f"<h1>{escape(title)}</h1>", *parts))
        + "\n</body></html>\n"
    )


def is_ours(path: Path) -> bool:
    """Whether a file is a page that `document` made."""
    try:
        with path.open("rb") as file:
            return MADE_BY.encode() in file.read(512)
    except OSError:
        return False


def heading(text: str) -> str:
    """The heading of a part."""
    return f"<h2>{escape(text)}</h2>"


def note(text: str) -> str:
    """A remark, smaller than the rest."""
    return f'<p class="note">{escape(text)}</p>'


def use(text: str = DISCLAIMER) -> str:
    """What the page is good for, marked at its side."""
    return f'<p class="use">{escape(text)}</p>'


def notes(texts: Iterable[str]) -> str:
    """A list of remarks."""
    return "<ul>" + "".join(f"<li>{escape(text)}</li>" for text in texts) + "</ul>"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of texts."""
    return table_of(header, ([f"<td>{escape(text)}</td>" for text in row] for row in rows))


def table_of(header: Sequence[str], rows: Iterable[Iterable[str]]) -> str:
    """A table of cells that are HTML already: of `table`, `share_cell` and `picture_cell`."""
    head = "".join(f"<th>{escape(text)}</th>" for text in header)
    body = "".join(f"<tr>{''.join(row)}</tr>" for row in rows)
    return f'<div class="wide"><table><tr>{head}</tr>{body}</table></div>'


def cell(text: str, link: str = "", columns: int = 1) -> str:
    """A cell of a table: a text, which leads to a file beside the page if there is a link."""
    inner = f'<a href="{quote(link)}">{escape(text)}</a>' if link else escape(text)
    return f'<td colspan="{columns}">{inner}</td>' if columns > 1 else f"<td>{inner}</td>"


def share_cell(share: float | None) -> str:
    """A cell of a table: a number in [0, 1] with three decimals over a bar filled as far; a dash for none."""
    if share is None:
        return cell("–")
    return f'<td>{share:.3f}<span class="share"><span style="width:{100 * share:.1f}%"></span></span></td>'


def picture_cell(data: str, alternative: str, link: str = "") -> str:
    """A cell of a table: a small picture from `thumbnail`, which leads to a file; empty without one."""
    if not data:
        return '<td class="thumbnail"></td>'
    image = f'<img alt="{escape(alternative)}" src="{escape(data)}">'
    return f'<td class="thumbnail"><a href="{quote(link)}">{image}</a></td>'


def figure(file: Path, alternative: str, caption: str) -> str:
    """A picture inside the page, as JPEG, which leads to the PNG file beside the page that it was made of."""
    with Image.open(file, formats=("PNG",)) as image:
        data = data_of(image)
    shown = f'<a href="{quote(file.name)}"><img alt="{escape(alternative)}" src="{data}"></a>'
    return f"<figure>{shown}<figcaption>{escape(caption)}</figcaption></figure>"


def drawing(svg: bytes, alternative: str, own_size: bool = False) -> str:
    """A drawing inside the page, as wide as the page, or at its own size where that is less."""
    content, size = base64.b64encode(svg).decode(), ' class="own"' if own_size else ""
    return f'<img alt="{escape(alternative)}"{size} src="data:image/svg+xml;base64,{content}">'


def thumbnail(file: Path) -> str:
    """A PNG file as a small picture, ready for `picture_cell`."""
    with Image.open(file, formats=("PNG",)) as image:
        small = image.convert("RGB")
        small.thumbnail((THUMBNAIL_PIXELS, THUMBNAIL_PIXELS))
        return data_of(small)


def data_of(image: Image.Image) -> str:
    """A picture as the address of itself."""
    content = BytesIO()
    # colours at full size, because outlines are one pixel wide
    image.convert("RGB").save(content, format="JPEG", quality=JPEG_QUALITY, subsampling=0)
    return f"data:image/jpeg;base64,{base64.b64encode(content.getvalue()).decode()}"
