"""Weights that are not what they claim to be."""

import os
import re
import shutil
from pathlib import Path

import pytest

from balaitous import WeightsError
from balaitous.weights.bundle import check_hash
from balaitous.weights.search import find_bundle
from helpers.jobs import visible


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[content.index(b'"sha256": "') + 11 if path.suffix == ".json" else len(content) // 2] ^= 1
    path.write_bytes(content)


def cut_short(path):
    os.truncate(path, path.stat().st_size // 2)


def point_to_it(path):
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n")


@pytest.mark.parametrize(
    "file", ["bundle.json", "lung_unet.safetensors", "encoder_lung.safetensors", "heads.safetensors"]
)
@pytest.mark.parametrize(
    ("damage", "found"),
    [
        (flip_a_bit, "expected SHA-256 .*, found"),
        (cut_short, "expected SHA-256 .*, found|expected JSON"),
        (point_to_it, "found a Git LFS pointer"),
        (Path.unlink, "found: No such file|no bundle.json"),
    ],
)
def test_a_bundle_that_is_not_what_it_claims_ends_the_job(
    short_scans, tmp_path, exec_mode, monkeypatch, file, damage, found
):
    bundle = shutil.copytree(find_bundle("mini"), tmp_path / "bundle")
    damage(bundle / file)
    monkeypatch.setenv("BALAITOUS_WEIGHTS", str(bundle))
    code, (line,) = exec_mode(short_scans, tmp_path / "out")
    assert code == 4
    assert re.match(f"ERROR: .*({found})", line)
    assert visible(tmp_path / "out") == {"results.json"}


def test_weights_that_are_exchanged_between_two_scans_are_noticed_whatever_their_date(tmp_path):
    path = tmp_path / "weights"
    path.write_bytes(b"one")
    status = path.stat()
    right = "7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed"  # of "one"
    assert check_hash(path, right) == path
    path.write_bytes(b"two")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    with pytest.raises(WeightsError, match="expected SHA-256"):
        check_hash(path, right)
