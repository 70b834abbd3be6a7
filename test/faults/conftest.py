"""What the tests of faults share: a job, and the container's entry point in this process."""

import pytest

import process


@pytest.fixture
def job(tmp_path):
    """An /input with three scans, as far as the scripted model is concerned."""
    folder = tmp_path / "input"
    (folder / "images/ct").mkdir(parents=True)
    for name in "abc":
        (folder / f"images/ct/{name}.mha").touch()
    return folder


@pytest.fixture
def exec_mode(capsys, logging_as_it_was):
    """`process.py` in this process: exit code and lines of stderr."""

    def run_(*arguments):
        code = process.main(["exec", *map(str, arguments)])
        return code, capsys.readouterr().err.splitlines()

    return run_
