"""What the tests of cohorts share: four scans, of which one is none, and what one worker says of them."""

import pytest

from balaitous.cohort.items import list_items
from balaitous.cohort.local import predict_items
from helpers.phantoms import write_small_chest
from helpers.rows import SEVERITY


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """Four scans; the third is none."""
    folder = tmp_path_factory.mktemp("cohort") / "scans"
    folder.mkdir()
    for seed in (0, 1, 3):
        write_small_chest(folder / f"{seed}.mha", seed)
    (folder / "2.mha").write_text("no image")
    return folder


@pytest.fixture(scope="session")
def rows(model, folder):
    """What one worker says of the four scans."""
    return list(predict_items(model, list_items([folder], SEVERITY)))
