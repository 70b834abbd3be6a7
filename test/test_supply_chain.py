"""What comes from elsewhere is locked and licensed, and nothing here runs what a file or a name says."""

import ast
import re
import sys

import pytest

from helpers import ROOT

sys.path.insert(0, str(ROOT / "tools"))
from licences import TABLE, licence_of, locked_packages

LOCKED = ("requirements", "requirements-invoke", "requirements-extras", "requirements-dev", "tools/requirements")
SOURCES = [ROOT / "process.py", *sorted((ROOT / "balaitous").rglob("*.py")), *sorted((ROOT / "tools").glob("*.py"))]

PERMISSIVE = {
    *("0BSD", "Apache-2.0", "Apache-2.0 WITH LLVM-exception", "BSD", "BSD-2-Clause", "BSD-3-Clause", "BSL-1.0"),
    *("CC0-1.0", "ISC", "MIT", "MIT-CMU", "PSF-2.0", "Zlib"),
}
OF_FILES = {"MPL-2.0"}  # asks for the source of its own files only, and they are used as they are
OF_NVIDIA = {"LicenseRef-NVIDIA-Proprietary"}


def canonical(name):
    return re.sub("[-_.]+", "-", name).lower()


def pins_of(requirements):
    """{name: version} of a file written by hand."""
    return {
        canonical(line.split("==")[0].split("[")[0]): line.split("==")[1]
        for line in (ROOT / f"{requirements}.txt").read_text().splitlines()
        if line and not line.startswith("#")
    }


def locked_in(requirements):
    """{name: (version, marker, hashes)} of a .lock."""
    entries = {}
    for entry in re.split(r"\n(?=\S)", (ROOT / f"{requirements}.lock").read_text()):
        if not entry.startswith("#"):
            requirement, *hashes = entry.replace("\\\n", "").strip().split("    --hash=")
            pin, _, marker = requirement.partition(";")
            name, version = pin.strip().split("==")
            entries[name] = (version, marker.strip(), [each.strip() for each in hashes])
    return entries


@pytest.mark.parametrize("requirements", LOCKED)
def test_a_lock_has_the_versions_of_its_requirements_and_hashes_for_each(requirements):
    pins, locked = pins_of(requirements), locked_in(requirements)
    again = f"run tools/supply.sh lock: {requirements}.lock is not that of {requirements}.txt"
    assert pins == {name: locked[name][0] for name in pins if name in locked}, again
    for version, _, hashes in locked.values():
        assert re.fullmatch(r"[\w.]+", version), "a local version (+cpu) is on no public index"
        assert hashes
        assert all(re.fullmatch("sha256:[0-9a-f]{64}", each) for each in hashes)


@pytest.mark.parametrize(
    "requirements", ["requirements", "requirements-invoke", "requirements-extras", "requirements-dev"]
)
def test_only_what_one_platform_needs_is_locked_without_a_pin(requirements):
    extra = {
        name: marker for name, (_, marker, _) in locked_in(requirements).items() if name not in pins_of(requirements)
    }
    assert all("sys_platform" in marker for marker in extra.values()), extra


def test_no_lock_holds_what_another_one_that_is_installed_before_it_holds():
    names = [name for requirements in LOCKED[:-1] for name in locked_in(requirements)]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("requirements", LOCKED)
def test_a_lock_names_no_index_and_no_folder(requirements):
    for line in (ROOT / f"{requirements}.lock").read_text().splitlines():
        assert re.match(r"(#|[a-z0-9-]+==|    --hash=)", line), line
        assert "/" not in line or line == "#    tools/supply.sh lock", line


@pytest.fixture(scope="module")
def table():
    """{package: (licence, what it is for)} as docs/dependencies.md has them."""
    rows = re.findall(r"^\| ([a-z0-9-]+) \| (.+) \| (.+) \|$", TABLE.read_text(), flags=re.MULTILINE)
    return {name: (licence, purpose) for name, licence, purpose in rows if name != "package"}


def test_the_table_of_licences_is_that_of_the_locks(table):
    assert {name: purpose for name, (_, purpose) in table.items()} == locked_packages(), "run tools/supply.sh licences"
    for name, (licence, _) in table.items():
        assert licence_of(name) in (licence, None), "run tools/supply.sh licences"


