"""F1 of the answer "yes", as in GLUE for paraphrases and in SuperGLUE for the candidates of MultiRC."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from flan_jax.lazy import lazy_imports
from flan_jax.metrics import Metric, library, ratio, references

with lazy_imports():
    from sklearn import metrics as sklearn_metrics

_YES = "yes"


def _said_yes(targets: Sequence[Any], predictions: Sequence[str]) -> tuple[list[bool], list[bool]]:
    wanted = [_YES in {r.strip() for r in references(t)} for t in targets]
    return wanted, [p.strip() == _YES for p in predictions]


def f1_of_yes(targets: Sequence[Any], predictions: Sequence[str]) -> float:
    """F1 of "yes" against any other answer, in percent; 0 if "yes" is neither right nor given anywhere."""
    return 100.0 * float(sklearn_metrics.f1_score(*_said_yes(targets, predictions), zero_division=0))


def has_no_yes(targets: Sequence[Any], predictions: Sequence[str]) -> bool:
    """Whether "yes" is neither right nor given anywhere, so that F1 is undefined."""
    wanted, given = _said_yes(targets, predictions)
    return not any(wanted) and not any(given)


def yes_counts(targets: Sequence[Any], predictions: Sequence[str]) -> np.ndarray:
    """For each example [E, 2]: whether "yes" is right and given, and how often "yes" is among the two answers."""
    wanted, given = (np.array(side, np.float64) for side in _said_yes(targets, predictions))
    return np.stack([wanted * given, wanted + given], axis=-1)


def f1_of_counts(sums: np.ndarray) -> np.ndarray:
    """F1, 0 to 1, from sums [..., 2] of `yes_counts`."""
    return ratio(2 * sums[..., 0], sums[..., 1])


METRIC = Metric(
    name="binary_f1",
    version=f'{library("scikit-learn")}, F1 of "yes"',
    headline="f1",
    compute=lambda targets, predictions: {"f1": f1_of_yes(targets, predictions)},
    statistics=yes_counts,
    of_sums=f1_of_counts,
    undefined=lambda targets, predictions: ("f1",) if has_no_yes(targets, predictions) else (),
)
