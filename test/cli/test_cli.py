"""The command as a user meets it: what it writes, what it prints, how it ends."""

import json
import re
import shutil

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk

import balaitous
from balaitous.cohort.items import Item
from balaitous.cohort.table import row_of, write_table
from balaitous.errors import InputError
from helpers import PHANTOM
from helpers.commands import run_command, run_python
from helpers.rows import COLUMNS, SEVERITY


@pytest.fixture(autouse=True)
def mini(monkeypatch, logging_as_it_was):
    """The default bundle, whatever else lies on this machine."""
    monkeypatch.setenv("BALAITOUS_WEIGHTS", "mini")


def run(capsys, *arguments) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a command."""
    code = run_command(*arguments)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def last_line(text: str) -> str:
    return text.strip().splitlines()[-1]


def write(path, array, spacing_mm=(3.0, 3.0, 10.0), vector=False):
    image = sitk.GetImageFromArray(array, isVector=vector)
    image.SetSpacing(spacing_mm[: image.GetDimension()])
    sitk.WriteImage(image, str(path))
    return path


def noise(shape, dtype=np.int16):
    return np.random.default_rng(0).integers(-1024, 1000, shape).astype(dtype)


def water():
    """A cylinder of water in air, as scanners are calibrated with: HU, but no lung."""
    rows, columns = np.ogrid[-1:1:80j, -1:1:80j]
    axial = np.where(rows**2 + columns**2 < 0.6, 0, -1000) + noise((10, 80, 80)) // 100
    return axial.astype(np.int16)


def text(path):
    path.write_text("this is no image\n" * 50)
    return path


def truncated(path):
    path.write_bytes(PHANTOM.read_bytes()[:200_000])
    return path


def enormous(path):
    header = "ObjectType = Image\nNDims = 3\nDimSize = 10000 10000 10000\nElementType = MET_SHORT\n"
    path.write_text(header + "ElementSpacing = 1 1 1\nElementDataFile = LOCAL\n")
    return path


def with_nan(path):
    array = noise((8, 20, 20), np.float32)
    array[3, 4, 5] = np.nan
    return write(path, array)


BAD_FILES = {
    "text renamed": (text, "MetaImage"),
    "truncated": (truncated, "cut short"),
    "10^12 voxels": (enormous, "voxels"),
    "2-D": (lambda path: write(path, noise((20, 20))), "2-D"),
    "RGB": (lambda path: write(path, noise((8, 20, 20, 3), np.uint8), vector=True), "RGB"),
    "constant": (lambda path: write(path, np.full((8, 20, 20), -1000, np.int16)), "nothing but"),
    "NaN": (with_nan, "NaN|finite"),
    "label mask": (lambda path: write(path, (noise((8, 20, 20)) > 0).astype(np.uint8)), "label mask"),
    "no lung": (lambda path: write(path, water()), "no lung found in scan .*Is it a chest CT"),
    "one slice": (lambda path: write(path, noise((1, 60, 60))), "slice|lung"),
}


@pytest.mark.parametrize("kind", BAD_FILES)
def test_a_bad_file_ends_in_one_line_with_exit_code_3(kind, tmp_path, capsys):
    make, reason = BAD_FILES[kind]
    path = make(tmp_path / "scan.mha")
    code, _, err = run(capsys, "predict", path)
    assert code == 3
    assert last_line(err).startswith("ERROR: ")
    assert re.search(reason, last_line(err)), err
    assert "scan" in last_line(err)
    assert "Traceback" not in err


def test_a_missing_path_and_an_empty_folder_end_with_exit_code_3(tmp_path, capsys):
    for path in (tmp_path / "nowhere.mha", tmp_path):
        code, _, err = run(capsys, "predict", path)
        assert code == 3
        assert last_line(err).startswith("ERROR: no s")


@pytest.mark.parametrize(
    "arguments",
    [
        ("--age", "-3"),
        ("--age", "300"),
        ("--sex", "X"),
        ("--device", "tpu"),
        ("--precision", "fp8"),
        ("--out", "table.xlsx"),
        ("--out", "nowhere/table.csv"),
        ("--report", "report.txt"),
        ("--report", "nowhere/report.json"),
        ("--resume",),
        ("--engine", "spark"),
        ("--address", "head:6379"),
        ("--out", "run.json", "--report", "run.json"),
    ],
)
def test_arguments_that_make_no_sense_end_with_exit_code_2(arguments, capsys):
    code, _, err = run(capsys, "predict", PHANTOM, *arguments)
    assert code == 2
    assert last_line(err).startswith("ERROR: ")
    assert "Got " in err or "does not exist" in err


@pytest.mark.parametrize("value", ["abc", "nan", "-1", "inf"])
def test_a_limit_in_the_environment_that_is_none_ends_every_command_with_exit_code_2(value, capsys, monkeypatch):
    monkeypatch.setenv("BALAITOUS_MAX_GIB", value)
    for arguments in (("predict", PHANTOM), ("info",)):
        code, out, err = run(capsys, *arguments)
        assert (code, out) == (2, "")
        assert err == f"ERROR: BALAITOUS_MAX_GIB must be a finite number above 0. Got '{value}' instead.\n"


ONE_ROW = '[{"PatientID": "a", "probability_covid": 0.5, "probability_severe": 0.5}]'


@pytest.mark.parametrize(
    ("content", "arguments", "code", "said"),
    [
        ("[" * 100_000, (), 3, "predictions.json: expected JSON, found: more than 100 levels"),
        ('[{"PatientID": 1, "PatientID": 2}]', (), 3, "the key 'PatientID' twice in one object"),
        (f"[{'9' * 5000}]", (), 3, "a number of 5,000 digits"),
        ('[{"PatientID": "a", "probability_covid": 1e999, "probability_severe": NaN}]', (), 3, "[0, 1]"),
        (ONE_ROW, ("--seed", "-1"), 2, "seed must be from 0 to 4294967295. Got -1 instead."),
        (ONE_ROW, ("--seed", 2**64), 2, "seed must be from 0"),
        (ONE_ROW, ("--bootstraps", 10**30), 2, "bootstraps must be from 100 to 1000000. Got 1e+30 instead."),
        (ONE_ROW, ("--threshold", "nan"), 2, "thresholds must be in [0, 1]. Got nan instead."),
    ],
)
def test_an_evaluation_that_makes_no_sense_ends_in_one_line(tmp_path, capsys, content, arguments, code, said):
    (tmp_path / "predictions.json").write_text(content)
    (tmp_path / "reference.csv").write_text("PatientID,probCOVID,probSevere\na,1,0\n")
    files = ("--predictions", tmp_path / "predictions.json", "--reference", tmp_path / "reference.csv")
    found, _, err = run(capsys, "evaluate", *files, "--out", tmp_path / "out", *arguments)
    assert found == code
    assert said in err
    assert err.count("\n") == 1


def test_weights_that_are_not_what_they_claim_end_with_exit_code_4(tmp_path, capsys):
    bundle = tmp_path / "bundle"
    shutil.copytree(balaitous.weights.search.find_bundle("mini"), bundle)
    file = bundle / "encoder_lung.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"\x01")
    for arguments in (("predict", PHANTOM, "--weights", bundle), ("weights", "verify", bundle)):
        code, _, err = run(capsys, *arguments)
        assert code == 4
        assert "encoder_lung.safetensors" in last_line(err)
    code, _, err = run(capsys, "predict", PHANTOM, "--weights", "nonesuch")
    assert code == 4
    assert "nonesuch" in last_line(err)


def test_one_bad_scan_among_several_leaves_the_others_written(short_scan, tmp_path, capsys):
    scans = tmp_path / "scans"
    scans.mkdir()
    shutil.copy(short_scan, scans / "good.mha")
    text(scans / "bad.mha")
    table, report = tmp_path / "table.csv", tmp_path / "report.json"
    code, _, err = run(capsys, "predict", scans, "--out", table, "--report", report, "--age", "71")
    assert code == 5
    assert last_line(err) == "ERROR: 1 of 2 scans failed, the others are done; see column 'error'."
    rows = pd.read_csv(table)
    assert tuple(rows.columns[:6]) == (
        "PatientID",
        "path",
        "probability_covid",
        "probability_severe",
        "status",
        "error",
    )
    bad, good = rows.to_dict("records")
    assert (bad["PatientID"], bad["status"], good["PatientID"], good["status"]) == ("bad", "failed", "good", "ok")
    assert "bad.mha" in bad["error"]
    assert 0 <= good["probability_covid"] <= 1
    assert (good["age_years"], good["age_source"], good["sex_source"]) == (71, "argument", "header")
    assert 0.3 < good["lung_volume_litres"] < 9
    facts = json.loads(report.read_text())
    assert facts["bundle"]["name"] == "mini"
    assert [row["status"] for row in facts["scans"]] == ["failed", "ok"]
    summary = facts["summary"]
    assert (summary["done"], summary["skipped"], summary["not_tried"]) == (1, 0, 0)
    assert summary["failed"] == {"InputError": {"count": 1, "example": bad["error"]}}
    assert f"2 scans: 1 done, 1 failed; {summary['scans_a_minute']:.3g} scans a minute" in err
    assert f"  1 × InputError, such as: {bad['error']}" in err

    before = table.read_bytes()
    code, _, err = run(capsys, "predict", scans, "--out", table, "--age", "71")
    assert code == 2
    assert "1 predicted scans. Add --resume to go on with it, or remove it to start anew." in last_line(err)
    assert table.read_bytes() == before
    code, _, err = run(capsys, "predict", scans, "--out", table, "--age", "71", "--resume")
    assert code == 5
    assert "[2/2] bad: failed" in err
    assert "2 scans: 1 done before, 1 failed;" in err
    assert table.read_bytes() == before
    code, _, err = run(capsys, "predict", scans, "--out", table, "--resume", "--precision", "bf16")
    assert code == 2
    assert "expected a table made with precision bf16 as this run has, found fp32" in last_line(err)
    assert table.read_bytes() == before


@pytest.mark.parametrize(
    ("ending", "read"), [("csv", pd.read_csv), ("parquet", pd.read_parquet), ("json", pd.read_json)]
)
def test_a_table_is_the_same_in_every_format(ending, read, short_prediction, tmp_path):
    prediction = short_prediction
    rows = [
        row_of(Item(PHANTOM), prediction, SEVERITY),
        row_of(Item(tmp_path / "gone.mha"), InputError("no such file"), SEVERITY),
    ]
    write_table(rows, tmp_path / f"table.{ending}", COLUMNS)
    good, bad = read(tmp_path / f"table.{ending}").to_dict("records")
    assert good["PatientID"] == "phantom"
    assert good["probability_covid"] == pytest.approx(prediction.probability_covid, abs=1e-12)
    assert good["probability_lung_severe"] == pytest.approx(prediction.probabilities["lung_severe"], abs=1e-12)
    assert (bad["PatientID"], bad["status"], bad["error"]) == ("gone", "failed", "no such file")
    assert [path.name for path in tmp_path.iterdir()] == [f"table.{ending}"]
    if ending == "csv":
        assert f",{prediction.slices},{len(prediction.image)}," in (tmp_path / "table.csv").read_text()


def test_the_published_form_prints_two_percentages(capsys, short_scan, short_prediction):
    code, out, err = run(capsys, "--path", short_scan)
    assert code == 0
    assert out == (
        f"Probability covid: {100 * short_prediction.probability_covid:.2f}%\n"
        f"Probability severe: {100 * short_prediction.probability_severe:.2f}%\n"
    )
    assert err.count("demonstration") == 1


def test_version_and_info_say_what_would_run(capsys):
    assert run(capsys, "--version")[1] == f"balaitous version : {balaitous.__version__}\n"
    code, out, _ = run(capsys, "info", "--json")
    facts = json.loads(out)
    assert code == 0
    assert facts["bundle"]["name"] == "mini"
    assert facts["versions"]["balaitous"] == balaitous.__version__
    assert "not for diagnosis" in run(capsys, "info")[1]


def test_weights_list_shows_the_search_order_and_what_can_be_fetched(capsys):
    code, out, _ = run(capsys, "weights", "list")
    assert code == 0
    assert "/opt/ml/model" in out
    assert "weights fetch stoic" in out
    assert "vitl_16_ct.pth" in out


def test_weights_verify_names_every_file(capsys):
    code, out, _ = run(capsys, "weights", "verify")
    assert code == 0
    assert out.count("ok ") == 5


def test_a_fetch_of_something_unknown_is_misuse(capsys):
    code, _, err = run(capsys, "weights", "fetch", "nonesuch")
    assert code == 2
    assert "nonesuch" in last_line(err)


def test_no_arguments_show_the_help(capsys):
    code, out, err = run(capsys)
    assert code == 2
    assert "predict" in out + err


def test_a_command_that_ends_early_ends_the_processes_of_joblib_too():
    script = """
from multiprocessing import active_children
from joblib import Parallel, delayed
from balaitous.cli import end_children
Parallel(n_jobs=2)(delayed(abs)(number) for number in range(2))
assert active_children()
end_children()
assert not active_children()
"""
    ended = run_python("-c", script)
    assert (ended.returncode, ended.stderr) == (0, "")
