"""Optimizers by name. The paper's is Adafactor with a constant learning rate (section 2.4).

T5X's Adafactor sees a model as it was before layers were stacked and heads told apart: one matrix a kernel and layer.
`by_matrix` shows optax's the same, so that both take the same step.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from flan_jax import macros, partitioning
from flan_jax.training.described import DESCRIPTION

# What an optimizer can depend on, beside arrays, is what their axes are called.
Optimizer = optax.GradientTransformation | Callable[[Any], optax.GradientTransformation]


def schedule(learning_rate: float, warmup_steps: int = 0) -> optax.Schedule:
    """A constant learning rate, reached linearly over `warmup_steps`."""
    if warmup_steps <= 0:
        return optax.constant_schedule(learning_rate)
    return optax.warmup_constant_schedule(learning_rate / warmup_steps, learning_rate, warmup_steps)


@macros.checked
def adafactor(learning_rate: float = 3e-5, warmup_steps: int = 0, parameter_scale: bool = True) -> Optimizer:
    """Adafactor (Shazeer & Stern 2018) without momentum, updates clipped at root mean square 1, step by step T5X's.

    Args:
      learning_rate: the paper's is 3e-5.
      warmup_steps: steps of linear warm-up; the paper names none.
      parameter_scale: scale each update by the root mean square of its parameter, as T5X does by default.

    Returns:
      A function from the parameters' logical axes to the transformation; see `for_parameters`.
    """
    rate = schedule(learning_rate, warmup_steps)
    steps = [
        optax.scale_by_factored_rms(epsilon=1e-30),
        optax.clip_by_block_rms(1.0),
        optax.scale_by_learning_rate(rate, flip_sign=False),
        *([scale_by_parameter_rms()] if parameter_scale else []),
        optax.scale(-1),
    ]
    made = functools.partial(by_matrix, optax.chain(*steps))
    of = {"learning_rate": learning_rate, "warmup_steps": warmup_steps, "parameter_scale": parameter_scale}
    setattr(made, DESCRIPTION, {"name": "adafactor", **of})
    made.rate = rate  # for `hooks.learning_rate`
    return made


def scale_by_parameter_rms(least: float = 1e-3) -> optax.GradientTransformation:
    """Scales each update by the root mean square of its parameter, or by `least` where that is less.

    optax's reads every parameter twice, so that one could differentiate through it: 24 ms a step for 137B on TPU v3.
    """

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        def scaled(update: jax.Array, param: jax.Array) -> jax.Array:
            return update * jnp.maximum(jnp.sqrt(jnp.mean(jnp.square(param))), least)

        return jax.tree.map(scaled, updates, params), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def for_parameters(optimizer: Optimizer, logical_axes: Any) -> optax.GradientTransformation:
    """The transformation of an optimizer for parameters of these logical axes.

    Args:
      optimizer: an optax transformation, which is given back, or a function from logical axes to one.
      logical_axes: a tree of tuples of names, as `Model.logical_axes` gives it.
    """
    return optimizer if isinstance(optimizer, optax.GradientTransformation) else optimizer(logical_axes)


def by_matrix(inner: optax.GradientTransformation, logical_axes: Any) -> optax.GradientTransformation:
    """Applies `inner` to the parameters as matrices, each layer of a stack on its own.

    Statistics and norms of `inner` are then a layer's, and [embed, heads, kv] is [embed, heads x kv] to it. Its state
    is that of the matrices, with the layers as the first dimension.

    Args:
      inner: a transformation that treats every array on its own, alike, such as Adafactor.
      logical_axes: of the parameters.
    """

    def matrices(tree: Any) -> Any:
        def matrix(axes: tuple[str, ...], x: jax.Array) -> jax.Array:
            groups = partitioning.matrix_dims(axes)
            return x.reshape([math.prod(x.shape[d] for d in group) for group in groups])

        return jax.tree.map(matrix, logical_axes, tree, is_leaf=partitioning.is_axes)

    def layers_by_path(params: Any) -> dict[tuple[str, ...], int]:
        """How many layers each parameter stacks, 0 for none."""
        named = jax.tree_util.tree_leaves_with_path(logical_axes, is_leaf=partitioning.is_axes)
        return {
            partitioning.names(path): x.shape[0] if axes[:1] == ("layers",) else 0
            for (path, axes), x in zip(named, jax.tree.leaves(params), strict=True)
        }

    def stacked(tree: Any, layers: dict[tuple[str, ...], int], number: int) -> Any:
        """For vmap: 0 at what stacks so many layers, None elsewhere."""

        def axis(path: Any, _: Any) -> int | None:
            return 0 if layers.get(partitioning.parameter_of(path, layers)) == number else None

        return jax.tree_util.tree_map_with_path(axis, tree)

    def init(params: Any) -> Any:
        params = matrices(params)
        layers = layers_by_path(params)
        state = jax.eval_shape(inner.init, params)  # for its structure
        mapped = inner.init
        for number in sorted({*layers.values()} - {0}):
            axes = (stacked(tree, layers, number) for tree in (params, state))
            mapped = jax.vmap(mapped, (next(axes),), next(axes), axis_size=number)
        return mapped(params)

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        shapes, updates, params = updates, matrices(updates), matrices(params)
        layers = layers_by_path(params)
        mapped = inner.update
        for number in sorted({*layers.values()} - {0}):
            like_params, like_state = (stacked(tree, layers, number) for tree in (params, state))
            mapped = jax.vmap(
                mapped, (like_params, like_state, like_params), (like_params, like_state), axis_size=number
            )
        updates, state = mapped(updates, state, params)
        return jax.tree.map(lambda x, like: x.reshape(like.shape), updates, shapes), state

    return optax.GradientTransformation(init, update)
