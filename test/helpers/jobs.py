"""Jobs of the container with a scripted model, in processes of their own, and what is found in their output."""

from __future__ import annotations

import json
from pathlib import Path
from subprocess import CompletedProcess

from balaitous.container.answers import PROBABILITY_FILES
from helpers.commands import run_python
from helpers.scripted import by_first_letter

FILES = {*PROBABILITY_FILES, "results.json"}

SCRIPTED = """
import sys
sys.path.insert(0, "test")
import balaitous, process
from helpers.scripted import ScriptedModel, by_first_letter
balaitous.Balaitous = lambda: ScriptedModel(by_first_letter)
"""
RUN = SCRIPTED + "sys.exit(process.main(sys.argv[1:]))"


def run(script: str, *arguments, **options) -> CompletedProcess:
    """A script as a process of its own."""
    return run_python("-c", script, *arguments, **options)


def only_error(ended: CompletedProcess) -> str:
    """The line on stderr, where there is but one."""
    (line,) = ended.stderr.splitlines()
    assert line.startswith("ERROR: "), line
    return line


def read(path: Path):
    return json.loads(path.read_text())


def visible(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.name[0] != "."}


def check_consistent(output: Path) -> None:
    """What holds of an output folder at any moment: whole files, right numbers, and nothing told that is not there."""
    contents = {path.name: read(path) for path in output.iterdir() if path.name[0] != "."}
    cases = contents.pop("results.json", {"cases": []})["cases"]
    for name, key in PROBABILITY_FILES.items():
        numbers = contents.get(name, {})
        if not isinstance(numbers, dict):
            numbers = {"old.mha": numbers}  # of the earlier job, which had one scan
        expected = {file: by_first_letter(file)[key == "probability_severe"] for file in numbers}
        assert numbers == expected, (output, name)
        assert {case["file"] for case in cases} <= numbers.keys(), (output, name)
