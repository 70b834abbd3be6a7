"""Columns and tokens of COVID-CT's tables: both spellings mean the same, unknown ones are errors."""

import pytest

from balaitous.models import MODELS
from balaitous.slices.lesions import LESIONS, OUTPUT_OF, OUTPUTS, SPELLINGS, finding_of, output_of


def test_outputs_are_those_of_the_table_of_models():
    assert list(OUTPUTS) == list(MODELS["slices"].outputs) == list(SPELLINGS)
    assert len(LESIONS) == 5


@pytest.mark.parametrize(
    ("column", "output"),
    [
        ("CVD19", "covid"),
        ("C0VID19", "covid"),
        ("GGO", "ggo"),
        ("Csld", "consolidation"),
        ("consolidation(Csld)", "consolidation"),
        ("CrPa", "crazy_paving"),
        ("Crazy paving appearance(CrPa)", "crazy_paving"),
        ("AirBr", "air_bronchogram"),
        ("Aibr", "air_bronchogram"),
        ("air bronchograms(AirBr)", "air_bronchogram"),
        ("InSepThi", "septal_thickening"),
        ("InSep", "septal_thickening"),
        ("interlobular septal thickening(InSepThi)", "septal_thickening"),
        ("imgname", None),
        ("Sources", None),
        ("", None),
    ],
)
def test_every_published_column_is_known(column, output):
    assert output_of(column) == output


def test_no_spelling_means_two_outputs():
    assert len(OUTPUT_OF) == sum(map(len, SPELLINGS.values()))


@pytest.mark.parametrize(
    ("one", "other", "output"),
    [
        ("AirBr", "Aibr", "air_bronchogram"),
        ("InSepThi", "InSep", "septal_thickening"),
        ("CVD19", "C0VID19", "covid"),
    ],
)
def test_both_spellings_of_a_token_mean_the_same(one, other, output):
    assert finding_of(one, output) == finding_of(other, output) == finding_of("1", output) == 1
    assert finding_of("", output) == finding_of("0", output) == finding_of(" ", output) == 0


@pytest.mark.parametrize("text", ["GGO", "yes", "Aibrr", "2", "0.5", "nan"])
def test_a_token_that_is_unknown_or_of_another_output_is_an_error(text):
    with pytest.raises(ValueError, match=rf"air_bronchogram must be one of airbr, aibr.*Got '{text}'"):
        finding_of(text, "air_bronchogram")
