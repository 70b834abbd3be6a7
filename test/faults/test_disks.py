"""Disks that are full, small or read-only, and writes that fail: a file is there whole, as it was, or not at all."""

import os
import re
import resource
import subprocess
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from balaitous import InputError
from balaitous.cohort.growing import ItemTable
from balaitous.cohort.items import Item
from balaitous.cohort.table import read_table, row_of
from balaitous.errors import explain
from balaitous.files import new_folder, replacing, write_together
from helpers.commands import run_command
from helpers.jobs import FILES, RUN, check_consistent, only_error, read, run, visible
from helpers.rows import COLUMNS, SEVERITY

MIB = 1 << 20


@contextmanager
def largest_file(size_bytes):
    """No file may grow beyond this, as if the disk were full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture
def small_disk(tmp_path):
    """Mounts a disk of so many KiB at a folder."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(kib, *options):
        options = ",".join((f"size={kib}k", *options))
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True)
        if mounted.returncode:
            pytest.skip(f"needs to mount a disk: {mounted.stderr.decode().strip()}")
        return folder

    yield mount
    while os.path.ismount(folder):
        subprocess.run(["umount", folder], check=True)


@pytest.mark.slow
def test_a_disk_that_fills_up_leaves_every_answer_or_none(job, small_disk, tmp_path):
    codes = []
    for kib in (4, 8, 12, 16, 20, 64):
        output = small_disk(kib)
        ended = run(RUN, job, output)
        codes.append(ended.returncode)
        check_consistent(output)
        if ended.returncode:
            assert re.search(rf"No space left on device: '{output}/[\w-]+\.json'.*free space", only_error(ended))
            assert read(output / "results.json")["cases"] == []
            assert [path.name for path in output.iterdir()] == ["results.json"]
        else:
            assert visible(output) == FILES
        subprocess.run(["umount", output], check=True)
    assert codes[0] == 3
    assert codes[-1] == 0


def test_a_disk_that_is_full_from_the_start_is_found_out_before_anything_is_computed(job, small_disk):
    output = small_disk(4)
    (output / "other").write_bytes(bytes(4096))
    ended = run(RUN, job, output)
    assert ended.returncode == 3
    assert "No space left on device" in only_error(ended)
    assert ended.stdout == ""


def test_files_that_were_there_stay_as_they_were_when_the_disk_fills_up(tmp_path):
    small, large = tmp_path / "small.json", tmp_path / "large.json"
    write_together({small: b"1", large: b"2"})
    with largest_file(512), pytest.raises(OSError, match=f"File too large: '{large}'"):
        write_together({small: b"3", large: bytes(4096)})
    assert (small.read_bytes(), large.read_bytes()) == (b"1", b"2")
    assert visible(tmp_path) == {path.name for path in tmp_path.iterdir()} == {"small.json", "large.json"}


def test_a_library_that_fails_to_write_leaves_the_old_file_and_the_error_names_it(tmp_path):
    path = tmp_path / "checkpoint.pt"
    with replacing(path) as file:
        torch.save({"step": torch.tensor(1)}, file)
    with largest_file(4096), pytest.raises(OSError, match=f"File too large: '{path}'"), replacing(path) as file:
        torch.save({"step": torch.zeros(10_000)}, file)
    with pytest.raises(UnicodeEncodeError), replacing(path) as file:
        file.writelines(part.encode("ascii") for part in ("half", "é"))
    assert torch.load(path, weights_only=True) == {"step": torch.tensor(1)}
    assert [*tmp_path.iterdir()] == [path]
    umask = os.umask(0)
    os.umask(umask)
    assert path.stat().st_mode & 0o777 == 0o666 & ~umask


def test_a_folder_is_there_whole_or_not_at_all(tmp_path):
    folder = tmp_path / "bundle"
    with pytest.raises(UnicodeEncodeError), new_folder(folder) as unfinished:
        (unfinished / "a").write_text("é", encoding="ascii")  # makes the file, and fails
    assert [*tmp_path.iterdir()] == []
    folder.mkdir()
    with new_folder(folder) as unfinished:
        (unfinished / "a").write_text("whole")
        assert [*folder.iterdir()] == []
    with pytest.raises(OSError, match="not empty"), new_folder(folder) as unfinished:
        (unfinished / "a").write_text("another")
    assert (folder / "a").read_text() == "whole"
    assert [*tmp_path.iterdir()] == [folder]


def test_a_table_on_a_full_disk_ends_with_a_whole_row_and_goes_on_from_there(tmp_path):
    rows = [row_of(Item(Path(f"{number}.mha")), InputError("x" * 300), SEVERITY) for number in range(3)]
    table = ItemTable(tmp_path / "table.csv", COLUMNS)
    table.begin()
    table.append(rows[0])
    whole = table.path.read_bytes()
    with largest_file(len(whole) + 100), pytest.raises(OSError, match=r"table\.csv"):
        table.append(rows[1])
    assert table.path.read_bytes() == whole
    table.append(rows[2])
    assert read_table(table.path, COLUMNS) == [rows[0], rows[2]]


def test_an_output_that_cannot_be_written_to_is_named(job, small_disk):
    output = small_disk(64, "ro")
    ended = run(RUN, job, output)
    assert ended.returncode == 3
    assert re.search(rf"Read-only file system: '{output}.*permissions", only_error(ended))


@pytest.mark.parametrize("option", ["--report", "--out"])
@pytest.mark.usefixtures("logging_as_it_was")
def test_a_report_or_table_that_cannot_be_written_is_found_out_before_anything_is_computed(small_disk, option, capsys):
    path = small_disk(64, "ro") / "run.json"
    denied = explain(PermissionError(13, "Permission denied", str(path)))
    assert run_command("predict", "a.mha", option, path) == 3
    assert capsys.readouterr().err.splitlines() == [f"ERROR: {denied}"]
