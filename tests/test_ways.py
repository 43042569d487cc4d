"""Ways to score: values from a prediction's numbers, against numpy and lm-evaluation-harness's own code."""

import math
import types

import numpy as np
import pytest

from flan_jax import ways
from flan_jax.errors import FlanError

OPTIONS = ["yes", "no", "", " ", "naïve café", "日本語の答え", "👩‍👩‍👧", "A. yes", "two\nlines", "e\u0301", "x" * 300]


def line(rng, options, **more):
    found = {"options": list(options), "loglikelihood": (-40 * rng.random(len(options))).tolist(), "answer": 0}
    found["tokens"] = rng.integers(1, 9, len(options)).tolist()
    found["bytes"] = [len(option.encode()) for option in options]
    found["characters"] = [len(option) for option in options]
    return found | more


def test_values_are_numpys():
    rng = np.random.default_rng(0)
    for _ in range(50):
        p = line(
            rng, rng.choice(OPTIONS, 5), unconditional=(-9 * rng.random(5)).tolist(), channel=rng.random(5).tolist()
        )
        total = np.array(p["loglikelihood"])
        expected = {
            "sum": total,
            "per_token": total / np.maximum(p["tokens"], 1),
            "per_byte": total / np.maximum(p["bytes"], 1),
            "per_character": total / np.maximum(p["characters"], 1),
            "pmi": total - np.array(p["unconditional"]),
            "channel": np.array(p["channel"]),
        }
        assert [way.name for way in ways.kept(p)] == list(expected) == [way.name for way in ways.ALL]
        for name, values in expected.items():
            np.testing.assert_allclose(ways.way(name).values(p), values, rtol=1e-12)


def harness_says(choices, loglikelihoods, gold, unconditional):
    """What lm-evaluation-harness makes of the same log-likelihoods: {"acc", "acc_norm", "acc_bytes", ...}."""
    task = pytest.importorskip("lm_eval.api.task")
    metrics = ("acc", "acc_norm", "acc_bytes", "acc_mutual_info")
    stand_in = types.SimpleNamespace(
        OUTPUT_TYPE="multiple_choice",
        _metric_fn_list=dict.fromkeys(metrics),
        config=types.SimpleNamespace(process_results=None),
        doc_to_choice=lambda doc: list(choices),
        doc_to_target=lambda doc: gold,
        multiple_input=False,
        multiple_target=False,
    )
    results = [(value, False) for value in (*loglikelihoods, *unconditional)]
    return task.ConfigurableTask.process_results(stand_in, {}, results)


def test_choices_are_those_of_lm_evaluation_harness():
    """Its acc_norm divides by characters (code points of the option's text), its acc_bytes by bytes."""
    rng, differ = np.random.default_rng(1), 0
    some = [option for option in OPTIONS if option]  # the harness divides by the 0 of an empty one
    for _ in range(300):
        p = line(rng, rng.choice(some, rng.integers(1, 6), replace=False))
        p["unconditional"] = (-40 * rng.random(len(p["options"]))).tolist()
        found = {}
        for way, theirs in {
            "sum": "acc",
            "per_character": "acc_norm",
            "per_byte": "acc_bytes",
            "pmi": "acc_mutual_info",
        }.items():
            values = ways.way(way).values(p)
            found[way] = values.index(max(values))
            for gold in range(len(values)):
                said = harness_says(p["options"], p["loglikelihood"], gold, p["unconditional"])
                assert said[theirs] == float(gold == found[way]), (way, p)
        differ += found["per_character"] != found["per_byte"]
    assert differ > 10


def test_only_what_is_kept_can_be_computed():
    p = line(np.random.default_rng(2), ["a", "b"])
    assert [way.name for way in ways.kept(p)] == ["sum", "per_token", "per_byte", "per_character"]
    with pytest.raises(FlanError, match=r"no 'channel', which 'channel' needs: evaluate again with WAYS"):
        ways.way("channel").values(p)
    del p["characters"]
    with pytest.raises(FlanError, match="no 'characters', which 'per_character' needs: evaluate again"):
        ways.way("per_character").values(p)


def test_what_is_not_finite_stays_so():
    p = line(np.random.default_rng(3), ["a", "b"], channel=[None, -1.0])  # JSON has null for NaN
    assert math.isnan(ways.way("channel").values(p)[0])


@pytest.mark.parametrize("name", ["", "chanel", "PMI", "sums", "per_char", "\n"])
def test_no_such_way(name):
    with pytest.raises(FlanError, match="no way to score") as error:
        ways.readings(("sum", name))
    assert "\n" not in str(error.value)


def test_readings_are_asked_for_once_and_in_one_order():
    assert ways.readings(()) == ways.readings(("sum", "per_character")) == ()
    assert [r.key for r in ways.readings(("channel", "pmi", "sum"))] == ["unconditional", "channel"]
    assert len({way.name for way in ways.ALL}) == len({way.title for way in ways.ALL}) == len(ways.ALL)
    assert ways.ALL[0] is ways.SUM  # the paper's, which wins ties on dev
