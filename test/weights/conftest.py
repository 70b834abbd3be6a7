"""A tiny bundle, and a machine on which none can be found."""

import pytest

from balaitous.weights import search as search_module
from helpers.checkpoints import write_tiny_bundle


@pytest.fixture(scope="session")
def made_once(tmp_path_factory):
    return write_tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny")


@pytest.fixture
def elsewhere(monkeypatch, tmp_path):
    """No bundle in any place of the search order; returns {place: folder to put one}."""
    for variable in ("BALAITOUS_WEIGHTS", "XDG_CACHE_HOME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("BALAITOUS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(search_module, "PACKAGE", tmp_path / "repository" / "balaitous")
    monkeypatch.setattr(search_module, "MODEL_MOUNT", tmp_path / "model")
    return {
        "model": tmp_path / "model",
        "stoic": tmp_path / "repository" / "resources" / "stoic",
        "cache": tmp_path / "cache" / "stoic",
        "mini": tmp_path / "repository" / "resources" / "mini",
        "installed": tmp_path / "repository" / "balaitous" / "resources" / "mini",
    }
