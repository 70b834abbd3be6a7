"""What is installed, shipped and baked in: what is optional behind an extra, and no weights but those needed."""

import re
import tomllib
from pathlib import PurePosixPath

import pytest

from balaitous.errors import needs_extra
from balaitous.models import DEFAULT, MODELS
from helpers import ROOT

PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
EXTRAS = PYPROJECT["project"]["optional-dependencies"]
FOR_DEVELOPERS = {"test"}


def names_in(requirements):
    return {re.match(r"[A-Za-z0-9-]+", each)[0].lower() for each in requirements}


def in_context(path):
    """Whether .dockerignore lets a file into the build: the last pattern that fits it or its folders decides."""
    kept = True
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        if line and not line.startswith("#"):
            pattern = re.escape(line.lstrip("!")).replace(r"\*\*/", "(.*/)?").replace(r"\*", "[^/]*")
            if any(re.fullmatch(pattern, str(each)) for each in (path, *PurePosixPath(path).parents)):
                kept = line.startswith("!")
    return kept


def test_the_image_holds_the_weights_of_its_model_and_no_others():
    for bundle in MODELS[DEFAULT].bundles:
        assert in_context(f"resources/{bundle}/bundle.json")
    others = {name for model in MODELS.values() for name in model.bundles} - set(MODELS[DEFAULT].bundles)
    for path in (
        *(f"{name}/bundle.json" for name in others),
        "mini-another/x.safetensors",
        "stoic.download/x.part",
        "x",
    ):
        assert not in_context(f"resources/{path}")
    copied = re.findall(r"^COPY (resources\S*) (\S+)$", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
    assert copied == [("resources", "/opt/balaitous/resources")]


@pytest.mark.parametrize(
    "path",
    ["process.py", "balaitous/cli/info.py", "balaitous/ct/chest.npy", "requirements.lock", "tools/requirements.lock"],
)
def test_what_the_image_is_built_of_is_in_its_context(path):
    assert in_context(path)
    assert (ROOT / path).exists()


@pytest.mark.parametrize(
    "path", ["README.md", "test/conftest.py", "requirements-extras.lock", "balaitous/__pycache__/x"]
)
def test_what_it_does_without_is_not(path):
    assert not in_context(path)


def test_the_wheel_holds_every_bundle_that_comes_with_the_package():
    included = PYPROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    shipped = [f"resources/{model.bundles[-1]}" for model in MODELS.values()]
    assert included == {folder: f"balaitous/{folder}" for folder in shipped if (ROOT / folder).exists()}


def test_what_every_user_installs_has_no_extra_in_it():
    optional = {name for extra in EXTRAS.values() for name in names_in(extra)} - {"balaitous", "jinja2"}
    locked = set(re.findall(r"^([a-z0-9-]+)==", (ROOT / "requirements.lock").read_text(), flags=re.MULTILINE))
    assert not optional & locked
    for script in ("run.sh", "Dockerfile"):
        assert "requirements-extras" not in (ROOT / script).read_text()
    assert "requirements{,-dev,-invoke,-extras}.lock" in (ROOT / "check.sh").read_text(), "the tests need all"


def test_all_is_every_other_extra():
    (everything,) = EXTRAS["all"]
    named = re.fullmatch(r"balaitous\[(.*)\]", everything)[1].split(",")
    assert set(named) == set(EXTRAS) - {"all"} - FOR_DEVELOPERS


def test_every_extra_is_locked():
    locked = set()
    for file in ("requirements", "requirements-invoke", "requirements-extras", "requirements-dev"):
        locked |= set(re.findall(r"^([a-z0-9-]+)==", (ROOT / f"{file}.lock").read_text(), flags=re.MULTILINE))
    for extra, requirements in EXTRAS.items():
        assert names_in(requirements) - {"balaitous"} <= locked, extra


def test_an_extra_that_a_message_names_is_one():
    sources = "".join(path.read_text() for path in (ROOT / "balaitous").rglob("*.py") if path.name != "errors.py")
    calls = re.findall(r"needs_extra\(([^\n]*)\)", sources)
    named = {re.search(r'"([a-z0-9]+)"\)?$', call.rstrip(")"))[1] for call in calls}
    assert {"int8", "ray", "train", "invoke"} <= named <= set(EXTRAS)
    assert "pip install 'balaitous[" not in sources, "one spelling: `needs_extra`"


@pytest.mark.parametrize("extra", ["int8", "ray"])
def test_a_missing_extra_is_named_with_how_to_get_it(extra):
    assert needs_extra("this", "That", extra) == f"this needs That: pip install 'balaitous[{extra}]'"
