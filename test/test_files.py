"""Files that take another's place: mode, owner, links, and what is not overwritten."""

from __future__ import annotations

import json
import os

import pytest

from balaitous.files import new_folder, refuse_others, replacing, write_together, write_whole


def in_pieces(path, content):
    with replacing(path) as file:
        file.write(content)


WAYS = [write_whole, in_pieces, lambda path, content: write_together({path: content})]


@pytest.mark.parametrize("write", WAYS)
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o664])
def test_a_replaced_file_keeps_its_mode(write, mode, tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("old")
    path.chmod(mode)
    write(path, b"new")
    assert (path.read_text(), path.stat().st_mode & 0o777) == ("new", mode)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="only root may give files away")
def test_a_replaced_file_keeps_its_owner(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("old")
    os.chown(path, 12345, 23456)
    write_whole(path, b"new")
    assert (path.stat().st_uid, path.stat().st_gid, path.read_text()) == (12345, 23456, "new")


@pytest.mark.parametrize("write", WAYS)
def test_a_link_stays_one_and_what_it_points_to_is_written(write, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    link, target = tmp_path / "link.csv", tmp_path / "elsewhere/table.csv"
    link.symlink_to("elsewhere/table.csv")
    for content in (b"new", b"newer"):  # at first it points to nothing
        write(link, content)
        assert link.is_symlink()
        assert target.read_bytes() == content
    assert sorted(os.listdir(tmp_path)) == ["elsewhere", "link.csv"]
    assert os.listdir(tmp_path / "elsewhere") == ["table.csv"]


def test_a_folder_may_be_a_link_to_an_empty_one(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    with new_folder(tmp_path / "link") as partial:
        (partial / "a").write_text("a")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real/a").read_text() == "a"


def test_a_file_may_get_the_mode_of_another(tmp_path):
    (tmp_path / "table.parquet").touch(0o600)
    write_whole(tmp_path / "rows.csv", b"secret", like=tmp_path / "table.parquet")
    assert (tmp_path / "rows.csv").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("content", [None, "mine", "[]", '{"other": 1}', "[" * 100_000])
def test_files_are_overwritten_only_beside_the_record_of_an_earlier_run(content, tmp_path):
    refuse_others(tmp_path, ["a.csv"], "record.json", ["made_by"])
    if content is None:
        (tmp_path / "a.csv").symlink_to("nowhere")
    else:
        (tmp_path / "record.json").write_text(content)
    named = "a.csv" if content is None else "record.json"
    with pytest.raises(ValueError, match=rf"{named} is there already, and not from an earlier run of this command"):
        refuse_others(tmp_path, ["a.csv"], "record.json", ["made_by"])
    (tmp_path / "record.json").write_text(json.dumps({"made_by": 1, "more": 2}))
    refuse_others(tmp_path, ["a.csv"], "record.json", ["made_by"])
