"""How much two ways to compute the same numbers may differ. Decided here and nowhere else.

The two ways add the same float32 terms in another order. Each sum is then off by some units in the last place of its
largest terms, so what is allowed is a number of such units (EPSILON) times the size of what is compared, and does not
depend on the model. Gemma 3 270M, SmolLM2-135M and T5 use at most a fifth of it (docs/results/verify.md), most of that
between us and transformers. What the tests break on purpose is at least ten times above it.
"""

from __future__ import annotations

import numpy as np

EPSILON = float(np.finfo(np.float32).eps)  # 1.2e-7
_LOGITS = 1024  # units of the largest logit: 1.2e-4 of it
_GRADIENT = 8192  # units of the largest gradient of the parameter: 1e-3 of it
# A parameter whose gradient is tiny beside the others' is the sum of terms that cancel: their size counts.
_LEAST = 1e-4


def logits(scale: float) -> float:
    """Of logits of which the largest is `scale` away from 0."""
    return _LOGITS * EPSILON * scale


def log_likelihood(scale: float, tokens: int = 1) -> float:
    """Of a sum of log-probabilities of so many tokens: each is a logit less a mean of logits."""
    return 2 * tokens * logits(scale)


def gradient(scale: float, largest: float) -> float:
    """Of the gradient of a parameter.

    Args:
      scale: the largest of the parameter's own.
      largest: the largest of all parameters'.
    """
    return _GRADIENT * EPSILON * max(scale, _LEAST * largest)
