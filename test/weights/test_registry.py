"""What the table of models says of weights."""

from balaitous.models import MODELS, imported
from balaitous.weights.registry import published_bundles


def test_what_can_be_fetched_is_looked_for_before_what_comes_with_the_package():
    for model in MODELS.values():
        published = published_bundles([model])
        assert set(published) == set(model.bundles[:-1])
        assert {name: bundle.name for name, bundle in published.items()} == {name: name for name in published}
    assert "stoic" in published_bundles()


def test_every_check_of_a_model_s_parts_is_there():
    for model in MODELS.values():
        if model.checking:
            assert callable(imported(model.checking))
