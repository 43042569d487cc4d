"""MultiRC: F1 over all candidate answers, and exact match over questions (Khashabi et al. 2018)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from flan_jax.metrics import Metric, library, percentage
from flan_jax.metrics.accuracy import is_right
from flan_jax.metrics.binary_f1 import f1_of_counts, f1_of_yes, has_no_yes, yes_counts


def multirc(targets: Sequence[Mapping[str, Any]], predictions: Sequence[str]) -> dict[str, float]:
    """F1 of the answer "yes" over candidates, and the share of questions with all candidates right, in percent.

    Args:
      targets: {"references", "question_id"} of each candidate; the candidates of a question share its id.
      predictions: an answer for each candidate.
    """
    right: dict[str, bool] = {}
    for target, prediction in zip(targets, predictions, strict=True):
        question = target["question_id"]
        right[question] = right.get(question, True) and bool(is_right(target, prediction))
    return {"f1a": f1_of_yes(targets, predictions), "em": percentage(list(right.values()))}


METRIC = Metric(
    name="multirc",
    version=f'{library("scikit-learn")}, F1 of "yes" over candidates',
    headline="f1a",
    secondary=("em",),
    secondary_versions={"em": "flan_jax 1, questions with all candidates right"},
    compute=multirc,
    statistics=yes_counts,
    of_sums=f1_of_counts,
    undefined=lambda targets, predictions: ("f1a",) if has_no_yes(targets, predictions) else (),
    needs=("question_id",),
)
