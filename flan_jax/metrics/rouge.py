"""ROUGE as in the paper's evaluation: no stemmer, sentences of ROUGE-Lsum split at " . "."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

from flan_jax.lazy import lazy_imports
from flan_jax.metrics import TEXT_TOKENS, Metric, library, percentage, references

with lazy_imports():
    from rouge_score import rouge_scorer

_KINDS = ("rouge1", "rouge2", "rougeLsum")


@functools.cache
def _scorer(kinds: tuple[str, ...], stemmed: bool) -> Any:
    return rouge_scorer.RougeScorer(kinds, use_stemmer=stemmed)


def f_measures(target: Any, prediction: str, kinds: Sequence[str] = _KINDS, stemmed: bool = False) -> dict[str, float]:
    """The F-measures of a text, 0 to 1; for each kind, that of the best reference.

    Args:
      target: the references, with each sentence on its own line.
      prediction: the text, with each sentence on its own line.
      kinds: kinds of ROUGE, as rouge-score names them.
      stemmed: whether words are compared by their stems.
    """
    scores = _scorer(tuple(kinds), stemmed).score_multi(references(target), prediction)
    return {kind: scores[kind].fmeasure for kind in kinds}


def mean_f_measures(found: Sequence[dict[str, float]]) -> dict[str, float]:
    """The means over texts, in percent."""
    return {kind: percentage([f[kind] for f in found]) for kind in found[0]}


def _lines(text: str) -> str:
    return text.replace(" . ", " .\n")


def _split(target: Any, prediction: str, kinds: Sequence[str] = _KINDS) -> dict[str, float]:
    return f_measures([_lines(r) for r in references(target)], _lines(prediction), kinds)


METRIC = Metric(
    name="rouge",
    version=f"{library('rouge-score')}, no stemmer, sentences split at ' . '",
    headline="rouge1",
    secondary=("rouge2", "rougeLsum"),
    compute=lambda targets, predictions: mean_f_measures(
        [_split(t, p) for t, p in zip(targets, predictions, strict=True)]
    ),
    example=lambda target, prediction: _split(target, prediction, ("rouge1",))["rouge1"],
    new_tokens=TEXT_TOKENS,
)
