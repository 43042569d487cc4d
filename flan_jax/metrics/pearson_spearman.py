"""Pearson's and Spearman's correlation of answers that are numbers, as in GLUE for STS-B."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from flan_jax.errors import FlanError
from flan_jax.lazy import lazy_imports
from flan_jax.metrics import CORRELATION, Metric, library, ratio, references

with lazy_imports():
    from scipy import stats

_CONSTANT = 1e-12  # a sum of squares is no larger after rounding if all numbers are the same
_LARGEST = 1e9  # of numbers that are correlated; squares of larger ones could be infinite


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
    """The correlations in percent; 0 if either side is constant.

    A prediction that is no number counts as -1, which is below every score.

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


def _products(targets: Sequence[Any], predictions: Sequence[str]) -> np.ndarray:
    """For each example [E, 6]: 1, both numbers, their squares and their product."""
    x_E = np.array([_target_number(target, i) for i, target in enumerate(targets)])
    y_E = np.array([_number(p) for p in predictions])
    x_E, y_E = x_E - x_E.mean(), y_E - y_E.mean()  # changes no correlation, and keeps squares small
    return np.stack([np.ones_like(x_E), x_E, y_E, x_E**2, y_E**2, x_E * y_E], axis=-1)


def _pearson(sums: np.ndarray) -> np.ndarray:
    """Pearson's correlation, -1 to 1, from sums [..., 6] of `_products`; 0 if a side is constant."""
    n, x, y, xx, yy, xy = np.moveaxis(sums, -1, 0)
    of_x, of_y = n * xx - x * x, n * yy - y * y
    varies = (of_x > _CONSTANT * n * xx) & (of_y > _CONSTANT * n * yy)
    return np.where(varies, ratio(n * xy - x * y, np.sqrt(np.where(varies, of_x * of_y, 0.0))), 0.0)


def _undefined(targets: Sequence[Any], predictions: Sequence[str]) -> tuple[str, ...]:
    wanted = {_target_number(target, i) for i, target in enumerate(targets)}
    return ("pearson", "spearman") if len(wanted) < 2 or len({_number(p) for p in predictions}) < 2 else ()


METRIC = Metric(
    name="pearson_spearman",
    version=library("scipy"),
    headline="pearson",
    secondary=("spearman",),
    compute=pearson_spearman,
    statistics=_products,
    of_sums=_pearson,
    undefined=_undefined,
    ranges={"pearson": CORRELATION, "spearman": CORRELATION},
)
