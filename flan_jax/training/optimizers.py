"""Optimizers by name. The paper's is Adafactor with a constant learning rate (section 2.4)."""

from __future__ import annotations

import optax


def schedule(learning_rate: float, warmup_steps: int = 0) -> optax.Schedule:
    """A constant learning rate, reached linearly over `warmup_steps`."""
    if warmup_steps <= 0:
        return optax.constant_schedule(learning_rate)
    return optax.warmup_constant_schedule(learning_rate / warmup_steps, learning_rate, warmup_steps)


def adafactor(
    learning_rate: float = 3e-5, warmup_steps: int = 0, parameter_scale: bool = True
) -> optax.GradientTransformation:
    """Adafactor (Shazeer & Stern 2018) without momentum, updates clipped at root mean square 1.

    Args:
      learning_rate: the paper's is 3e-5.
      warmup_steps: steps of linear warm-up; the paper names none.
      parameter_scale: scale each update by the root mean square of its parameter, as T5X does by default.
    """
    return optax.adafactor(
        schedule(learning_rate, warmup_steps),
        multiply_by_parameter_scale=parameter_scale,
        clipping_threshold=1.0,
        momentum=None,
        eps=1e-30,
    )
