"""Pages need nothing but themselves, run nothing, and show text as text."""

import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from balaitous.models import MODELS
from balaitous.report.case import Shown, case_page, run_page
from balaitous.report.page import document, is_ours, note, table, thumbnail

EVIL = "<script>alert(1)</script> \"'><img src=x onerror=alert(2)> & https://elsewhere"
SLICES = MODELS["slices"]


class Reader(HTMLParser):
    """The elements and addresses of a page, and its text; checks that what is opened is closed."""

    def __init__(self, page):
        super().__init__()
        self.elements, self.addresses, self.text, self.opened = [], [], "", []
        self.feed(page)
        assert not self.opened

    def handle_starttag(self, tag, attributes):
        self.elements.append(tag)
        self.addresses += [value for name, value in attributes if name in ("src", "href")]
        assert not any(name.startswith("on") for name, _ in attributes)
        if tag not in ("meta", "img"):
            self.opened.append(tag)

    def handle_endtag(self, tag):
        assert self.opened.pop() == tag

    def handle_data(self, data):
        self.text += data


def row(**values):
    from balaitous.cohort.table import columns_of

    probabilities = {f"probability_{name}": 0.25 for name in SLICES.outputs}
    known = {"PatientID": "a", "path": "a.png", "status": "ok", "quality": "ok"}
    return dict.fromkeys(columns_of(SLICES)) | known | probabilities | values


@pytest.fixture
def picture(tmp_path):
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (50, 70, 3), np.uint8)).save(tmp_path / "over lay.png")
    return tmp_path / "over lay.png"


def test_text_is_shown_as_text_wherever_it_comes_from(picture):
    evil = row(PatientID=EVIL, path=EVIL, converted=EVIL, warnings=EVIL, bundle=EVIL, quality_notes=EVIL)
    shown = [Shown("over lay.png", EVIL, EVIL)]
    failed = row(PatientID=EVIL, status="failed", error=EVIL) | dict.fromkeys(
        (f"probability_{name}" for name in SLICES.outputs), None
    )
    pages = [
        case_page(picture.parent, SLICES, evil, shown, (), EVIL),
        run_page(SLICES, [evil, failed], [EVIL, ""], [thumbnail(picture), ""]),
        document(EVIL, [note(EVIL), table((EVIL,), [(EVIL,)])]),
    ]
    for page in pages:
        read = Reader(page)
        assert EVIL in read.text
        assert "script" not in read.elements
        assert all(address.startswith("data:image/") or ":" not in address for address in read.addresses)


def test_a_case_shows_answers_pictures_checks_and_origin_and_loads_nothing(picture):
    page = case_page(picture.parent, SLICES, row(bundle="tiny"), [Shown(picture.name, "map", "mm")], (), "Tests only.")
    read = Reader(page)
    for text in ("COVID-19", "0.250", "Tests only.", "not for diagnosis", "tiny", "crazy paving", SLICES.citation):
        assert text in read.text
    assert read.elements.count("img") == 1
    assert not re.search(r'src="(?!data:)', page)
    assert "over%20lay.png" in read.addresses


def test_a_run_lists_every_case_with_its_picture_and_what_failed(picture):
    rows = [row(), row(PatientID="b", status="failed", error="no such file", quality=None)]
    read = Reader(run_page(SLICES, rows, ["a ?#", ""], [thumbnail(picture), ""]))
    assert "2 cases, 1 of them failed" in read.text
    assert "failed: no such file" in read.text
    assert [address for address in read.addresses if not address.startswith("data:")] == ["a%20%3F%23/index.html"] * 2


def test_our_pages_are_known_and_others_are_not(tmp_path):
    (tmp_path / "ours.html").write_text(document("a", []))
    (tmp_path / "other.html").write_text("<!doctype html><title>a</title>")
    assert is_ours(tmp_path / "ours.html")
    assert not is_ours(tmp_path / "other.html")
    assert not is_ours(tmp_path)
