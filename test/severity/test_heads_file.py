"""The four logistic regressions as files."""

import hashlib
import os

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from balaitous.errors import WeightsError
from balaitous.severity.heads import HEADS
from balaitous.severity.heads_file import LARGEST, heads_csv, read_heads
from balaitous.severity.published import STOIC_HEADS
from helpers.checkpoints import heads_arrays

# Of the twelve arrays' bytes in the order of their names, as in the published package's balaitous.npz
PUBLISHED_HEADS_SHA256 = "4d8cbc67fb3d7b3cc70232b22837e353873e7386cdef24d3b30d6f18e9b6a7b4"


def test_the_carried_heads_are_the_published_ones_bit_for_bit():
    heads = read_heads(STOIC_HEADS)
    digest = hashlib.sha256(b"".join(heads[name].tobytes() for name in sorted(heads)))
    assert digest.hexdigest() == PUBLISHED_HEADS_SHA256
    assert [len(heads[f"coef_{head}"]) for head in HEADS] == [1024, 1024, 1026, 1026]
    assert [float(heads[f"alpha_{head}"]) for head in HEADS] == pytest.approx([0.35, 0.65, 0.5, 0.5])


def test_the_carried_heads_state_their_licence_and_source():
    text = STOIC_HEADS.read_text(encoding="utf-8")
    for words in ("MIT License", "Copyright (c) 2022 Simon Jégou", "https://github.com/SimJeg/balaitous", "1.2"):
        assert words in text


@given(
    values=st.lists(st.floats(-LARGEST, LARGEST), min_size=1, max_size=6),
    more=st.integers(0, 3),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_heads_survive_csv_bit_for_bit(tmp_path, values, more):
    arrays = {}
    for head in HEADS:  # the lung encoder may be wider than the full one
        coefficients = values + [0.5] * (more * head.startswith("lung") + 2 * head.endswith("severe"))
        arrays |= {f"coef_{head}": np.array(coefficients), f"intercept_{head}": np.array(values[0])}
        arrays[f"alpha_{head}"] = np.array(0.3 if head.startswith("full") else 0.7)
    (tmp_path / "heads.csv").write_text("# comment\n" + heads_csv(arrays))
    back = read_heads(tmp_path / "heads.csv")
    assert {name: array.tobytes() for name, array in back.items()} == {n: a.tobytes() for n, a in arrays.items()}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("full_covid", "another"), "full_covid"),
        (("feature_1,", "feature_7,"), "rows must be feature_0"),
        (("alpha,", "beta,"), "rows must be feature_0"),
        (("0.25", "a quarter"), "could not convert"),
    ],
)
def test_a_heads_table_in_another_layout_is_refused(tmp_path, change, message):
    (tmp_path / "heads.csv").write_text(heads_csv(heads_arrays(width=3)).replace(*change))
    with pytest.raises(WeightsError, match=message):
        read_heads(tmp_path / "heads.csv")


def test_heads_in_a_pipe_are_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "heads.csv")
    with pytest.raises(WeightsError, match="it is a pipe, a device or a socket"):
        read_heads(tmp_path / "heads.csv")
