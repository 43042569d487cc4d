"""How much two ways to compute the same numbers may differ. Nothing else decides this.

The two ways add the same float32 terms in different orders. Each sum then differs by some units in the last place of
its largest terms. So what is allowed is a number of such units (EPSILON) times the size of what is compared, and does
not depend on the model. Gemma 3 270M, SmolLM2-135M and T5 use at most a fifth of it (docs/results/verify.md), most of
that between us and transformers. The faults that the tests make on purpose are at least ten times above it.
"""

from __future__ import annotations

import numpy as np

EPSILON = float(np.finfo(np.float32).eps)  # 1.2e-7
_LOGITS = 1024  # units of the largest logit: 1.2e-4 of it
_GRADIENT = 8192  # units of the largest gradient of the parameter: 1e-3 of it
# A parameter with a tiny gradient may be a sum of terms that cancel. The size of these terms counts.
_LEAST = 1e-4


def logits(scale: float) -> float:
    """What is allowed for logits whose largest absolute value is `scale`."""
    return _LOGITS * EPSILON * scale


def log_likelihood(scale: float, tokens: int = 1) -> float:
    """What is allowed for a sum of log-probabilities of so many tokens. Each is a logit minus a mean of logits."""
    return 2 * tokens * logits(scale)


def gradient(scale: float, largest: float) -> float:
    """What is allowed for the gradient of a parameter.

    Args:
      scale: the largest number of this gradient.
      largest: the largest number of all gradients.
    """
    return _GRADIENT * EPSILON * max(scale, _LEAST * largest)
