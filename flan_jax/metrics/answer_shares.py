"""What accuracy hides: F1 averaged over the answers, and the share of the most frequent answer."""

from __future__ import annotations

import collections
from collections.abc import Sequence
from typing import Any

from flan_jax.lazy import lazy_imports
from flan_jax.metrics import Metric, library, references

with lazy_imports():
    from sklearn import metrics as sklearn_metrics


def answer_shares(targets: Sequence[Any], predictions: Sequence[str]) -> dict[str, float]:
    """Macro F1 over all answers that are right or given, and the share of the most frequent prediction, in percent.

    A model that always gives the same answer has a `top_answer` of 100, and with two answers a `macro_f1` below 50.

    Args:
      targets: one answer each. If several are right, the given one counts if it is among them.
      predictions: one answer each, out of a few.
    """
    given = [p.strip() for p in predictions]
    right = [[r.strip() for r in references(t)] for t in targets]
    wanted = [p if p in r else r[0] for r, p in zip(right, given, strict=True)]
    return {
        "macro_f1": 100.0 * float(sklearn_metrics.f1_score(wanted, given, average="macro", zero_division=0)),
        "top_answer": 100.0 * collections.Counter(given).most_common(1)[0][1] / len(given),
    }


METRIC = Metric(
    name="answer_shares",
    version=f"{library('scikit-learn')}, macro F1",
    headline="macro_f1",
    secondary=("top_answer",),
    secondary_versions={"top_answer": "flan_jax 1, share of the most frequent answer"},
    compute=answer_shares,
    by_place=True,
)
