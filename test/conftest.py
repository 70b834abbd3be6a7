"""What tests share: the default model, what it says of the phantom, small scans, the real scans where they are."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import hypothesis
import pytest
from hypothesis import HealthCheck

from helpers import PHANTOM, ROOT
from helpers.phantoms import write_slices

# How long an example takes tells how busy the machine is. Examples stay random: one that fails is a finding, which
# hypothesis prints and tries first the next time.
hypothesis.settings.register_profile("balaitous", deadline=None, suppress_health_check=[HealthCheck.too_slow])
hypothesis.settings.load_profile("balaitous")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests come first: one of them that starts last would keep the other processes waiting."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


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
    raises = logging.raiseExceptions
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    ours.setLevel(our_level)
    logging.raiseExceptions = raises


@pytest.fixture
def toy(monkeypatch, tmp_path):
    """The toy in the table, with a bundle in the user's cache: nothing else knows of it."""
    from balaitous.models import MODELS
    from helpers.toy import TOY, write_toy_bundle

    monkeypatch.setitem(MODELS, TOY.name, TOY)
    monkeypatch.setenv("BALAITOUS_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("BALAITOUS_WEIGHTS", raising=False)
    write_toy_bundle(tmp_path / "cache" / "toy")


@pytest.fixture(scope="session")
def short_scans(tmp_path_factory) -> Path:
    """A folder with two different scans of a few slices, a.mha and b.mha."""
    folder = tmp_path_factory.mktemp("scans")
    write_slices(folder / "a.mha", slice(20, 24))
    write_slices(folder / "b.mha", slice(28, 33))
    return folder


@pytest.fixture(scope="session")
def short_scan(short_scans) -> Path:
    """The longer one of them."""
    return short_scans / "b.mha"


@pytest.fixture(scope="session")
def short_prediction(model, short_scan):
    """What the default model says of it: where any prediction will do."""
    return model.predict(short_scan)


@pytest.fixture
def memory():
    """fsspec's file system in memory, empty before and after."""
    import fsspec

    files = fsspec.filesystem("memory")
    files.store.clear()
    files.pseudo_dirs[:] = [""]
    yield files
    files.store.clear()
