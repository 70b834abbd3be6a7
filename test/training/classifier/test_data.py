"""Tables of labelled pictures: the published ones and others; groups, relatives, folds; the frozen split."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from balaitous.errors import InputError
from balaitous.training.classifier.data import (
    LabelledPicture,
    Pictures,
    correlations,
    folds_of,
    load_pictures,
    of_split,
    read_table,
    read_tables,
    without_relatives,
)
from balaitous.training.classifier.slices import SPLITS, TABLES, grey_of

NAMES = ("2020.03.22.20040782-p25-1542.png", "14%0.png", "14%1.png", "905.png")


@pytest.fixture
def folder(tmp_path) -> Path:
    """A folder with pictures as COVID-CT has them."""
    (tmp_path / "images").mkdir()
    for seed, name in enumerate(NAMES):
        noise = np.random.default_rng(seed).integers(0, 256, (100, 120), np.uint8)
        Image.fromarray(noise).save(tmp_path / "images" / name)
    return tmp_path


def written(folder: Path, *lines: str) -> Path:
    path = folder / "table.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def test_the_published_table_means_absence_by_an_empty_cell(folder):
    table = written(
        folder,
        "imgname,CVD19,GGO,Csld,CrPa,AirBr,InSepThi",
        f"{NAMES[0]},CVD19,GGO,,,AirBr,InSepThi",
        "14%0.jpg,,,,,,",
    )
    one, other = read_table(table, TABLES)
    assert one.labels == (1, 1, 0, 0, 1, 1)
    assert other.labels == (0,) * 6
    assert other.path == folder / "images/14%0.png"  # under another ending
    assert (one.group, other.group) == ("2020.03.22.20040782", "14")


def test_a_table_of_new_data_with_the_other_spellings_means_the_same(folder):
    table = written(
        folder,
        "imgname,CVD19,ground glass opacity,consolidation,Crazy paving appearance,air bronchogram,"
        "interlobular septal thickening,Collection date,Sources",
        f"{NAMES[0]},CVD19,GGO,,,Aibr,InSep,5.18,somewhere",
    )
    assert read_table(table, TABLES)[0].labels == (1, 1, 0, 0, 1, 1)


def test_the_table_of_positives_has_columns_without_a_name(folder):
    table = written(
        folder,
        ",,C0VID19,GGO,consolidation(Csld),Crazy paving appearance(CrPa),air bronchograms(AirBr),"
        "interlobular septal thickening(InSepThi),",
        f"{NAMES[0][:-4]},Patient 7,C0VID19,GGO,,,,,['a caption']",
    )
    (one,) = read_table(table, TABLES)
    assert one.labels == (1, 1, 0, 0, 0, 0)
    assert one.group == "Patient 7"


def test_in_other_tables_an_empty_cell_is_not_known(folder):
    table = written(folder, "path,label,ggo,source,patient,split", "images/905.png,1,,here,p1,val", "14%0.png,0,0,,,")
    one, other = read_table(table, TABLES)
    assert np.array_equal(one.labels, (1, *[np.nan] * 5), equal_nan=True)
    assert other.labels[:2] == (0, 0)
    assert (one.group, one.source, one.split, other.group) == ("p1", "here", "val", "14")
    assert {use: len(listed) for use, listed in of_split([one, other], SPLITS).items()} == {"val": 1, "train": 1}


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        (("imgname,CVD19,GGO", "905.png,CVD19,", "14%0.png,CVD19,Ggoo"), r"table\.csv, line 3: ggo must be .*'Ggoo'"),
        (("imgname,CVD19,GGO", "905.png,GGO,"), r"line 2: covid must be one of .*'GGO'"),
        (("imgname,CVD19", "nothing.png,"), r"line 2: expected the picture nothing\.png in "),
        (("imgname,CVD19", ",CVD19"), r"line 2: expected the name of a picture"),
        (("imgname,view", "905.png,PA"), r"expected a column of pictures .* and columns of outputs"),
        (("imgname,AirBr,Aibr", "905.png,,"), r"several for air_bronchogram"),
        (("imgname,CVD19",), r"expected a line for every picture"),
    ],
)
def test_a_table_that_makes_no_sense_is_refused_with_the_line(folder, lines, says):
    with pytest.raises(InputError, match=says):
        read_table(written(folder, *lines), TABLES)


def test_a_picture_in_two_tables_is_refused(folder):
    table = written(folder, "imgname,CVD19", "905.png,")
    with pytest.raises(InputError, match=r"found twice or more: .*905"):
        read_tables([table, table], TABLES)


def test_pictures_that_cannot_be_used_are_left_out_and_named(folder):
    (folder / "images/905.png").write_text("no picture")
    listed = read_table(written(folder, "imgname,CVD19", *[f"{name}," for name in NAMES]), TABLES)
    found = load_pictures(listed, (32, 40), grey_of, folder / "out")
    assert found.grey.shape == (3, 32, 40)
    assert "905.png" in (folder / "out/pictures.csv").read_text().split("failed")[0]
    with pytest.raises(InputError, match="expected at least one picture, found none among 1"):
        load_pictures(listed[3:], (32, 40), grey_of, folder / "out")


def pictures_of(grey, groups, sources=None, covid=None) -> Pictures:
    count = len(grey)
    labels = np.zeros((count, 6), np.float32)
    labels[:, 0] = covid if covid is not None else 0
    listed = [
        LabelledPicture(f"{i}", Path(f"{i}.png"), tuple(labels[i]), groups[i], (sources or ["s"] * count)[i])
        for i in range(count)
    ]
    return Pictures(listed, grey, labels)


def test_relatives_are_those_of_one_group_and_those_that_look_alike():
    rng = np.random.default_rng(0)
    grey = rng.integers(0, 256, (5, 64, 64), np.uint8)
    twin = np.clip(grey[3].astype(int) * 0.8 + 20 + rng.normal(0, 2, (64, 64)), 0, 255).astype(np.uint8)
    others = pictures_of(np.stack([twin, rng.integers(0, 256, (64, 64), np.uint8)]), ["x", "b"])
    kept, left = without_relatives(pictures_of(grey, list("abcde")), others)
    assert left == ["1", "3"]
    assert [each.name for each in kept.listed] == ["0", "2", "4"]
    assert correlations(grey, grey).diagonal() == pytest.approx(np.ones(5), abs=1e-5)


def test_folds_keep_groups_together_and_hold_everything_out_once():
    grey = np.zeros((12, 4, 4), np.uint8)
    groups = [*"aaaabbbccdef"]
    folds = folds_of(pictures_of(grey, groups), "patient", 3)
    assert np.sum(folds, axis=0).tolist() == [1] * 12
    assert [int(fold.sum()) for fold in folds] == [4, 4, 4]
    for fold in folds:
        assert not {groups[i] for i in np.flatnonzero(fold)} & {groups[i] for i in np.flatnonzero(~fold)}
    sources = folds_of(pictures_of(grey, groups, ["p"] * 5 + ["q"] * 7), "source", 3)
    assert sorted(int(fold.sum()) for fold in sources) == [5, 7]
    with pytest.raises(ValueError, match="folds must be patient or source"):
        folds_of(pictures_of(grey, groups), "scanner", 3)
    with pytest.raises(ValueError, match=r"at least two of them\. Got 1"):
        folds_of(pictures_of(grey, groups), "source", 3)


@pytest.mark.data
@pytest.mark.parametrize(
    ("split", "rows", "covid", "bearing", "lesions", "patients"),
    [
        ("train", 425, 191, 130, [108, 51, 11, 8, 12], 195),
        ("val", 118, 60, 39, [37, 10, 0, 0, 0], 49),
        ("test", 203, 98, 69, [66, 18, 4, 3, 0], 104),
    ],
)
def test_the_frozen_split_has_its_published_counts(data, split, rows, covid, bearing, lesions, patients):
    """Counts of specs/slices.md; groups: preprints, and figures of others."""
    listed = read_table(data / "covid_ct_slices" / f"{split}_meta.csv", TABLES)
    labels = np.array([each.labels for each in listed])
    assert (len(listed), labels[:, 0].sum()) == (rows, covid)
    assert labels[:, 1:].any(axis=1).sum() == bearing
    assert labels[:, 1:].sum(axis=0).tolist() == lesions
    assert len({each.group for each in listed}) == patients


@pytest.mark.data
def test_seven_positives_of_the_test_split_share_a_preprint_with_training(data):
    tables = [data / "covid_ct_slices" / f"{split}_meta.csv" for split in ("train", "test")]
    training, test = (read_table(table, TABLES) for table in tables)
    groups = {each.group for each in training}
    assert sum(each.labels[0] == 1 and each.group in groups for each in test) == 7
