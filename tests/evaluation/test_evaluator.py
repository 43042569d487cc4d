import pytest

from flan_jax import catalog
from flan_jax.errors import FlanError
from flan_jax.evaluation import evaluator


class _Manifest:
    def __init__(self, clusters):
        self.trained_clusters = clusters


@pytest.mark.parametrize(
    ("trained", "expected"),
    [
        (None, evaluator.UNKNOWN),
        (set(), evaluator.HELD_OUT),
        ({"sentiment", "commonsense"}, evaluator.HELD_OUT),
        ({"nli"}, evaluator.SEEN),
        ({"paraphrase"}, evaluator.SEEN),  # the extra exclusion of the paper
    ],
)
def test_status_follows_the_hold_out_rule(trained, expected):
    assert evaluator.status(catalog.dataset("rte"), _Manifest(trained)) == expected


def test_unknown_dataset_names_the_near_one():
    with pytest.raises(FlanError, match="did you mean 'nli'"):
        evaluator.select(["nlii"])
    assert [d.cluster for d in evaluator.select(["nli"])] == ["nli"] * len(catalog.datasets("nli"))
