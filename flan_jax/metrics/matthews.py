"""Matthews' correlation of answers, as GLUE has it for CoLA."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from etils import epy

from flan_jax.metrics import Metric, library, references

with epy.lazy_imports():
    from sklearn import metrics as sklearn_metrics


def _answers(targets: Sequence[Any], predictions: Sequence[str]) -> tuple[list[str], list[str]]:
    return [references(t)[0].strip() for t in targets], [p.strip() for p in predictions]


def _undefined(targets: Sequence[Any], predictions: Sequence[str]) -> tuple[str, ...]:
    wanted, given = _answers(targets, predictions)
    return ("matthews",) if len(set(wanted)) < 2 or len(set(given)) < 2 else ()


def matthews(targets: Sequence[Any], predictions: Sequence[str]) -> dict[str, float]:
    """The correlation in percent; 0 where either side is constant."""
    if _undefined(targets, predictions):
        return {"matthews": 0.0}
    return {"matthews": 100.0 * float(sklearn_metrics.matthews_corrcoef(*_answers(targets, predictions)))}


METRIC = Metric("matthews", library("scikit-learn"), "matthews", matthews, undefined=_undefined)
