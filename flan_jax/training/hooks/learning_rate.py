"""The learning rate of each step, if the optimizer reports it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from flan_jax.training.hooks.context import Context
from flan_jax.training.hooks.not_finite import SKIPPED

_AT_ONCE = 1024  # steps computed together; one call for each step would wait for the devices every time


class LearningRate:
    """Adds the figure `learning_rate`, the value of the optimizer's schedule at the step.

    The optimizer reports it by an attribute `rate`, a function from the number of updates taken so far to the learning
    rate. Without that attribute, there is no such figure.
    """

    def __init__(self, optimizer: Any) -> None:
        """Looks for the attribute.

        Args:
          optimizer: the run's optimizer.
        """
        self._rate = getattr(optimizer, "rate", None)
        self._from, self._rates = 0, np.zeros(0)

    def after_step(self, context: Context, step: int, values: Mapping[str, Any]) -> None:
        """Adds the figure."""
        if self._rate is None:
            return
        # Skipped batches have not advanced the optimizer's count. This step's own update does not count yet.
        before = int(values.get(SKIPPED, 0)) - int(values.get("skipped", 0))
        context.values["learning_rate"] = self._of(step - 1 - before)

    def _of(self, updates: int) -> float:
        if not self._from <= updates < self._from + len(self._rates):
            self._from = updates
            counts = jnp.arange(updates, updates + _AT_ONCE)
            self._rates = np.asarray(jax.vmap(self._rate)(counts), np.float64)
        return float(self._rates[updates - self._from])
