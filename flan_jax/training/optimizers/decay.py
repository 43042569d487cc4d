"""Weight decay, decoupled from the gradient (Loshchilov & Hutter 2019), and which parameters have none."""

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
      no_decay: patterns (`patterns.matches`) of those that do not; `refuse_unfit` says which fit nothing.
      logical_axes: of the parameters that are trained.
    """
    spared = patterns.chosen("NO_DECAY", no_decay, nested.paths(logical_axes), lenient=True)

    def of(params: Any) -> Any:
        return jax.tree_util.tree_map_with_path(lambda path, _: partitioning.names(path) not in spared, params)

    return of


def refuse_unfit(no_decay: Sequence[str], logical_axes: Any) -> None:
    """Refuses a pattern that fits no parameter of a model, trained or not; the default may.

    Raises:
      FlanError: likewise.
    """
    patterns.chosen("NO_DECAY", no_decay, nested.paths(logical_axes), lenient=tuple(no_decay) == NO_DECAY)


def decayed(
    rate: Callable[[jax.Array], jax.Array] | float, no_decay: Sequence[str], logical_axes: Any
) -> optax.GradientTransformation:
    """Takes `rate` times each parameter from the finished update; `rate` may depend on the steps taken."""
    amount = (lambda count: -jnp.asarray(rate(count))) if callable(rate) else -rate
    return optax.add_decayed_weights(amount, mask(no_decay, logical_axes))
