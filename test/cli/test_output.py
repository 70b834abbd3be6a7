"""What the command writes: over nothing of the user's, beside no other run, harmless to whoever looks at it."""

import json
import os
import re
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from balaitous.cohort.table import columns_of, csv_line, read_table, write_table
from balaitous.container.submission import read_predictions
from balaitous.evaluation.tasks import read_reference
from balaitous.locks import Lock
from balaitous.text import printable
from helpers.commands import run_command, run_python
from helpers.toy import TOY
from helpers.waiting import PATIENCE_SECONDS, WAITING, kill_readers, pipe_of

pytestmark = pytest.mark.usefixtures("logging_as_it_was")

COLUMNS = columns_of(TOY)
ODD_NAMES = [
    *("[red]x", "[bold]", ":heart:", "=1+1", "-3", "'=q", "e\x1b[31mx", "l\nERROR: faked", "r\u202eevil"),
    *("n\x85ERROR: x", "p\u2028ERROR: y", "山田\u3000太郎"),
]
ESCAPED = {"e\\x1b[31mx", "l\\nERROR: faked", "r\\u202eevil", "n\\x85ERROR: x", "p\\u2028ERROR: y"}


def write_picture(path: Path) -> Path:
    Image.fromarray(np.tile(np.arange(40, dtype=np.uint8), (32, 1))).save(path)
    return path


