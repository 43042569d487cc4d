"""Adafactor (Shazeer & Stern 2018), with the same steps as T5X's. The paper tunes with it (section 2.4)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from flan_jax import macro_checks
from flan_jax.training.optimizers import layout, matrices, schedules
from flan_jax.training.optimizers.decay import NO_DECAY, decayed
from flan_jax.training.optimizers.kinds import Known, Optimizer, differing

LEARNING_RATE = 3e-5  # the paper's
_DEFAULTS: dict[str, Any] = {
    "factored": True,
    "decay_rate": 0.8,
    "step_offset": 0,
    "clipping_threshold": 1.0,
    "momentum": None,
    "momentum_dtype": "float32",
    "weight_decay": 0.0,
    "weight_decay_rate": None,
    "no_decay": NO_DECAY,
    "min_dim_size_to_factor": 128,
    "least_scale": 1e-3,
}


@macro_checks.checked
def adafactor(
    learning_rate: float = LEARNING_RATE,
    warmup_steps: int = 0,
    parameter_scale: bool = True,
    schedule: str = schedules.CONSTANT,
    steps: int | None = None,
    factored: bool = _DEFAULTS["factored"],
    decay_rate: float = _DEFAULTS["decay_rate"],
    step_offset: int = _DEFAULTS["step_offset"],
    clipping_threshold: float | None = _DEFAULTS["clipping_threshold"],
    momentum: float | None = _DEFAULTS["momentum"],
    momentum_dtype: str = _DEFAULTS["momentum_dtype"],
    weight_decay: float = _DEFAULTS["weight_decay"],
    weight_decay_rate: float | None = _DEFAULTS["weight_decay_rate"],
    no_decay: Sequence[str] = NO_DECAY,
    min_dim_size_to_factor: int = _DEFAULTS["min_dim_size_to_factor"],
    least_scale: float = _DEFAULTS["least_scale"],
) -> Optimizer:
    """Adafactor. Names in brackets are T5X's, if they differ.

    Args:
      learning_rate: the highest learning rate; the paper's is 3e-5.
      warmup_steps: steps of linear warm-up; the paper mentions none.
      parameter_scale: whether to scale each update by the root mean square of its parameter
        (multiply_by_parameter_scale).
      schedule: the schedule of the learning rate, see `schedules.schedule`.
      steps: steps of the whole run, for the schedule.
      factored: whether to keep mean squares for the rows and columns of a matrix, not for every element.
      decay_rate: mean squares are averaged with 1 - step^-decay_rate.
      step_offset: how many steps that average does not count.
      clipping_threshold: largest root mean square of an update before it is scaled; None sets no limit.
      momentum: momentum of the updates (beta1); None for none.
      momentum_dtype: dtype of the momentum (dtype_momentum).
      weight_decay: decoupled weight decay times the learning rate, as in `adamw`.
      weight_decay_rate: T5X's weight decay, not times the learning rate. In T5X it applies to all parameters.
      no_decay: patterns of parameters to which no decay applies.
      min_dim_size_to_factor: matrices with a smaller dimension are not factored.
      least_scale: the least scale of a parameter (epsilon2).

    Returns:
      A function from the parameters' logical axes to the transformation; see `kinds.for_parameters`.
    """
    rate = schedules.schedule(learning_rate, warmup_steps, schedule, steps)
    core = [
        optax.scale_by_factored_rms(
            factored=factored,
            decay_rate=decay_rate,
            step_offset=step_offset,
            min_dim_size_to_factor=min_dim_size_to_factor,
            epsilon=1e-30,
        ),
        *([optax.clip_by_block_rms(clipping_threshold)] if clipping_threshold is not None else []),
        optax.scale_by_learning_rate(rate, flip_sign=False),
        *([scale_by_parameter_rms(least_scale)] if parameter_scale else []),
        *([optax.ema(momentum, debias=False, accumulator_dtype=momentum_dtype)] if momentum is not None else []),
        optax.scale(-1),
    ]

    def make(logical_axes: Any) -> optax.GradientTransformation:
        tx = matrices.by_matrix(optax.chain(*core), logical_axes)
        further = []
        if weight_decay:
            further.append(decayed(lambda count: weight_decay * rate(count), no_decay, logical_axes))
        if weight_decay_rate:
            further.append(decayed(weight_decay_rate, no_decay, logical_axes))
        return optax.chain(tx, *further) if further else tx

    given = {name: value for name, value in locals().items() if name in _DEFAULTS}
    of = {"name": "adafactor", **schedules.described(learning_rate, warmup_steps, schedule, steps)}
    return Known(make, of | {"parameter_scale": parameter_scale} | differing(given, _DEFAULTS), rate)


def scale_by_parameter_rms(least: float = 1e-3) -> optax.GradientTransformation:
    """Scales each update by the root mean square of its parameter, or by `least` if that is larger.

    optax's version reads every parameter twice so that it can be differentiated. For 137B on TPU v3 that costs 24 ms a
    step.
    """

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        def scaled(update: jax.Array, param: jax.Array) -> jax.Array:
            return update * jnp.maximum(jnp.sqrt(jnp.mean(jnp.square(param))), least)

        return jax.tree.map(scaled, updates, params), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def _of_factored(one: layout.Statistic) -> layout.Dims | None:
    """How the statistics of `optax.scale_by_factored_rms` lie.

    Row and column statistics lack one of the two largest dimensions: of a layer's matrix, or of the parameter itself if
    it was not made a matrix. Placeholders have one element.
    """
    if (dims := layout.like_parameter(one)) is not None or one.name not in ("v_row", "v_col"):
        return dims
    first = int(one.axes[:1] == ("layers",))
    whole = tuple(range(len(one.of)))
    views = [
        (first, tuple(group[0] for group in matrices.dims(one.axes)), matrices.shape(one.axes, one.of)),
        (0, whole, one.of),
    ]
    for skipped, dims, shape in views:
        if len(shape) - skipped < 2:
            continue
        second, largest = (skipped + int(d) for d in np.argsort(shape[skipped:])[-2:])  # optax chooses so
        dropped = largest if one.name == "v_row" else second
        if one.shape == tuple(np.delete(shape, dropped)):
            return tuple(dim for i, dim in enumerate(dims) if i != dropped)
    return None


layout.declare(optax.FactoredState, _of_factored)
