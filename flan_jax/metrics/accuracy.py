"""Accuracy: the share of answers that are a reference."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flan_jax.metrics import Metric, percentage, references


def is_right(target: Any, prediction: str) -> float:
    """1 if the prediction is a reference, ignoring white space at the ends; otherwise 0."""
    return float(prediction.strip() in {r.strip() for r in references(target)})


def accuracy(targets: Sequence[Any], predictions: Sequence[str]) -> dict[str, float]:
    """The percentage of predictions that are a reference."""
    return {"accuracy": percentage([is_right(t, p) for t, p in zip(targets, predictions, strict=True)])}


METRIC = Metric("accuracy", "flan_jax 1, exact text", "accuracy", accuracy, example=is_right)
