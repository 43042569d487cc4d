"""The gradient of a step: with any microbatches and order of rows, it must be that of its examples one at a time."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from flan_jax.training.state import TrainState, make_train_step
from flan_jax.verification import tolerances
from flan_jax.verification.findings import Tally
from flan_jax.verification.subject import Subject

SAYS = "a step has the gradient of its examples, in one batch, in microbatches, and in another order of rows"

_STEPS = 16  # how many steps are searched


def check(subject: Subject, tally: Tally) -> None:
    """Compares the gradients of the stream's first batch whose rows have different weights; see `SAYS`."""
    microbatches = subject.request.microbatches
    number = _step_of_unequal_rows(subject)
    batch = subject.stream.batch(number)
    expected, examples, tokens = _alone(subject, number)
    tally.control("a gradient that is lost: that of the model is 0", _largest(expected))
    another = {name: array[::-1].copy() for name, array in batch.items()}
    ways, steps = {"one batch": (1, batch)}, {}
    if microbatches > 1:
        ways[f"{microbatches} microbatches"] = (microbatches, batch)
        ways[f"{microbatches} microbatches in another order"] = (microbatches, another)
        if len(set(batch["weights"].sum(axis=1).tolist())) == 1:
            tally.left_out.append("the weight of microbatches left out: all rows weigh the same")
    else:
        tally.left_out.append("microbatches and the order of rows left out: --microbatches=1")
    for way, (parts, rows) in ways.items():
        if parts not in steps:
            steps[parts] = _step(subject, parts)
        _compare(tally, steps[parts](subject.params, rows), expected, way)
    numbers = sum(x.size for x in jax.tree.leaves(subject.params))
    tally.count(examples=examples, target_tokens=tokens, parameters=numbers, ways=len(ways))


def _step_of_unequal_rows(subject: Subject) -> int:
    """The first step whose rows have different weights. Only there a wrong equal weighting of rows shows."""
    steps = range(_STEPS if subject.stream.rows_per_batch > 1 else 1)
    counts = (
        (
            step,
            [
                round(sum(subject.weight(one) * len(one.answer) for one in subject.learned(step, row)), 3)
                for row in range(subject.stream.rows_per_batch)
            ],
        )
        for step in steps
    )
    return next((step for step, of_rows in counts if len(set(of_rows)) > 1), 0)


def _largest(tree: Any) -> float:
    return max(float(jnp.abs(x).max()) for x in jax.tree.leaves(tree))


def _alone(subject: Subject, step: int) -> tuple[Any, int, int]:
    """The gradient of the minimised weighted mean, one example at a time.

    Returns:
      (gradient, number of examples, number of target tokens).
    """
    total, examples, tokens, weights = None, 0, 0, 0.0
    for row in range(subject.stream.rows_per_batch):
        for one in subject.learned(step, row):
            found, weight = subject.plain.gradient(one.prompt, one.answer), subject.weight(one)
            total = _add(jax.tree.map(jnp.zeros_like, found) if total is None else total, found, weight)
            examples, tokens, weights = examples + 1, tokens + len(one.answer), weights + weight * len(one.answer)
    return _divide(total, weights), examples, tokens


@functools.partial(jax.jit, donate_argnums=0)
def _add(sums: Any, more: Any, by: jax.Array) -> Any:
    return jax.tree.map(lambda a, b: a + by * b, sums, more)


@functools.partial(jax.jit, donate_argnums=0)
def _divide(sums: Any, by: jax.Array) -> Any:
    return jax.tree.map(lambda x: x / by, sums)


def _step(subject: Subject, microbatches: int) -> Callable[[Any, dict[str, np.ndarray]], Any]:
    """A function of (params, batch) that returns the gradient which a training step gives to its optimizer."""
    keep = optax.GradientTransformation(lambda params: None, lambda updates, state, params=None: (updates, updates))
    step = make_train_step(subject.model, keep, len(subject.stream.parts), microbatches, objective=subject.objective)
    return jax.jit(lambda params, batch: step(TrainState(jnp.int32(0), params, None), batch)[0].opt_state)


@jax.jit
def _figures(found: list[jax.Array], expected: list[jax.Array]) -> list[tuple[jax.Array, jax.Array]]:
    """The largest difference and the largest expected number, for every layer [N] of each array."""

    def figures(ours: jax.Array, theirs: jax.Array) -> tuple[jax.Array, jax.Array]:
        rows = theirs.reshape(theirs.shape[0], -1)
        return jnp.abs(ours.reshape(rows.shape) - rows).max(axis=1), jnp.abs(rows).max(axis=1)

    return [figures(*pair) for pair in zip(found, expected, strict=True)]


def _compare(tally: Tally, found: Any, expected: Any, way: str) -> None:
    """Compares tensor by tensor, one layer at a time."""
    names = ["/".join(key.key for key in path) for path, _ in jax.tree.leaves_with_path(expected)]
    stacked = ["layers" in name.split("/") for name in names]

    def by_layer(tree: Any) -> list[jax.Array]:
        return [x if many else x[None] for x, many in zip(jax.tree.leaves(tree), stacked, strict=True)]

    figures = jax.device_get(_figures(by_layer(found), by_layer(expected)))
    largest = max(float(scale_N.max()) for _, scale_N in figures)
    for name, many, (difference_N, scale_N) in zip(names, stacked, figures, strict=True):
        for layer, (difference, scale) in enumerate(zip(difference_N, scale_N, strict=True)):
            place = {"parameter": name} | ({"layer": layer} if many else {}) | {"in": way}
            tally.see(difference, tolerances.gradient(float(scale), largest), place)
