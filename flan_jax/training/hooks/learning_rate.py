"""The learning rate of each step, where the optimizer says what it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from flan_jax.training.hooks.context import Context
from flan_jax.training.hooks.not_finite import SKIPPED

_AT_ONCE = 1024  # steps: a schedule asked for one step at a time would wait for the devices every time


class LearningRate:
    """Adds the figure `learning_rate`: what the optimizer's schedule gave for the step.

    An optimizer says so by an attribute `rate`, a function from the updates taken so far to the learning rate. One
    without it has no such figure.
    """

    def __init__(self, optimizer: Any) -> None:
        """Args.

        optimizer: of the run.
        """
        self._rate = getattr(optimizer, "rate", None)
        self._from, self._rates = 0, np.zeros(0)

    def after_step(self, context: Context, step: int, values: Mapping[str, Any]) -> None:
        """Adds it."""
        if self._rate is None:
            return
        # A batch that was skipped has not moved the optimizer's count; this one's own is none that came before.
        before = int(values.get(SKIPPED, 0)) - int(values.get("skipped", 0))
        context.values["learning_rate"] = self._of(step - 1 - before)

    def _of(self, updates: int) -> float:
        if not self._from <= updates < self._from + len(self._rates):
            self._from = updates
            counts = jnp.arange(updates, updates + _AT_ONCE)
            self._rates = np.asarray(jax.vmap(self._rate)(counts), np.float64)
        return float(self._rates[updates - self._from])
