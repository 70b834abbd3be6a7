"""Age and sex: how they are written in headers and side-cars, and which source wins."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from balaitous.ct.volume import read_ct
from balaitous.errors import InputError
from balaitous.reading.patient import (
    DEFAULT_AGE_YEARS,
    DEFAULT_SEX,
    Patient,
    format_age,
    from_header,
    parse_age,
    parse_sex,
    read_sidecar,
    resolve,
)
from helpers.headers import meta_image
from helpers.images import refused

NOBODY = Patient()


@pytest.mark.parametrize(
    ("text", "years"),
    [
        ("045Y", 45.0),
        ("45", 45.0),
        (" 45y ", 45.0),
        ("45.5", 45.5),
        (39, 39.0),
        ("006M", 0.5),
        ("026W", 182 / 365.25),
        ("180D", 180 / 365.25),
        ("000Y", 0.0),
    ],
)
def test_age_is_read_in_every_unit_of_dicom(text, years):
    assert parse_age(text) == pytest.approx(years)


@pytest.mark.parametrize(
    "text", ["", "  ", "-03Y", "300Y", "999Y", "abc", "Y", "45X", "4 5", "nan", "inf", None, math.nan]
)
def test_an_age_that_cannot_be_counts_as_not_given(text):
    assert parse_age(text) is None
    assert from_header(text, None, "header") == NOBODY


@given(st.integers(0, 120))
def test_age_survives_writing_and_reading(years):
    assert parse_age(format_age(years)) == years


@given(st.floats(0, 120))
def test_written_age_is_off_by_half_a_year_at_most(years):
    assert abs(parse_age(format_age(years)) - years) <= 0.5


@given(st.text())
def test_any_header_text_gives_a_sex_between_female_and_male(text):
    assert parse_sex(text) in (0.0, 0.5, 1.0)
    assert (parse_sex(text) == 1.0) == (text.strip("\0 \t\r\n").upper() in {"M", "MALE"})


@pytest.mark.parametrize(
    ("text", "sex"),
    [("M", 1.0), ("male", 1.0), ("F ", 0.0), ("F\0", 0.0), ("Female", 0.0), ("W", 0.0), ("O", 0.5), ("diverse", 0.5)],
)
def test_sex_of_a_header_is_read_as_letter_or_word(text, sex):
    assert from_header(None, text, "dicom") == Patient(None, None, sex, "dicom")


@pytest.mark.parametrize("age", ["000Y", "000M", "000W", "000D", "0", "", "n/a", "unknown"])
@pytest.mark.parametrize("sex", ["", "U", "n/a", "NaN"])
def test_what_an_anonymiser_leaves_is_unknown_in_headers_and_side_cars(tmp_path, age, sex):
    assert from_header(age, sex, "dicom") == NOBODY
    (tmp_path / "scan.json").write_text(json.dumps({"PatientAge": age, "PatientSex": sex}))
    assert read_sidecar(tmp_path / "scan.json") == NOBODY


def test_an_age_of_days_or_as_argument_is_that_of_a_newborn():
    assert from_header("003D", None, "dicom").age_years == pytest.approx(3 / 365.25)
    assert resolve(from_header("000Y", None, "dicom"), age=0).age_years == 0


def test_a_header_with_another_sex_is_half_way_and_an_empty_one_says_nothing():
    assert from_header("045Y", "O", "dicom") == Patient(45.0, "dicom", 0.5, "dicom")
    assert from_header("045Y", " ", "header") == Patient(45.0, "header", None, None)


def test_argument_wins_over_header_and_header_over_default():
    header = from_header("045Y", None, "header")
    assert resolve(header) == Patient(45.0, "header", DEFAULT_SEX, "default")
    assert resolve(header, age=70, sex="F") == Patient(70.0, "argument", 0.0, "argument")
    assert resolve(NOBODY) == Patient(DEFAULT_AGE_YEARS, "default", DEFAULT_SEX, "default")
    assert resolve(NOBODY, age=0, sex=0) == Patient(0.0, "argument", 0.0, "argument")


@pytest.mark.parametrize(
    ("sex", "value"),
    [
        (1, 1.0),
        (0, 0.0),
        (0.5, 0.5),
        ("M", 1.0),
        ("f", 0.0),
        ("0.5", 0.5),
        (1.0, 1.0),
        ("male", 1.0),
        ("Female", 0.0),
        ("W", 0.0),
        ("O", 0.5),
    ],
)
def test_sex_may_be_given_as_number_or_letter(sex, value):
    assert resolve(NOBODY, sex=sex).sex == value


@pytest.mark.parametrize("age", [-3, 300, 120.5, math.nan, "old", ""])
def test_an_impossible_age_argument_is_refused(age):
    with pytest.raises(ValueError, match=r"age must be between 0 and 120 years\. Got .* instead"):
        resolve(NOBODY, age=age)


@pytest.mark.parametrize("sex", ["X", 2, -1, 0.7, "", "male?"])
def test_an_unknown_sex_argument_is_refused(sex):
    with pytest.raises(ValueError, match=r'sex must be 1 or "M".* Got .* instead'):
        resolve(NOBODY, sex=sex)


@pytest.mark.parametrize(
    ("content", "patient"),
    [
        ('{"age": 45, "sex": "M"}', Patient(45.0, "sidecar", 1.0, "sidecar")),
        ('{"PatientAge": "045Y", "PatientSex": "F", "EchoTime": 1}', Patient(45.0, "sidecar", 0.0, "sidecar")),
        ('{"PatientSex": "O", "PatientAge": ""}', Patient(None, None, 0.5, "sidecar")),
        (
            '{"age": "n/a", "PatientAge": "045Y", "sex": "", "PatientSex": "female"}',
            Patient(45.0, "sidecar", 0.0, "sidecar"),
        ),
        ('{"age": 0, "sex": NaN}', NOBODY),
        ('{"age": null, "sex": 0.5}', Patient(None, None, 0.5, "sidecar")),
        ("{}", NOBODY),
        ('\ufeff{"age": 45}', Patient(45.0, "sidecar", None, None)),
    ],
)
def test_sidecar_is_read(tmp_path, content, patient):
    (tmp_path / "scan.json").write_text(content, encoding="utf-8")
    assert read_sidecar(tmp_path / "scan.json") == patient


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{age: 45}", "expected JSON in the side-car scan.json"),
        ("[45]", "expected a JSON object .* found a list"),
        ('{"age": 300}', "side-car scan.json: age must be between 0 and 120"),
        ('{"sex": "X"}', "side-car scan.json: sex must be"),
    ],
)
def test_a_wrong_sidecar_is_refused(tmp_path, content, reason):
    (tmp_path / "scan.json").write_text(content)
    with pytest.raises(InputError, match=reason) as caught:
        read_sidecar(tmp_path / "scan.json")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content", ["[" * 200_000, '{"age": "' + "9" * 2**21 + '"}', "\\", '{"age": "\\ud800"}', '"\x1b[2J"']
)
def test_a_side_car_that_is_none_is_refused(tmp_path, content):
    path = meta_image(tmp_path)
    (tmp_path / "scan.json").write_text(content)
    refused(path, r"side-car scan\.json")


def test_json_of_a_side_car_keeps_working(tmp_path):
    path = meta_image(tmp_path)
    (tmp_path / "scan.json").write_text(json.dumps({"sex": "F"}))
    assert read_ct(path).patient.sex == 0.0
