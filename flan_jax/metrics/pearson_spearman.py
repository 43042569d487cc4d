"""Pearson's and Spearman's correlation of answers that are numbers, as GLUE has them for STS-B."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from etils import epy

from flan_jax.errors import FlanError
from flan_jax.metrics import Metric, library, references

with epy.lazy_imports():
    from scipy import stats

_LARGEST = 1e9  # of numbers that are correlated: squares of larger ones could be infinite


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        return -1.0
    return min(max(value, -_LARGEST), _LARGEST) if math.isfinite(value) else -1.0


def _target_number(target: Any, example: int) -> float:
    text = references(target)[0]
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not abs(value) <= _LARGEST:
        raise FlanError(f"a correlation needs numbers, and the target of example {example} is {text!r}.")
    return value


def pearson_spearman(targets: Sequence[Any], predictions: Sequence[str]) -> dict[str, float]:
    """Correlations in percent; 0 where either side is constant.

    A prediction that is no number counts as -1, below every score.

    Raises:
      FlanError: a target is no number.
    """
    wanted = [_target_number(target, i) for i, target in enumerate(targets)]
    given = [_number(p) for p in predictions]
    if len(set(wanted)) < 2 or len(set(given)) < 2:
        return {"pearson": 0.0, "spearman": 0.0}
    return {
        "pearson": 100.0 * float(stats.pearsonr(wanted, given).statistic),
        "spearman": 100.0 * float(stats.spearmanr(wanted, given).statistic),
    }


def _undefined(targets: Sequence[Any], predictions: Sequence[str]) -> tuple[str, ...]:
    wanted = {_target_number(target, i) for i, target in enumerate(targets)}
    return ("pearson", "spearman") if len(wanted) < 2 or len({_number(p) for p in predictions}) < 2 else ()


METRIC = Metric(
    name="pearson_spearman",
    version=library("scipy"),
    headline="pearson",
    secondary=("spearman",),
    compute=pearson_spearman,
    undefined=_undefined,
)
