"""Memory and time: what a hostile file may take of either."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from balaitous.ct.volume import read_ct
from balaitous.errors import InputError
from balaitous.reading import limits
from balaitous.reading.limits import in_time
from helpers.commands import run_python
from helpers.dicom import write_series
from helpers.headers import make_bomb, meta_image, nifti_image
from helpers.images import HU, refused

PEAK_MIB = 16  # beyond what reading a good file takes


def peak_mib_of_reading(paths: list[Path]) -> list[float]:
    """What reading each path adds to the peak memory of one process, which may have 4 GiB at most."""
    code = (
        "import resource, sys\n"
        "from balaitous.ct.volume import read_ct\n"
        "from balaitous.errors import InputError\n"
        "resource.setrlimit(resource.RLIMIT_DATA, (2**32, 2**32))\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024\n"
        "for path in sys.argv[1:]:\n"
        "    before = peak()\n"
        "    try: read_ct(path)\n"
        "    except InputError: pass\n"
        "    print(peak() - before)\n"
    )
    done = run_python("-c", code, *paths)
    assert done.returncode == 0, done.stderr
    return [float(line) for line in done.stdout.split()]


@pytest.mark.slow
def test_bombs_take_little_memory(tmp_path):
    kinds = ["mha", "nrrd", "nii.gz", "side-car", "zip", "zip bzip2", "zip lzma"]
    for kind in kinds:
        (tmp_path / kind).mkdir()
    paths = [meta_image(tmp_path), *(make_bomb(tmp_path / kind, kind) for kind in kinds)]
    assert max(peak_mib_of_reading(paths)[1:]) < PEAK_MIB


@pytest.mark.parametrize("kind", ["mha", "nrrd", "nii.gz"])
def test_voxels_that_inflate_to_more_than_the_header_declares_are_refused_at_once(tmp_path, kind, monkeypatch):
    read = []
    monkeypatch.setattr(
        "balaitous.reading.integrity.in_time", lambda chunks: (read.append(len(each)) or each for each in chunks)
    )
    refused(make_bomb(tmp_path, kind), "bytes of voxels as its header declares, found more")


@pytest.mark.parametrize("variable", [limits.SIZE_VARIABLE, limits.TIME_VARIABLE])
@pytest.mark.parametrize("value", ["abc", "nan", "-1", "0", "inf", "1e999", "8 GiB", "9" * 5000])
def test_a_limit_that_is_no_number_above_0_is_an_argument_that_makes_no_sense(monkeypatch, variable, value):
    monkeypatch.setenv(variable, value)
    with pytest.raises(ValueError, match=f"^{variable} must be a finite number above 0. Got '{value[:40]}' instead.$"):
        limits.check_limits()


def test_limits_can_be_raised_and_lowered(tmp_path, monkeypatch):
    path = meta_image(tmp_path)
    monkeypatch.setenv("BALAITOUS_MAX_GIB", str(59 * 4 / 2**30))
    refused(path, "expected at most 59 voxels, its header declares 5 × 4 × 3; .* raise BALAITOUS_MAX_GIB")
    monkeypatch.setenv("BALAITOUS_MAX_GIB", "1000")
    assert read_ct(path).hu.shape == (3, 4, 5)
    monkeypatch.setenv("BALAITOUS_MAX_GIB", "8 GiB")
    with pytest.raises(ValueError, match=r"BALAITOUS_MAX_GIB must be a finite number above 0\. Got '8 GiB' instead"):
        read_ct(path)


def test_a_pass_over_the_files_ends_when_its_time_is_over(tmp_path, monkeypatch):
    monkeypatch.setenv("BALAITOUS_MAX_SECONDS", "5")
    clock = iter(range(0, 100, 2))
    monkeypatch.setattr(limits.time, "monotonic", lambda: next(clock))
    steps = in_time("abcdef")
    assert [next(steps), next(steps)] == ["a", "b"]
    with pytest.raises(InputError, match=r"expected to go through it within 5 s, .* or raise BALAITOUS_MAX_SECONDS"):
        next(steps)


@pytest.mark.parametrize("kind", ["series", "zip", "nii.gz"])
def test_every_kind_of_scan_is_read_against_the_clock(tmp_path, monkeypatch, kind):
    if kind == "nii.gz":
        path = nifti_image(tmp_path, "scan.nii.gz")
    else:
        path = tmp_path / "series"
        files = write_series(path, HU)
        if kind == "zip":
            path = tmp_path / "series.zip"
            with zipfile.ZipFile(path, "w") as packed:
                for file in files:
                    packed.write(file, file.name)
    monkeypatch.setenv("BALAITOUS_MAX_SECONDS", "1e-9")
    refused(path, "raise BALAITOUS_MAX_SECONDS")
