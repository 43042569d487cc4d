"""Levenshtein's distance in words, for texts that are to be corrected."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from flan_jax.lazy import lazy_imports
from flan_jax.metrics import DISTANCE, TEXT_TOKENS, Metric, library, percentage, references

with lazy_imports():
    from nltk.metrics import distance


def _distance(target: Any, prediction: str) -> int:
    return min(distance.edit_distance(r.split(), prediction.split()) for r in references(target))


def _is_exact(target: Any, prediction: str) -> float:
    return float(prediction.split() in [r.split() for r in references(target)])


def edit_distance(targets: Sequence[Any], predictions: Sequence[str]) -> dict[str, float]:
    """The percentage of exact texts (ignoring white space), and the mean distance in words to the nearest reference."""
    distances = [_distance(t, p) for t, p in zip(targets, predictions, strict=True)]
    return {"exact": percentage([d == 0 for d in distances]), "edit_distance": statistics.fmean(distances)}


METRIC = Metric(
    name="edit_distance",
    version="flan_jax 1, the same words",
    headline="exact",
    secondary=("edit_distance",),
    secondary_versions={"edit_distance": f"{library('nltk')}, words"},
    compute=edit_distance,
    example=_is_exact,
    new_tokens=TEXT_TOKENS,
    ranges={"edit_distance": DISTANCE},
)
