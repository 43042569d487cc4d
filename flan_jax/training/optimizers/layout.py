"""How an optimizer's state lies on the devices. The optimizer itself declares it.

The declaration belongs to the class of a state, so it also works inside `optax.chain`, `masked` and other wrappers.
`declare` adds one for a user's own optimizer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from flan_jax import partitioning
from flan_jax.training.optimizers import matrices

Dims = tuple[int | None, ...]


class Statistic(NamedTuple):
    """An array of a state that belongs to one parameter.

    Attributes:
      name: the name of the state's field, the first name of the array's path within the state.
      shape: the array's shape.
      axes: the parameter's logical axes.
      of: the parameter's shape.
    """

    name: str
    shape: tuple[int, ...]
    axes: tuple[str, ...]
    of: tuple[int, ...]


def like_parameter(one: Statistic) -> Dims | None:
    """The default for every state: an array with the parameter's shape, or with its shape as a matrix, lies like it."""
    if one.shape == one.of:
        return tuple(range(len(one.of)))
    if one.shape == matrices.shape(one.axes, one.of):  # of merged dimensions, only the first is ever split
        return tuple(group[0] for group in matrices.dims(one.axes))
    return None


_DECLARED: dict[type, Callable[[Statistic], Dims | None]] = {}


def declare(state: type, dims: Callable[[Statistic], Dims | None]) -> None:
    """Declares how the arrays of a state lie.

    Args:
      state: the state's class, a named tuple.
      dims: for each array, the parameter's dimensions that its dimensions lie like (`partitioning.Along`); None for an
        array that lies whole, such as a placeholder.
    """
    _DECLARED[state] = dims


def along(state: Any, params: Any, logical_axes: Any) -> Any:
    """How each array of a state lies.

    Args:
      state: the state of an optimizer, as shapes.
      params: its parameters, as shapes.  logical_axes: the parameters' logical axes.

    Returns:
      A tree like the state, with `partitioning.Along`, or None for arrays that lie whole.
    """
    by_path: dict[tuple[str, ...], tuple[tuple[str, ...], tuple[int, ...]]] = {}
    leaves = jax.tree_util.tree_leaves_with_path(logical_axes, is_leaf=partitioning.is_axes)
    for (path, axes), x in zip(leaves, jax.tree.leaves(params), strict=True):
        by_path[partitioning.names(path)] = (axes, tuple(x.shape))

    def within(declared: Callable[[Statistic], Dims | None]) -> Callable[[Any, Any], partitioning.Along | None]:
        def of(path: Any, x: Any) -> partitioning.Along | None:
            parameter = matrices.parameter_of(path, by_path)
            if parameter is None:
                return None
            axes, shape = by_path[parameter]
            name = partitioning.names(path)[0]
            dims = declared(Statistic(name, tuple(x.shape), axes, shape))
            return None if dims is None else partitioning.Along(axes, shape, tuple(dims))

        return of

    def node(path: Any, value: Any) -> Any:
        if type(value) in _DECLARED:
            return jax.tree_util.tree_map_with_path(within(_DECLARED[type(value)]), value)
        return within(like_parameter)(path, value)

    return jax.tree_util.tree_map_with_path(node, state, is_leaf=lambda value: type(value) in _DECLARED)
