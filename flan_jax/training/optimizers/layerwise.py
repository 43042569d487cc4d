"""Finds out how an optimizer of another library treats stacked layers: like each layer alone, or differently.

Most optimizers treat every number separately. Some need a norm or a matrix, such as LAMB, LARS and Muon. They would
take all layers for one, or a stack of matrices for no matrix, and so take other steps than on separate layers. These
are shown one layer at a time.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax

from flan_jax.training.optimizers import matrices

AS_IS, BY_MATRIX, OTHERWISE = "as it is", "by matrix", "otherwise"

# A small model: a kernel and a norm with two layers, and a table.
_AXES = {"kernel": ("layers", "embed", "heads", "kv"), "scale": ("layers", "embed"), "table": ("vocab", "embed")}
_SHAPES = {"kernel": (2, 6, 2, 3), "scale": (2, 6), "table": (7, 6)}
_STEPS = 2
_CLOSE = 1e-3  # relative to an array's largest update


def treated(tx: optax.GradientTransformation) -> str:
    """How to use an optimizer so that its steps are those for each layer's matrices alone.

    Returns:
      `AS_IS`: as it is; or it cannot take a step at all, which is reported when a run begins. `BY_MATRIX`: inside
      `matrices.by_matrix`. `OTHERWISE`: neither works, for example because steps are random.
    """
    try:
        alone = _updates(tx, _apart)
    except Exception:  # other people's code
        return AS_IS
    for how, one in ((AS_IS, tx), (BY_MATRIX, matrices.by_matrix(tx, _AXES))):
        try:
            found = [_apart(update) for update in _updates(one, dict)]
        except Exception:
            continue
        pairs = zip(found, alone, strict=True)
        if all(np.abs(x[name] - y[name]).max() <= _CLOSE * np.abs(y[name]).max() for x, y in pairs for name in y):
            return how
    return OTHERWISE


@functools.cache
def _numbers() -> list[dict[str, np.ndarray]]:
    """Parameters, and a gradient for each step."""
    rng = np.random.default_rng(0)
    return [{name: rng.normal(size=shape) for name, shape in _SHAPES.items()} for _ in range(1 + _STEPS)]


def _updates(tx: optax.GradientTransformation, form: Callable[[Any], Any]) -> list[dict[str, np.ndarray]]:
    """The updates of parameters in a given form, at each step."""
    params, *gradients = ({name: jnp.asarray(x, jnp.float32) for name, x in form(one).items()} for one in _numbers())
    state, found = tx.init(params), []
    for gradient in gradients:
        updates, state = tx.update(gradient, state, params)
        params = optax.apply_updates(params, updates)
        found.append({name: np.asarray(x) for name, x in updates.items()})
    return found


def _apart(tree: dict[str, Any]) -> dict[str, Any]:
    """Each layer's matrix under its own name."""
    layers = range(_SHAPES["kernel"][0])
    found = {f"kernel {i}": np.asarray(tree["kernel"][i]).reshape(_SHAPES["kernel"][1], -1) for i in layers}
    return found | {f"scale {i}": np.asarray(tree["scale"][i]) for i in layers} | {"table": np.asarray(tree["table"])}
