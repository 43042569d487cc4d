"""Corpus BLEU as sacrebleu computes it unless told otherwise: with the tokenizer "13a"."""

from __future__ import annotations

from flan_jax.metrics import TEXT_TOKENS, Metric, library
from flan_jax.metrics.bleu import corpus_bleu

METRIC = Metric(
    name="bleu_13a",
    version=f"{library('sacrebleu')}, 13a, smoothing exp, case counts",
    headline="bleu_13a",
    compute=lambda targets, predictions: {"bleu_13a": corpus_bleu(targets, predictions, "13a")},
    new_tokens=TEXT_TOKENS,
)
