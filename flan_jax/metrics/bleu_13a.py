"""Corpus BLEU with sacrebleu's default tokenizer "13a"."""

from __future__ import annotations

from flan_jax.metrics import TEXT_TOKENS, Metric, library
from flan_jax.metrics.bleu import bleu_of_sums, corpus_bleu, sentence_counts

METRIC = Metric(
    name="bleu_13a",
    version=f"{library('sacrebleu')}, 13a, smoothing exp, case counts",
    headline="bleu_13a",
    compute=lambda targets, predictions: {"bleu_13a": corpus_bleu(targets, predictions, "13a")},
    statistics=lambda targets, predictions: sentence_counts(targets, predictions, "13a"),
    of_sums=bleu_of_sums,
    new_tokens=TEXT_TOKENS,
)
