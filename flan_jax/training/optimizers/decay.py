"""Decoupled weight decay (Loshchilov & Hutter 2019), and which parameters do not decay."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from flan_jax import partitioning
from flan_jax.models import nested
from flan_jax.training.optimizers import patterns

NO_DECAY = ("scale", "bias", "*embedding")  # norms, biases, and tables that are looked up


def mask(no_decay: Sequence[str], logical_axes: Any) -> Callable[[Any], Any]:
    """A function from parameters to a tree that says which of them decay.

    Args:
      no_decay: patterns (`patterns.matches`) of parameters that do not decay; `refuse_unfit` finds patterns that fit
        nothing.
      logical_axes: the logical axes of the trained parameters.
    """
    spared = patterns.chosen("NO_DECAY", no_decay, nested.paths(logical_axes), lenient=True)

    def of(params: Any) -> Any:
        return jax.tree_util.tree_map_with_path(lambda path, _: partitioning.names(path) not in spared, params)

    return of


def refuse_unfit(no_decay: Sequence[str], logical_axes: Any) -> None:
    """Refuses a pattern that fits no parameter of a model, trained or not. Default patterns may fit nothing.

    Raises:
      FlanError: for the first such pattern.
    """
    patterns.chosen("NO_DECAY", no_decay, nested.paths(logical_axes), lenient=tuple(no_decay) == NO_DECAY)


def decayed(
    rate: Callable[[jax.Array], jax.Array] | float, no_decay: Sequence[str], logical_axes: Any
) -> optax.GradientTransformation:
    """Subtracts `rate` times each parameter from the finished update.

    Args:
      rate: a number, or a function of the number of steps taken.
      no_decay: see `mask`.
      logical_axes: see `mask`.
    """
    amount = (lambda count: -jnp.asarray(rate(count))) if callable(rate) else -rate
    return optax.add_decayed_weights(amount, mask(no_decay, logical_axes))
