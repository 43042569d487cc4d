import pytest

from flan_jax import catalog
from flan_jax.errors import FlanError
from flan_jax.evaluation import evaluator


def test_unknown_dataset_names_the_near_one():
    with pytest.raises(FlanError, match="did you mean 'nli'"):
        evaluator.select(["nlii"])
    with pytest.raises(FlanError, match="did you mean 'wmt14_enfr/fr-en'"):
        evaluator.select(["wmt14_enfr/fren"])
    assert [d.cluster for d in evaluator.select(["nli"])] == ["nli"] * len(catalog.datasets("nli"))
