import json

import numpy as np
import pytest

from flan_jax import catalog
from flan_jax.errors import FlanError
from flan_jax.evaluation import protocol


def _prediction(scores, answer, **more):
    return {"loglikelihood": scores, "answer": answer, "tokens": [1] * len(scores), "bytes": [1] * len(scores)} | more


def test_ranking_ties_go_to_the_first_option():
    assert protocol.ranked(_prediction([-1.0, -1.0, -2.0], 0), "sum") == 0


def test_normalised_ranking():
    prediction = _prediction([-4.0, -3.0], 0) | {"tokens": [4, 1], "bytes": [2, 1]}
    assert protocol.ranked(prediction, "sum") == 1
    assert protocol.ranked(prediction, "per_token") == 0
    assert protocol.ranked(prediction, "per_byte") == 0


def _random_predictions(rng, count, options, accuracy):
    found = []
    for _ in range(count):
        answer = int(rng.integers(options))
        scores = rng.normal(size=options)
        best = answer if rng.random() < accuracy else (answer + 1) % options
        scores[best] = scores.max() + 1
        words = ["yes", "it is not possible to tell", "no"]
        found.append(_prediction(scores.tolist(), answer, options=words, cut_tokens=0))
    return found


def test_summary_matches_numpy():
    rng = np.random.default_rng(0)
    record = catalog.dataset("snli")
    test = {n: _random_predictions(rng, 40, 3, 0.3 + 0.05 * n) for n in record.forward_templates}
    dev = {n: _random_predictions(rng, 20, 3, 0.9 if n == 2 else 0.2) for n in record.forward_templates}
    figures = protocol.summarize(record, test, dev)
    shares = [np.mean([int(np.argmax(p["loglikelihood"])) == p["answer"] for p in rows]) for rows in test.values()]
    np.testing.assert_allclose(figures["mean"], np.mean(shares))
    np.testing.assert_allclose(figures["std"], np.std(shares, ddof=1))
    assert figures["best_dev_template"] == 2
    np.testing.assert_allclose(figures["best_dev"], shares[list(test).index(2)])
    np.testing.assert_allclose(figures["random"], 1 / 3)
    first = [p["answer"] for p in next(iter(test.values()))]
    np.testing.assert_allclose(figures["majority"], np.bincount(first).max() / len(first))


def test_cluster_mean_counts_variants_once():
    def figures(paper, mean):
        return {
            "cluster": "nli",
            "paper_dataset": paper,
            "mean": mean,
            "best_dev": None,
            "random": 0.5,
            "majority": 0.5,
            "status": protocol.HELD_OUT,
        }

    means = protocol.cluster_means({"a": figures("mnli", 0.4), "b": figures("mnli", 0.6), "c": figures("rte", 0.7)})
    np.testing.assert_allclose(means["nli"]["mean"], 0.6)
    assert means["nli"]["best_dev"] is None
    assert means["nli"]["status"] == protocol.HELD_OUT


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


def test_atomic_write_leaves_no_temporary(tmp_path):
    protocol.write_atomic(tmp_path / "deep" / "file.json", json.dumps({"a": 1}))
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["file.json"]
