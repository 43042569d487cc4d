"""QuAC's F1, with the normalization that the paper's code uses for it, which is TriviaQA's."""

from __future__ import annotations

from flan_jax.metrics import Metric
from flan_jax.metrics.squad import answers, best_f1
from flan_jax.metrics.trivia_qa import normalize_answer

METRIC = Metric(
    name="quac",
    version="flan_jax 1, TriviaQA's normalization",
    headline="f1",
    secondary=("em",),
    compute=lambda targets, predictions: answers(targets, predictions, normalize_answer),
    new_tokens=64,  # its answers have up to about 30 words, which are over 32 tokens
    example=lambda target, prediction: best_f1(target, prediction, normalize_answer),
)
