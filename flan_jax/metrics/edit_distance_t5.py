"""T5's edit distance, by which the paper's released code measures corrected texts: in words, ignoring case.

Words are what stands between two characters that are not letters, digits or `_`. Between two such characters next to
each other there is an empty word. So it counts a lost sign if two signs come together, such as a comma and a space. It
never counts a letter with the wrong case.
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Sequence
from typing import Any

from flan_jax.lazy import lazy_imports
from flan_jax.metrics import DISTANCE, TEXT_TOKENS, Metric, library, references

with lazy_imports():
    from nltk.metrics import distance


def _words(text: str) -> list[str]:
    return re.split(r"\W", text.lower())


def _distance(reference: str, prediction: str) -> int:
    wanted, given = _words(reference), _words(prediction)
    return 0 if wanted == given else distance.edit_distance(wanted, given)


def edit_distance_t5(targets: Sequence[Any], predictions: Sequence[str]) -> dict[str, float]:
    """The mean and the median distance in words to the nearest reference."""
    found = [
        min(_distance(reference, prediction) for reference in references(target))
        for target, prediction in zip(targets, predictions, strict=True)
    ]
    return {"mean_edit": statistics.fmean(found), "median_edit": statistics.median(found)}


METRIC = Metric(
    name="edit_distance_t5",
    version=f"{library('nltk')}, T5's words, lower case",
    headline="mean_edit",
    secondary=("median_edit",),
    compute=edit_distance_t5,
    new_tokens=TEXT_TOKENS,
    ranges={"mean_edit": DISTANCE, "median_edit": DISTANCE},
)