@pytest.fixture
def pictures(toy, tmp_path) -> Path:
    """Two pictures in a folder, and a list of them with facts."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name in ("a.png", "b.png"):
        write_picture(folder / name)
    (folder / "list.csv").write_text("path,gain\na.png,1\nb.png,1\n")
    return folder


def predict(*arguments) -> int:
    return run_command("predict", "--model", "toy", *arguments)


def last_line(text: str) -> str:
    return text.strip().splitlines()[-1]


# --- what is there ----------------------------------------------------------------------------------------------------


def content_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--out", "list.csv"), "list.csv is there already: expected a table"),
        (("--out", "a.json"), "a.json is there already: expected a table"),
        (("--out", "b.json"), "--out must not be named as a scan beside it.*side-car.*b.json"),
        (("--report", "b.json"), "--report must not be named as a scan beside it"),
        (("--report", "a.json"), "a.json is there already: expected the report of an earlier run"),
        (("--report", "table.json"), "table.json is there already: expected the report"),
        (("--report", "mine.json"), "mine.json is there already: expected the report"),
        (("--out", "new.json", "--report", "./x/../new.json"), "--report and --out must be two files"),
        (("--out", "new.json", "--report", "link.json"), "--report and --out must be two files"),
    ],
)
def test_nothing_that_is_there_is_overwritten(pictures, options, reason, monkeypatch, capsys):
    monkeypatch.chdir(pictures)
    assert predict("a.png", "--out", "table.json") == 0
    (pictures / "a.json").write_text('{"gain": 2}')
    (pictures / "mine.json").write_text("[1, 2]")
    (pictures / "link.json").symlink_to("new.json")
    (pictures / "x").mkdir()
    before = content_of(pictures)
    assert predict("list.csv", *options) == 2
    assert re.search(reason, last_line(capsys.readouterr().err))
    assert content_of(pictures) == before


def test_a_table_that_is_the_list_itself_is_refused_and_a_report_takes_the_place_of_an_older_one(pictures, capsys):
    table, report = pictures / "table.csv", pictures / "report.json"
    assert predict(pictures, "--out", table, "--report", report) == 0
    before = table.read_bytes()
    assert predict(table, "--out", table, "--resume") == 2
    assert "--out must be another file than what is read" in last_line(capsys.readouterr().err)
    assert table.read_bytes() == before
    first = json.loads(report.read_bytes())
    assert predict(pictures, "--out", table, "--resume", "--report", report) == 0
    assert json.loads(report.read_bytes())["summary"] != first["summary"]


@pytest.mark.parametrize("option", [("--out", "t.csv"), ("--out", "t.parquet"), ("--report", "r.json")])
def test_a_second_run_on_the_same_output_is_refused(pictures, option, monkeypatch, capsys):
    monkeypatch.chdir(pictures)
    with Lock(Path(option[1])):
        assert predict("a.png", *option) == 2
    assert f"ERROR: {option[1]}: expected to be the only run that writes there" in capsys.readouterr().err
    assert predict("a.png", *option) == 0
    assert [name for name in os.listdir(pictures) if name.startswith(".")] == []


def test_an_evaluation_overwrites_an_earlier_one_alone(tmp_path, capsys):
    table, reference, out = tmp_path / "t.csv", tmp_path / "reference.csv", tmp_path / "out"
    table.write_text("PatientID,probability_covid,probability_severe\na,0.9,0.2\nb,0.1,0.1\nc,0.8,0.7\n")
    reference.write_text("PatientID,probCOVID,probSevere\na,1,0\nb,0,0\nc,1,1\n")
    arguments = ("evaluate", "--predictions", table, "--reference", reference, "--out", out, "--bootstraps", 100)
    out.mkdir()
    for name in ("metrics.json", "roc.png", "report.html"):
        (out / name).write_text("{}")
        assert run_command(*arguments) == 2
        assert f"{name} is there already, and not from an earlier run" in last_line(capsys.readouterr().err)
        assert content_of(out) == {name: b"{}"}
        (out / name).unlink()
    with Lock(out):
        assert run_command(*arguments) == 2
    assert "only run that writes there" in last_line(capsys.readouterr().err)
    for _ in range(2):
        assert run_command(*arguments) == 0
    assert not (out / ".lock").exists()


# --- names ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["csv", "parquet", "json"])
def test_odd_names_are_shown_whole_harmless_and_read_back_the_same(ending, toy, tmp_path, capsys):
    folder, table = tmp_path / "scans", tmp_path / f"table.{ending}"
    folder.mkdir()
    for name in ODD_NAMES:
        write_picture(folder / f"{name}.png")
    (folder / "broken\x1b[2J\nERROR: z.png").write_text("no picture")
    assert predict(folder, "--out", table, "--report", tmp_path / "report.json") == 5
    said = capsys.readouterr()
    expected = {name for name in ODD_NAMES if name.isprintable()} | {"山田\u3000太郎"} | ESCAPED
    written = "" if ending == "parquet" else table.read_text()
    for text in (said.out, said.err, written, (tmp_path / "report.json").read_text()):
        assert not set(text) & set("\x1b\x85\u2028\u202e")
        assert [line for line in text.splitlines() if line.startswith("ERROR: ")] in (
            [],
            ["ERROR: 1 of 13 scans failed, the others are done; see column 'error'."],
        )
    assert [name for name in expected if name not in said.out] == []
    assert [name for name in expected if f"{name}: bright" not in said.err] == []
    ok = [row for row in read_table(table, COLUMNS) if row["status"] == "ok"]
    assert {row["PatientID"] for row in ok} == expected
    assert predict(folder, "--out", table, "--resume") == 5
    assert "13 scans: 12 done before, 1 failed" in capsys.readouterr().err
    assert run_command("predict", folder / "[bold].png", "--model", "toy", "--strict") == 0
    assert "[bold]" in capsys.readouterr().out


@pytest.mark.parametrize("ending", ["csv", "parquet", "json"])
def test_an_evaluation_knows_every_patient_again(ending, tmp_path):
    columns = {"PatientID": str, "probability_covid": float, "probability_severe": float}
    patients = [f"{name}{number}" for number, name in enumerate(ODD_NAMES)]
    rows = [dict(zip(columns, (printable(name), 0.5, 0.5), strict=True)) for name in patients]
    write_table(rows, tmp_path / f"table.{ending}", columns)
    found = read_predictions(tmp_path / f"table.{ending}")
    as_in_the_table = [row["PatientID"] for row in rows]
    for number, names in enumerate((patients, as_in_the_table)):
        reference = tmp_path / f"reference{number}.csv"
        with reference.open("wb") as file:
            file.write(b"PatientID,probCOVID,probSevere\n")
            file.writelines(csv_line([name, "1", "0"]) for name in names)
        assert read_reference(reference).patients == found.patients


def test_what_comes_from_a_bundle_or_the_command_line_is_shown_as_it_is(toy, tmp_path, capsys):
    odd = "[red]gone[/red] :heart:\x1b[2J\nERROR: fake"
    for arguments in (("predict", odd), ("predict", "--model", odd, "a"), ("weights", "verify", odd)):
        assert run_command(*arguments) in (2, 3, 4)
        said = capsys.readouterr()
        assert "[red]gone[/red] :heart:\\x1b[2J" in last_line(said.err)
        assert "\x1b" not in said.out + said.err
        assert [line for line in said.err.splitlines() if line.startswith("ERROR: fake")] == []


def test_a_terminal_without_our_letters_ends_no_run(short_scan, tmp_path):
    table = tmp_path / "table.csv"
    environment = os.environ | {"BALAITOUS_WEIGHTS": "mini", "PYTHONIOENCODING": "ascii", "LC_ALL": "C"}
    (tmp_path / "scans").mkdir()
    (tmp_path / "scans/é–.mha").symlink_to(short_scan)
    ended = run_python("-m", "balaitous", "predict", tmp_path / "scans", "--out", table, env=environment)
    assert (ended.returncode, "Traceback" in ended.stderr) == (0, False)
    assert "\\xe9\\u2013" in ended.stdout
    assert "é–" in table.read_text(encoding="utf-8")


# --- reading ----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc, to see which process reads a file")
@pytest.mark.parametrize("form", ["predict", "--path"])
def test_a_scan_that_ends_its_process_ends_no_command(form, short_scan, tmp_path):
    scan = tmp_path / "deadly.mha"
    scan.write_bytes(short_scan.read_bytes())
    killer = threading.Thread(target=kill_readers, args=(pipe_of(scan), 1), daemon=True)
    killer.start()
    ended = run_python(
        "-m", "balaitous", form, scan, env=os.environ | {"BALAITOUS_WEIGHTS": "mini", "PYTHONPATH": WAITING}
    )
    killer.join(PATIENCE_SECONDS)
    assert ended.returncode == 3
    assert "deadly.mha: expected to read it, the process that did was ended" in last_line(ended.stderr)
