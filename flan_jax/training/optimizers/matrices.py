"""Shows optimizers the matrices that T5X has: one for each kernel and layer, with heads and their dimensions merged.

T5X's Adafactor sees a model before its layers are stacked and its heads separated. `by_matrix` shows optax's Adafactor
the same matrices, so that both take the same step.
"""

from __future__ import annotations

import math
from collections.abc import Container, Sequence
from typing import Any

import jax
import optax

from flan_jax import partitioning


def dims(axes: Sequence[str]) -> list[list[int]]:
    """Which dimensions of a parameter are merged into one.

    Beyond two dimensions (and `layers`), all dimensions except `embed` are merged: [embed, heads, kv] becomes [embed,
    heads x kv].

    Example:
      >>> dims(("embed", "heads", "kv"))
      [[0], [1, 2]]
    """
    first = len(axes) > 0 and axes[0] == "layers"
    groups = [[0]] if first else []
    merge = len(axes) - first > 2 and "embed" in axes
    for dim in range(first, len(axes)):
        if merge and dim > first and "embed" not in (axes[dim - 1], axes[dim]):
            groups[-1].append(dim)
        else:
            groups.append([dim])
    return groups


def shape(axes: Sequence[str], of: Sequence[int]) -> tuple[int, ...]:
    """The shape of a parameter as a matrix, or as a stack of matrices."""
    return tuple(math.prod(of[d] for d in group) for group in dims(axes))


def parameter_of(path: Any, known: Container[tuple[str, ...]]) -> tuple[str, ...] | None:
    """The parameter that a leaf of an optimizer's state belongs to: its path ends the leaf's path.

    None if there is none.
    """
    whole = partitioning.names(path)
    return next((whole[start:] for start in range(len(whole)) if whole[start:] in known), None)


def by_matrix(inner: optax.GradientTransformation, logical_axes: Any) -> optax.GradientTransformation:
    """Applies `inner` to the parameters as matrices, with each layer of a stack separately.

    Statistics and norms of `inner` are then those of a layer, and it sees [embed, heads, kv] as [embed, heads x kv].
    Its state is that of the matrices, with the layers as the first dimension.

    Args:
      inner: a transformation that treats all arrays separately and alike, such as Adafactor.
      logical_axes: the parameters' logical axes.
    """

    def matrices(tree: Any) -> Any:
        def matrix(axes: tuple[str, ...], x: jax.Array) -> jax.Array:
            return x.reshape(shape(axes, x.shape))

        return jax.tree.map(matrix, logical_axes, tree, is_leaf=partitioning.is_axes)

    def layers_by_path(params: Any) -> dict[tuple[str, ...], int]:
        """How many layers each parameter stacks, 0 for none."""
        named = jax.tree_util.tree_leaves_with_path(logical_axes, is_leaf=partitioning.is_axes)
        return {
            partitioning.names(path): x.shape[0] if axes[:1] == ("layers",) else 0
            for (path, axes), x in zip(named, jax.tree.leaves(params), strict=True)
        }

    def one_layer(params: Any) -> Any:
        """Shapes as `inner` sees them."""

        def of(axes: tuple[str, ...], x: jax.Array) -> jax.ShapeDtypeStruct:
            return jax.ShapeDtypeStruct(x.shape[axes[:1] == ("layers",) :], x.dtype)

        return jax.tree.map(of, logical_axes, params, is_leaf=partitioning.is_axes)

    def stacked(tree: Any, layers: dict[tuple[str, ...], int], number: int) -> Any:
        """For vmap: 0 at what stacks so many layers, None elsewhere."""

        def axis(path: Any, _: Any) -> int | None:
            return 0 if layers.get(parameter_of(path, layers)) == number else None

        return jax.tree_util.tree_map_with_path(axis, tree)

    def init(params: Any) -> Any:
        params = matrices(params)
        layers = layers_by_path(params)
        state = jax.eval_shape(inner.init, one_layer(params))  # only for its structure
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