def test_every_locked_package_has_a_licence_that_allows_its_use(table):
    for name, (licence, _) in table.items():
        accepted = PERMISSIVE | OF_FILES
        if name.startswith(("nvidia-", "cuda-")):
            accepted |= OF_NVIDIA
        assert set(re.split(" AND | OR ", licence)) <= accepted, f"{name}: {licence}"


# Three rules for the code: nothing is unpickled, no text is run as a command, no temporary file has a name that others
# can guess. What is left is what `tempfile` makes, under a name and in a folder of its own.
FORBIDDEN = {
    "pickle": r"(_?pickle|dill|cloudpickle|marshal|joblib|shelve)\.(load|loads|dump|dumps|open|Unpickler|Pickler)"
    r"|pandas\.(read_pickle|.*\.to_pickle)|torch\.(load|hub\..*|serialization\.load|jit\.load)",
    "shell": r"os\.(system|popen)|subprocess\.(getoutput|getstatusoutput)|asyncio\.create_subprocess_shell|pty\.spawn",
    "temporary name": r"tempfile\.(mktemp|gettempdir|gettempdirb)|os\.(tempnam|tmpnam)",
}
FORBIDDEN_UNLESS_FALSE = {"allow_pickle": "pickle", "shell": "shell"}  # arguments of any call
SHARED_FOLDERS = re.compile(r"(/var)?/tmp(/.*)?|/dev/shm(/.*)?")


def offences(source):
    """The rules that a source breaks, sorted."""
    tree = ast.parse(source)
    origin = {}  # of a name in this source: np → numpy, from os import system → os.system
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            origin |= {each.asname: each.name for each in node.names if each.asname}
        elif isinstance(node, ast.ImportFrom):
            origin |= {each.asname or each.name: f"{node.module}.{each.name}" for each in node.names}

    def full_name(expression):
        first, dot, rest = ast.unparse(expression).partition(".")
        return origin.get(first, first) + dot + rest

    found = []
    safe = set()  # torch.load with weights_only=True, which is no unpickling
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            arguments = {each.arg: ast.unparse(each.value) for each in node.keywords}
            if full_name(node.func) == "torch.load" and arguments.get("weights_only") == "True":
                safe.add(node.func)
            found += [rule for each, rule in FORBIDDEN_UNLESS_FALSE.items() if arguments.get(each, "False") != "False"]
        elif isinstance(node, ast.Attribute | ast.Name) and node not in safe:
            found += [rule for rule, names in FORBIDDEN.items() if re.fullmatch(names, full_name(node))]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and SHARED_FOLDERS.fullmatch(node.value):
            found.append("temporary name")
    return sorted(found)


@pytest.mark.parametrize("file", SOURCES, ids=lambda file: str(file.relative_to(ROOT)))
def test_nothing_unpickles_runs_a_shell_or_guesses_a_temporary_name(file):
    assert offences(file.read_text()) == []


@pytest.mark.parametrize(
    ("source", "rules"),
    [
        ("import torch; torch.load(file)", ["pickle"]),
        ("import torch; torch.load(file, weights_only=False)", ["pickle"]),
        ("import torch; torch.load(file, weights_only=True)", []),
        ("from torch import load; load(file)", ["pickle"]),
        ("import functools, torch; functools.partial(torch.load)", ["pickle"]),
        ("import pickle as p; p.loads(data)", ["pickle"]),
        ("import pickle\ntry: pass\nexcept pickle.UnpicklingError: pass", []),
        ("import numpy as np; np.load(file, allow_pickle=True)", ["pickle"]),
        ("import numpy as np; np.load(file)", []),
        ("import subprocess; subprocess.run(text, shell=True)", ["shell"]),
        ("import subprocess; subprocess.run([program, argument])", []),
        ("from os import system as run; run(text)", ["shell"]),
        ("import tempfile; tempfile.mktemp()", ["temporary name"]),
        ("import tempfile; open(f'{tempfile.gettempdir()}/scan')", ["temporary name"]),
        ("open('/tmp/scan.mha')", ["temporary name"]),
        ("import tempfile; tempfile.TemporaryDirectory()", []),
    ],
)
def test_the_rules_are_heard(source, rules):
    assert offences(source) == rules
