"""Corpus BLEU as in the paper's evaluation: sacrebleu with the tokenizer "intl"."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from flan_jax.lazy import lazy_imports
from flan_jax.metrics import TEXT_TOKENS, Metric, library, ratio, references

with lazy_imports():
    import sacrebleu


def corpus_bleu(targets: Sequence[Any], predictions: Sequence[str], tokenizer: str) -> float:
    """BLEU of all texts together, 0 to 100. Case counts; zeros are smoothed exponentially.

    Args:
      targets: each with one or several references.
      predictions: the texts.
      tokenizer: sacrebleu's name of a tokenizer.
    """
    found = [references(target) for target in targets]
    columns: list[Any] = [[r[i] if i < len(r) else None for r in found] for i in range(max(map(len, found)))]
    score = sacrebleu.corpus_bleu(list(predictions), columns, smooth_method="exp", tokenize=tokenizer).score
    return min(float(score), 100.0)  # for equal texts it is 100.00000000000004


@functools.cache
def _of_sentences(tokenizer: str) -> sacrebleu.metrics.BLEU:
    # The effective order only affects a sentence's score, which nobody reads here.
    return sacrebleu.metrics.BLEU(smooth_method="exp", tokenize=tokenizer, effective_order=True)


def sentence_counts(targets: Sequence[Any], predictions: Sequence[str], tokenizer: str) -> np.ndarray:
    """sacrebleu's counts for each text, [E, 10].

    These are the n-grams found and in all for n from 1 to 4, the length, and the reference length.
    """
    bleu = _of_sentences(tokenizer)
    found = (bleu.sentence_score(p, references(t)) for t, p in zip(targets, predictions, strict=True))
    return np.array([[*one.counts, *one.totals, one.sys_len, one.ref_len] for one in found], np.float64).reshape(-1, 10)


def bleu_of_sums(sums: np.ndarray) -> np.ndarray:
    """BLEU, 0 to 1, from sums [..., 10] of `sentence_counts`, as sacrebleu computes it, for many corpora at once."""
    found, whole, length, wanted = sums[..., :4], sums[..., 4:8], sums[..., 8], sums[..., 9]
    # Each order without a match counts half as much as the one before.
    smoothing = 2.0 ** np.cumsum((found == 0) & (whole > 0), axis=-1)
    precisions = np.where(found > 0, ratio(found, whole), ratio(np.ones_like(whole), smoothing * whole))
    scored = (whole > 0).all(-1) & (found > 0).any(-1)
    logs = np.log(precisions, out=np.zeros_like(precisions), where=precisions > 0)
    brevity = np.exp(np.minimum(0.0, 1.0 - ratio(wanted, length)))
    return np.where(scored, np.minimum(brevity * np.exp(logs.mean(-1)), 1.0), 0.0)


METRIC = Metric(
    name="bleu",
    version=f"{library('sacrebleu')}, intl, smoothing exp, case counts",
    headline="bleu",
    compute=lambda targets, predictions: {"bleu": corpus_bleu(targets, predictions, "intl")},
    statistics=lambda targets, predictions: sentence_counts(targets, predictions, "intl"),
    of_sums=bleu_of_sums,
    new_tokens=TEXT_TOKENS,
)
