"""DROP's exact match and F1, which handle numbers and answers of several spans (Dua et al. 2019)."""

from __future__ import annotations

import re
import string
from collections.abc import Sequence
from typing import Any

import numpy as np

from flan_jax.lazy import lazy_imports
from flan_jax.metrics import Metric, percentage, references
from flan_jax.metrics.squad import without_articles

with lazy_imports():
    from scipy import optimize

_PUNCTUATION = str.maketrans("", "", string.punctuation)


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _word(word: str) -> str:
    """A word in lower case: a number as Python writes it, any other word without punctuation and articles."""
    word = word.lower()
    if not _is_number(word):
        word = word.translate(_PUNCTUATION)
    return without_articles(str(float(word)) if _is_number(word) else word)


def normalize_answer(text: str) -> str:
    """The words of a text, split at spaces and hyphens and normalized.

    Example:
      >>> normalize_answer("1,000 dollars")
      '1000.0 dollars'
    """
    return " ".join(word for part in re.split(" |-", text) if (word := _word(part).strip()))


def _f1(wanted: frozenset[str], given: frozenset[str]) -> float:
    """F1 of two sets of words; 0 if the wanted set has numbers and none of them is given."""
    numbers = {word for word in wanted if _is_number(word)}
    if numbers and not numbers & given:
        return 0.0
    if not wanted or not given:
        return float(not wanted and not given)
    return 2 * len(wanted & given) / (len(wanted) + len(given))


def spans_scores(wanted: Sequence[str], given: Sequence[str]) -> tuple[float, float]:
    """Exact match and F1 of two answers of one or several spans, 0 to 1.

    For F1, each span is paired with at most one span of the other side, so that the sum is largest. The mean is over
    the spans of the longer side. It is rounded to two decimals, as in DROP's own evaluation.
    """
    wanted_texts, given_texts = [normalize_answer(s) for s in wanted], [normalize_answer(s) for s in given]
    exact = set(wanted_texts) == set(given_texts) and len(wanted_texts) == len(given_texts)
    bags = [[frozenset(text.split()) for text in texts] for texts in (wanted_texts, given_texts)]
    f1_WxG = np.array([[_f1(w, g) for g in bags[1]] for w in bags[0]])
    rows, columns = optimize.linear_sum_assignment(f1_WxG, maximize=True)
    return float(exact), float(np.round(f1_WxG[rows, columns].sum() / max(f1_WxG.shape), 2))


def _spans(answer: Any) -> list[str]:
    return [answer] if isinstance(answer, str) else list(answer)


def example_scores(target: Any, prediction: str) -> tuple[float, float]:
    """The highest exact match and the highest F1 with any reference, 0 to 1.

    Args:
      target: references; a reference with several spans is a list of them.
      prediction: the text, which counts as one span.
    """
    found = [spans_scores(_spans(reference), [prediction]) for reference in references(target)]
    return max(exact for exact, _ in found), max(f1 for _, f1 in found)


def drop(targets: Sequence[Any], predictions: Sequence[str]) -> dict[str, float]:
    """Exact match and F1, in percent."""
    found = [example_scores(t, p) for t, p in zip(targets, predictions, strict=True)]
    return {"drop_f1": percentage([f1 for _, f1 in found]), "drop_em": percentage([exact for exact, _ in found])}


METRIC = Metric(
    name="drop",
    version="flan_jax 1, DROP's numbers and spans",
    headline="drop_f1",
    secondary=("drop_em",),
    compute=drop,
    example=lambda target, prediction: example_scores(target, prediction)[1],
)
