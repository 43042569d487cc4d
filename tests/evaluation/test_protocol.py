import pytest

from flan_jax import catalog
from flan_jax.errors import FlanError
from flan_jax.evaluation import protocol


class _Manifest:
    def __init__(self, clusters):
        self.trained_clusters = clusters


@pytest.mark.parametrize(
    ("trained", "expected"),
    [
        (None, protocol.UNKNOWN),
        (set(), protocol.HELD_OUT),
        ({"sentiment", "commonsense"}, protocol.HELD_OUT),
        ({"nli"}, protocol.SEEN),
        ({"paraphrase"}, protocol.SEEN),  # the extra exclusion of the paper
    ],
)
def test_status_follows_the_hold_out_rule(trained, expected):
    assert protocol.status(catalog.dataset("rte"), _Manifest(trained)) == expected


def test_unknown_dataset_names_the_near_one():
    with pytest.raises(FlanError, match="did you mean 'nli'"):
        protocol.select(["nlii"])
    assert [d.cluster for d in protocol.select(["nli"])] == ["nli"] * len(catalog.datasets("nli"))
