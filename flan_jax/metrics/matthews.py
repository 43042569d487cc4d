"""Matthews' correlation of answers, as in GLUE for CoLA."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from flan_jax.lazy import lazy_imports
from flan_jax.metrics import CORRELATION, Metric, library, ratio, references

with lazy_imports():
    from sklearn import metrics as sklearn_metrics


def _answers(targets: Sequence[Any], predictions: Sequence[str]) -> tuple[list[str], list[str]]:
    return [references(t)[0].strip() for t in targets], [p.strip() for p in predictions]


def _undefined(targets: Sequence[Any], predictions: Sequence[str]) -> tuple[str, ...]:
    wanted, given = _answers(targets, predictions)
    return ("matthews",) if len(set(wanted)) < 2 or len(set(given)) < 2 else ()


def matthews(targets: Sequence[Any], predictions: Sequence[str]) -> dict[str, float]:
    """The correlation in percent; 0 if either side is constant."""
    if _undefined(targets, predictions):
        return {"matthews": 0.0}
    return {"matthews": 100.0 * float(sklearn_metrics.matthews_corrcoef(*_answers(targets, predictions)))}


def _confusion(targets: Sequence[Any], predictions: Sequence[str]) -> np.ndarray:
    """The cell of the confusion matrix for each example: [E, answers * answers]."""
    wanted, given = _answers(targets, predictions)
    places = {answer: place for place, answer in enumerate(sorted({*wanted, *given}))}
    cells = np.zeros((len(wanted), len(places), len(places)))
    for example, (w, g) in enumerate(zip(wanted, given, strict=True)):
        cells[example, places[w], places[g]] = 1.0
    return cells.reshape(len(wanted), -1)


def _of_sums(sums: np.ndarray) -> np.ndarray:
    """The correlation from confusion matrices [..., answers * answers] (Gorodkin 2004, as in scikit-learn)."""
    answers = round(sums.shape[-1] ** 0.5)
    matrix = sums.reshape(*sums.shape[:-1], answers, answers)
    wanted, given, count = matrix.sum(-1), matrix.sum(-2), sums.sum(-1)
    together = np.trace(matrix, axis1=-2, axis2=-1) * count - (wanted * given).sum(-1)
    spreads = (count**2 - (wanted**2).sum(-1)) * (count**2 - (given**2).sum(-1))
    return ratio(together, np.sqrt(spreads))


METRIC = Metric(
    name="matthews",
    version=library("scikit-learn"),
    headline="matthews",
    compute=matthews,
    statistics=_confusion,
    of_sums=_of_sums,
    undefined=_undefined,
    ranges={"matthews": CORRELATION},
)
