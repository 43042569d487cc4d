"""Corpus BLEU as the paper's evaluation has it: sacrebleu with the tokenizer "intl"."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from etils import epy

from flan_jax.metrics import TEXT_TOKENS, Metric, library, references

with epy.lazy_imports():
    import sacrebleu


def corpus_bleu(targets: Sequence[Any], predictions: Sequence[str], tokenizer: str) -> float:
    """BLEU of all texts together, 0 to 100; case counts, zeros are smoothed exponentially.

    Args:
      targets: each with one or several references.
      predictions: the texts.
      tokenizer: sacrebleu's name of one.
    """
    found = [references(target) for target in targets]
    columns = [[r[i] if i < len(r) else None for r in found] for i in range(max(map(len, found)))]
    return float(sacrebleu.corpus_bleu(list(predictions), columns, smooth_method="exp", tokenize=tokenizer).score)


METRIC = Metric(
    name="bleu",
    version=f"{library('sacrebleu')}, intl, smoothing exp, case counts",
    headline="bleu",
    compute=lambda targets, predictions: {"bleu": corpus_bleu(targets, predictions, "intl")},
    new_tokens=TEXT_TOKENS,
)
