"""An earlier job's answers are gone, whatever ends the next job, and however early."""

import os
from pathlib import Path

import pytest

from balaitous.container.answers import ANSWERS, PREDICTED, remove_answers
from helpers import PHANTOM
from helpers.commands import run_job, run_python
from helpers.jobs import only_error, visible

EVALUATED = {"metrics.json"}
# Every answer of every mode, and what is none.
EVERYTHING = {name for names in ANSWERS.values() for name in names} | {"mine.txt", "features", "roc.png"}


@pytest.fixture
def output(tmp_path):
    """/output as earlier jobs of every kind left it."""
    folder = tmp_path / "output"
    for name in EVERYTHING - {"bundle", "features"}:
        folder.mkdir(exist_ok=True)
        (folder / name).write_text("0.9")
        (folder / f".{name}.0123abcd.partial").write_text("0.")
    for name in ("bundle", "features"):
        (folder / name).mkdir()
        (folder / name / "bundle.json").write_text("{}")
    return folder


@pytest.mark.parametrize("mode", ANSWERS)
def test_the_answers_of_a_mode_are_removed_and_nothing_else(output, mode):
    remove_answers(output, mode)
    assert visible(output) == EVERYTHING - set(ANSWERS[mode])
    kept = {path.name[1:].partition(".0123abcd")[0] for path in output.iterdir() if path.suffix == ".partial"}
    assert kept == visible(output) - {"bundle", "features"}


def test_links_are_removed_not_what_they_point_to(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/kept").touch()
    (tmp_path / "output").mkdir()
    for name in ("bundle", "metrics.json"):
        (tmp_path / "output" / name).symlink_to(tmp_path / "elsewhere")
    remove_answers(tmp_path / "output", "train")
    assert visible(tmp_path / "output") == set()
    assert (tmp_path / "elsewhere/kept").exists()


def test_an_output_folder_that_is_not_there_yet_is_no_error(tmp_path):
    remove_answers(tmp_path / "output")


@pytest.mark.parametrize(
    ("environment", "code", "line"),
    [
        ({"API_METHOD": "call"}, 2, "ERROR: expected API_METHOD=exec or invoke or train or evaluate, found 'call'"),
        ({"API_METHOD": "Evaluate"}, 2, "ERROR: expected API_METHOD="),
        *[
            ({variable: value}, 2, f"ERROR: {variable} must be a finite number above 0. Got '{value}' instead.")
            for variable, value in (("BALAITOUS_MAX_GIB", "abc"), ("BALAITOUS_MAX_SECONDS", "nan"))
        ],
        ({"API_METHOD": "evaluate"}, 3, "ERROR: /opt/ml/input/data/ground_truth: expected one reference.csv"),
    ],
)
def test_a_job_that_is_started_wrongly_leaves_no_answer(output, environment, code, line):
    ended = run_job(PHANTOM.parent, output, **environment)
    assert ended.returncode == code
    assert only_error(ended).startswith(line)
    mode = environment.get("API_METHOD", "exec")
    gone = set(ANSWERS.get(mode, {*PREDICTED, *EVALUATED}))
    assert not gone & visible(output)


BEFORE = {
    "a library cannot be loaded": "sys.modules['numpy'] = None",
    "the memory is not enough": "import resource; resource.setrlimit(resource.RLIMIT_DATA, (512 << 20, -1))",
    "no process can be started": "import multiprocessing.context as m; m.SpawnProcess.start = fail",
}


@pytest.mark.parametrize("fault", BEFORE)
def test_a_job_that_cannot_begin_leaves_no_number(output, fault):
    script = f"import sys\ndef fail(_): raise OSError(11, 'Resource temporarily unavailable')\n{BEFORE[fault]}\n"
    script += "import process\nsys.exit(process.main(sys.argv[1:]))"
    ended = run_python("-c", script, "exec", PHANTOM.parent, output)
    assert ended.returncode in (1, 3)
    assert ended.stderr.splitlines()[-1].startswith("ERROR: ")
    assert not set(PREDICTED[1:]) & visible(output)
    assert "0.9" not in [path.read_text() for path in output.glob("results.json")]


def test_nothing_is_loaded_before_an_earlier_job_s_answers_are_gone():
    code = (
        "import sys, process; print(*{name.partition('.')[0] for name in sys.modules} & {'numpy', 'torch', 'pandas'})"
    )
    assert run_python("-c", code).stdout == "\n"


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may remove anything")
def test_answers_that_cannot_be_removed_are_an_error(output):
    output.chmod(0o500)
    ended = run_job(PHANTOM.parent, output)
    output.chmod(0o700)
    assert ended.returncode == 3
    assert "results.json" in only_error(ended)


def test_an_output_below_a_file_is_an_error(tmp_path):
    Path(tmp_path / "file").touch()
    ended = run_job(PHANTOM.parent, tmp_path / "file/out")
    assert ended.returncode == 3
    assert only_error(ended).startswith("ERROR: files cannot be")
