"""SQuAD's exact match and F1 (Rajpurkar et al. 2016; with empty answers, Rajpurkar et al. 2018)."""

from __future__ import annotations

import collections
import re
import string
from collections.abc import Callable, Sequence
from typing import Any

from flan_jax.metrics import Metric, percentage, references

_PUNCTUATION = str.maketrans("", "", string.punctuation)


def without_articles(text: str) -> str:
    """Removes "a", "an" and "the", and makes white space single."""
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def normalize_answer(text: str) -> str:
    """The text in lower case, without ASCII punctuation and articles, with single spaces.

    Example:
      >>> normalize_answer("The  Alps, in Austria.")
      'alps in austria'
    """
    return without_articles(text.lower().translate(_PUNCTUATION))


def word_f1(wanted: Sequence[str], given: Sequence[str]) -> float:
    """The harmonic mean of precision and recall of words, 0 to 1. If a side is empty, 1 if both are, else 0."""
    if not wanted or not given:
        return float(not wanted and not given)
    common = sum((collections.Counter(wanted) & collections.Counter(given)).values())
    return 2 * common / (len(wanted) + len(given))


def best_exact(target: Any, prediction: str, normalize: Callable[[str], str]) -> float:
    """1 if the prediction is a reference after `normalize`, otherwise 0."""
    given = normalize(prediction)
    return float(any(normalize(r) == given for r in references(target)))


def best_f1(target: Any, prediction: str, normalize: Callable[[str], str]) -> float:
    """The highest `word_f1` with any reference after `normalize`."""
    given = normalize(prediction).split()
    return max(word_f1(normalize(r).split(), given) for r in references(target))


def answers(targets: Sequence[Any], predictions: Sequence[str], normalize: Callable[[str], str]) -> dict[str, float]:
    """Exact match and F1 of answers after `normalize`, in percent."""
    pairs = list(zip(targets, predictions, strict=True))
    return {
        "em": percentage([best_exact(t, p, normalize) for t, p in pairs]),
        "f1": percentage([best_f1(t, p, normalize) for t, p in pairs]),
    }


METRIC = Metric(
    name="squad",
    version="flan_jax 1, SQuAD's normalization",
    headline="f1",
    secondary=("em",),
    compute=lambda targets, predictions: answers(targets, predictions, normalize_answer),
    example=lambda target, prediction: best_f1(target, prediction, normalize_answer),
)
