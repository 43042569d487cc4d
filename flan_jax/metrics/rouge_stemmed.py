"""ROUGE as in most later work: with the Porter stemmer; sentences are the lines of the text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flan_jax.metrics import TEXT_TOKENS, Metric, library
from flan_jax.metrics.rouge import f_measures, mean_f_measures


def rouge_stemmed(targets: Sequence[Any], predictions: Sequence[str]) -> dict[str, float]:
    """ROUGE-1, -2 and -Lsum F-measures with stemming, in percent."""
    pairs = zip(targets, predictions, strict=True)
    found = mean_f_measures([f_measures(target, prediction, stemmed=True) for target, prediction in pairs])
    return {f"{kind}_stemmed": value for kind, value in found.items()}


METRIC = Metric(
    name="rouge_stemmed",
    version=f"{library('rouge-score')}, Porter stemmer",
    headline="rouge1_stemmed",
    secondary=("rouge2_stemmed", "rougeLsum_stemmed"),
    compute=rouge_stemmed,
    example=lambda target, prediction: f_measures(target, prediction, ("rouge1",), stemmed=True)["rouge1"],
    new_tokens=TEXT_TOKENS,
)
