"""What tests share: the default model, the phantom, the real scans where they are."""

from __future__ import annotations

import logging
import os
from dataclasses import replace
from pathlib import Path

import pytest

from balaitous.ct.phantom import make_phantom
from balaitous.ct.volume import CT

ROOT = Path(__file__).parent.parent
PHANTOM = ROOT / "test/images/ct/phantom.mha"
WAITING = os.pathsep.join(filter(None, [str(ROOT / "test/waiting"), os.environ.get("PYTHONPATH")]))


def pipe_of(scan: Path) -> Path:
    """A pipe at which processes with `WAITING` as their PYTHONPATH wait when they read this scan."""
    pipe = scan.with_name(f"{scan.name}.pipe")
    os.mkfifo(pipe)
    return pipe


def small_chest(seed: int, spacing_mm=(4, 4, 10), size=(84, 70, 22), slices=slice(8, 18), lesion_ml: float = 0.0) -> CT:
    """The middle of a chest, coarse: quick to predict, and enough lung to be answered for, with warnings."""
    ct = make_phantom(seed, spacing_mm=spacing_mm, size=size, lesion_ml=lesion_ml).ct
    return replace(ct, hu=ct.hu[slices])


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


@pytest.fixture(scope="session")
def short_scans(tmp_path_factory) -> Path:
    """A folder with two different scans of a few slices, a.mha and b.mha."""
    from balaitous.ct.volume import read_ct, write_mha

    folder = tmp_path_factory.mktemp("scans")
    phantom = read_ct(PHANTOM)
    write_mha(folder / "a.mha", replace(phantom, hu=phantom.hu[20:24]))
    write_mha(folder / "b.mha", replace(phantom, hu=phantom.hu[28:33]))
    return folder
