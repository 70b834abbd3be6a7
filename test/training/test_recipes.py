"""Recipes are read strictly: numbers, texts, truths and lists of them, like the defaults."""

import pytest

from balaitous.errors import InputError
from balaitous.training.classifier.recipe import read_recipe


@pytest.mark.parametrize(
    "text",
    [
        'output_weights = ["5"]',
        "output_weights = [1, -1]",
        "output_weights = 5",
        "balanced = 1",
        "epochs = true",
        "size = [256]",
        "augment = 1",
        "augment = {flip = [0.5]}",
        "learning_rate = nan",
    ],
)
def test_a_value_unlike_its_default_is_refused_in_words(tmp_path, text):
    (tmp_path / "recipe.toml").write_text(text)
    with pytest.raises(InputError, match="must be like"):
        read_recipe(tmp_path / "recipe.toml")


def test_an_empty_tuple_stands_for_any_number_of_fractions(tmp_path):
    (tmp_path / "recipe.toml").write_text("output_weights = [5, 1.5]\nbalanced = false")
    assert read_recipe(tmp_path / "recipe.toml").output_weights == (5, 1.5)
