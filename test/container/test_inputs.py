"""What `inputs.json` tells of a job."""

import contextlib
import json
import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from balaitous.container.inputs import JobInputs, read_inputs
from balaitous.errors import InputError

SCAN = {"socket": {"slug": "ct-image", "relative_path": "images/ct"}, "image": {"name": "P001.mha"}}


def told(folder, *items):
    (folder / "inputs.json").write_text(json.dumps(items))
    return read_inputs(folder)


def item(slug, value=None, path=None):
    return {"socket": {"slug": slug, "relative_path": path}, "value": value, "file": None, "image": None}


def test_a_job_without_inputs_json_tells_nothing(tmp_path):
    assert read_inputs(tmp_path) == JobInputs()


@pytest.mark.parametrize("key", ["socket", "interface"])
def test_name_age_and_sex_are_told_under_the_new_and_the_old_key(tmp_path, key):
    (tmp_path / "patient-sex.json").write_text('"F"')
    items = [
        {key: {"slug": "ct-image", "relative_path": "images/ct"}, "value": None, "image": {"name": "P001.mha"}},
        {key: {"slug": "patient-age", "relative_path": "patient-age.json"}, "value": "045Y", "image": None},
        {key: {"slug": "patient-sex", "relative_path": "patient-sex.json"}, "value": None, "image": None},
    ]
    assert told(tmp_path, *items) == JobInputs("P001.mha", 45.0, 0.0)


@pytest.mark.parametrize(
    ("items", "expected"),
    [
        ([SCAN], JobInputs("P001.mha")),
        ([SCAN | {"image": None}], JobInputs()),
        ([{"socket": {"slug": "generic-medical-image"}, "image": {"name": "x.mha"}}], JobInputs("x.mha")),
        ([item("age", 0)], JobInputs(age_years=0.0)),
        ([item("age-in-years", 61.5)], JobInputs(age_years=61.5)),
        ([item("sex", 0.5), SCAN], JobInputs("P001.mha", sex=0.5)),
        ([item("age", None, "age.json")], JobInputs()),  # an optional input that this job does not have
    ],
)
def test_each_part_may_be_left_out(tmp_path, items, expected):
    assert told(tmp_path, *items) == expected


def test_unknown_sockets_are_named_all_of_them(tmp_path):
    mask = {"socket": {"slug": "lung-mask", "relative_path": "images/lung-mask"}, "image": {"name": "m.mha"}}
    with pytest.raises(InputError, match=r"found also 'lung-mask' at images/lung-mask, 'age-in-months'\. Take"):
        told(tmp_path, SCAN, mask, item("patient-age", 45), item("age-in-months", 540))


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ([item("patient-age", 300)], "inputs.json, 'patient-age': age must be between 0 and 120 years. Got 300"),
        ([item("age", True)], "age must be"),
        ([item("sex", {"sex": "F"})], "inputs.json, 'sex': sex must be"),
        ([item("age", 45), item("patient-age", 46)], "expected one socket of a kind, found 'age', 'patient-age'"),
        ([SCAN, SCAN], "expected one socket of a kind, found 'ct-image' at images/ct"),
        ([item("age", None, "../age.json")], "expected a file inside"),
        ([item("age", None, "/age.json")], "expected a file inside"),
        ([item("age", None, "text.json")], "text.json: expected JSON"),
    ],
)
def test_what_makes_no_sense_is_refused_with_the_socket_that_told_it(tmp_path, items, message):
    (tmp_path / "text.json").write_text("forty-five")
    with pytest.raises(InputError) as raised:
        told(tmp_path, *items)
    assert message in str(raised.value)


@pytest.mark.parametrize(
    "content",
    [
        *[
            "{",
            "3",
            '"text"',
            '{"socket": 1}',
            "[1]",
            '[{"socket": "ct"}]',
            "[" * 100_000,
            "[" * 500 + "]" * 500,
            "[NaN]",
        ],
        '[{"socket": {"slug": "age"}, "value": 45, "value": 54}]',
        f'[{{"socket": {{"slug": "age"}}, "value": {"9" * 5000}}}]',
    ],
)
def test_an_inputs_json_that_is_something_else_is_refused(tmp_path, content):
    (tmp_path / "inputs.json").write_text(content)
    with pytest.raises(InputError, match=r"inputs\.json: expected "):
        read_inputs(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes with names")
def test_pipes_are_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "age.json")
    with pytest.raises(InputError, match=r"age\.json: expected JSON, cannot read it \(it is a pipe"):
        told(tmp_path, item("age", None, "age.json"))
    (tmp_path / "inputs.json").unlink()
    os.mkfifo(tmp_path / "inputs.json")
    with pytest.raises(InputError, match=r"inputs\.json: expected JSON, cannot read it \(it is a pipe"):
        read_inputs(tmp_path)


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
ITEM = st.fixed_dictionaries(
    {
        "socket": st.fixed_dictionaries(
            {"slug": st.sampled_from(["age", "sex", "ct"]) | JSON}, optional={"relative_path": JSON}
        )
    },
    optional={"value": JSON, "image": JSON | st.fixed_dictionaries({"name": JSON})},
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(ITEM | JSON, max_size=3))
def test_whatever_inputs_json_holds_it_is_understood_or_refused_in_words(tmp_path, items):
    with contextlib.suppress(InputError):
        assert isinstance(told(tmp_path, *items), JobInputs)
