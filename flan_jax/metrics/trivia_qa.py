"""TriviaQA's exact match and F1 (Joshi et al. 2017), over all aliases."""

from __future__ import annotations

import string

from flan_jax.metrics import Metric
from flan_jax.metrics.squad import answers, best_exact, without_articles

_PUNCTUATION = str.maketrans(dict.fromkeys(string.punctuation + "‘’´`_", " "))


def normalize_answer(text: str) -> str:
    """The text in lower case, with punctuation (also ‘ ’ ´ ` _) as spaces, without articles, with single spaces."""
    return without_articles(text.lower().translate(_PUNCTUATION))


METRIC = Metric(
    name="trivia_qa",
    version="flan_jax 1, TriviaQA's normalization",
    headline="em",
    secondary=("f1",),
    compute=lambda targets, predictions: answers(targets, predictions, normalize_answer),
    example=lambda target, prediction: best_exact(target, prediction, normalize_answer),
)
