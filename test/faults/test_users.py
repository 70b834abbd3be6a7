"""Users and file systems that are not what one is used to."""

import os
import re
import shutil
import subprocess
import sys

import pytest
import torch

from helpers import ROOT
from helpers.jobs import RUN, only_error, read, run

# Reading everything is granted: the interpreter may lie in a home that nobody else may enter.
STRANGER = (
    "setpriv --reuid=12345 --regid=12345 --clear-groups --inh-caps=+dac_read_search --ambient-caps=+dac_read_search"
)


@pytest.fixture
def stranger():
    """What makes a command run as a user whom this machine does not know."""
    prefix = STRANGER.split()
    try:
        able = subprocess.run([*prefix, "true"], capture_output=True).returncode == 0
    except FileNotFoundError:
        able = False
    if not able:
        pytest.skip("needs setpriv and root, to become another user")
    return prefix


def test_an_output_of_another_user_is_named(job, tmp_path, stranger):
    output = tmp_path / "output"
    output.mkdir(mode=0o755)
    ended = run(RUN, job, output, prefix=stranger, env={"PYTHONPATH": str(ROOT)})
    assert ended.returncode == 3
    assert re.search(rf"Permission denied: '{output}/.*Check permissions", only_error(ended))
    assert list(output.iterdir()) == []


READ_ONLY_ROOT = """
set -e
mount --make-rprivate /
for folder in "$1" "$2"; do mount -t tmpfs -o mode=1777 tmpfs "$folder"; done
mount -o remount,bind,ro /
if touch /.balaitous 2>/dev/null; then rm /.balaitous; exit 99; fi
output=$1 input=$3
shift 3
"$@" "$input" "$output" && cat "$output/probability-covid.json"
"""


@pytest.mark.slow
def test_an_unknown_user_without_a_home_on_a_read_only_root_gets_the_usual_digits(
    model, short_scans, tmp_path, stranger
):
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode:
        pytest.skip("needs a mount namespace of its own")
    output, scratch, input_dir = (tmp_path / name for name in ("output", "scratch", "input"))
    for folder in (output, scratch, input_dir):
        folder.mkdir()
    shutil.copy(short_scans / "a.mha", input_dir)
    command = ["unshare", "--mount", "bash", "-c", READ_ONLY_ROOT, "bash", output, scratch, input_dir]
    ended = subprocess.run(
        [*command, *stranger, sys.executable, ROOT / "process.py"],
        env={
            "PATH": os.environ["PATH"],
            "TMPDIR": str(scratch),
            "BALAITOUS_WEIGHTS": "mini",
            "OMP_NUM_THREADS": str(torch.get_num_threads()),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr == ""
    assert float(ended.stdout.splitlines()[-1]) == model.predict(short_scans / "a.mha").probability_covid


def test_names_that_are_no_text_are_escaped_in_the_log(job, tmp_path):
    (job / "images/ct/b.mha").rename(job / "images/ct/b\udcff.mha")
    ended = run(RUN, job, tmp_path / "out")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "b\\udcff.mha: COVID-19" in ended.stdout
    assert "b\udcff.mha" in read(tmp_path / "out/probability-covid.json")
