"""The container's entry point as a process of its own: the real model, real files, exit codes, what it prints."""

import json

import pytest

from helpers import ROOT
from helpers.commands import run_job, run_python

pytestmark = pytest.mark.slow

PHANTOMS = ROOT / "test/images/ct"


def compare(output):
    return run_python("test/container/compare_outputs.py", output)


@pytest.fixture(scope="module")
def answered(tmp_path_factory):
    """A job on test/, as ./test.sh runs it in the container: the finished process and its output folder."""
    output = tmp_path_factory.mktemp("output")
    return run_job(ROOT / "test", output), output


def test_the_phantom_gets_the_expected_answers(answered):
    process, output = answered
    assert process.returncode == 0, process.stderr
    comparison = compare(output)
    assert comparison.returncode == 0, comparison.stdout


def test_the_comparison_fails_where_a_number_differs(answered, tmp_path):
    _, output = answered
    for file in output.glob("*.json"):
        (tmp_path / file.name).write_text(file.read_text())
    changed = tmp_path / "probability-severe-covid-19.json"
    changed.write_text(json.dumps(json.loads(changed.read_text()) + 0.01))
    comparison = compare(tmp_path)
    assert comparison.returncode == 1
    assert comparison.stdout.startswith("probability-severe-covid-19.json: expected ")


def test_the_log_names_weights_and_their_use_in_plain_lines(answered):
    process, _ = answered
    assert "weights: mini" in process.stdout
    assert "intended use: " in process.stdout
    assert "\r" not in process.stdout
    assert process.stderr == ""


def test_the_log_and_the_results_say_what_checks_warn_of(answered):
    process, output = answered
    (case,) = json.loads((output / "results.json").read_text())["cases"]
    warned = [check["message"] for check in case["checks"] if check["status"] != "ok"]
    assert case["quality"] == "warn"  # the phantom has contrast agent
    assert case["quality_notes"] == "; ".join(warned)
    for message in warned:
        assert f"  check: {message}\n" in process.stdout


def test_what_cannot_be_read_does_not_stop_the_other_scans(short_scan, tmp_path):
    folder = tmp_path / "images/ct"
    folder.mkdir(parents=True)
    content = short_scan.read_bytes()
    (folder / "good.mha").write_bytes(content)
    (folder / "text.mha").write_text("not an image")
    (folder / "truncated.mha").write_bytes(content[: len(content) // 2])
    process = run_job(tmp_path, tmp_path / "out")
    assert process.returncode == 5
    assert "Traceback" not in process.stderr
    assert process.stderr.splitlines()[-1].startswith("ERROR: 2 of 3 scans failed")
    assert process.stderr.splitlines()[-1].endswith("text.mha, truncated.mha")
    assert json.loads((tmp_path / "out/probability-covid.json").read_text()).keys() == {"good.mha"}


@pytest.mark.parametrize(
    ("arguments", "environment", "code", "line"),
    [
        (["{empty}", "{out}"], {}, 3, "ERROR: no scan in"),
        (["{empty}/nowhere", "{out}"], {}, 3, "ERROR: no such file or folder"),
        (["{phantoms}", "{out}"], {"BALAITOUS_WEIGHTS": "nowhere"}, 4, "ERROR: $BALAITOUS_WEIGHTS 'nowhere'"),
        (["{phantoms}", "{file}/out"], {}, 3, "ERROR: files cannot be"),
        (["{phantoms}", "{out}"], {"API_METHOD": "invoke", "BALAITOUS_WEIGHTS": "nowhere"}, 4, "ERROR: $BALAITOUS_WEI"),
        (["{empty}", "{out}"], {"API_METHOD": "call"}, 2, "ERROR: expected API_METHOD=exec or invoke or train or ev"),
        (["a", "b", "c"], {}, 2, "ERROR: expected at most INPUT_DIR and OUTPUT_DIR"),
    ],
)
def test_a_job_that_cannot_run_ends_in_one_line_and_its_exit_code(tmp_path, arguments, environment, code, line):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    places = {"empty": tmp_path / "empty", "file": tmp_path / "file", "out": tmp_path / "out", "phantoms": PHANTOMS}
    process = run_job(*[argument.format(**places) for argument in arguments], **environment)
    assert process.returncode == code
    assert process.stderr.startswith(line)
    assert process.stderr.count("\n") == 1
