"""What tests share: the default model, the phantom, the real scans where they are."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PHANTOM = ROOT / "test/images/ct/phantom.mha"


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real scans; tests that need it are skipped where it is not."""
    folder = Path(os.environ.get("BALAITOUS_DATA", ROOT.parent / "shared/data"))
    if not folder.is_dir():
        pytest.skip(f"needs the real scans, which cannot be redistributed (BALAITOUS_DATA, looked in {folder})")
    return folder


@pytest.fixture(scope="session")
def model():
    from balaitous import Balaitous

    return Balaitous("mini", device="cpu")


@pytest.fixture(scope="session")
def prediction(model):
    """What the default model says of the phantom."""
    return model.predict(PHANTOM)


@pytest.fixture
def logging_as_it_was():
    """The logging of the test run as it was before a command set up its own."""
    root, ours = logging.getLogger(), logging.getLogger("balaitous")
    handlers, level, our_level = root.handlers[:], root.level, ours.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    ours.setLevel(our_level)
