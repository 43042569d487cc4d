"""The gradient of a step: whatever the microbatches and the order of rows, that of its examples one at a time."""

from __future__ import annotations

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


def check(subject: Subject, tally: Tally) -> None:
    """Compares the gradients of the stream's first batch; see `SAYS`."""
    microbatches = subject.request.microbatches
    batch = subject.stream.batch(0)
    expected, examples, tokens = _alone(subject)
    another = {name: array[::-1].copy() for name, array in batch.items()}
    ways = {"one batch": (1, batch)}
    if microbatches > 1:
        ways[f"{microbatches} microbatches"] = (microbatches, batch)
        ways[f"{microbatches} microbatches in another order"] = (microbatches, another)
    for way, (parts, rows) in ways.items():
        _compare(tally, _of_step(subject, parts, rows), expected, way)
    numbers = sum(x.size for x in jax.tree.leaves(subject.params))
    tally.count(examples=examples, target_tokens=tokens, parameters=numbers, ways=len(ways))


def _alone(subject: Subject) -> tuple[Any, int, int]:
    """The gradient of the mean loss over all target tokens, one example at a time, and how many those are."""
    total, examples, tokens = None, 0, 0
    add = jax.jit(lambda sums, more: jax.tree.map(jnp.add, sums, more), donate_argnums=0)
    for row in range(subject.stream.rows_per_batch):
        for one in subject.drawn(0, row):
            found = subject.plain.gradient(one.prompt, one.answer)
            total = found if total is None else add(total, found)
            examples, tokens = examples + 1, tokens + len(one.answer)
    scale = jax.jit(lambda sums: jax.tree.map(lambda x: x / tokens, sums), donate_argnums=0)
    return scale(total), examples, tokens


def _of_step(subject: Subject, microbatches: int, batch: dict[str, np.ndarray]) -> Any:
    """The gradient that a training step hands to its optimizer."""
    keep = optax.GradientTransformation(lambda params: None, lambda updates, state, params=None: (updates, updates))
    step = make_train_step(subject.model, keep, len(subject.stream.datasets), microbatches)

    @jax.jit
    def gradient(params: Any, batch: dict[str, jax.Array]) -> Any:
        return step(TrainState(jnp.int32(0), params, None), batch)[0].opt_state

    return gradient(subject.params, batch)


def _compare(tally: Tally, found: Any, expected: Any, way: str) -> None:
    """Compares tensor by tensor, a layer at a time."""

    @jax.jit
    def figures(found: jax.Array, expected: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The largest difference and the largest number of the expected, of every layer [N]."""
        rows = expected.reshape(expected.shape[0], -1)
        return jnp.abs(found.reshape(rows.shape) - rows).max(axis=1), jnp.abs(rows).max(axis=1)

    tensors = []
    for (path, theirs), ours in zip(jax.tree.leaves_with_path(expected), jax.tree.leaves(found), strict=True):
        names = [key.key for key in path]
        stacked = "layers" in names
        pair = (ours, theirs) if stacked else (ours[None], theirs[None])
        tensors.append(("/".join(names), stacked, *(np.asarray(x) for x in figures(*pair))))
    largest = max(float(scale_N.max()) for _, _, _, scale_N in tensors)
    for name, stacked, difference_N, scale_N in tensors:
        for layer, (difference, scale) in enumerate(zip(difference_N, scale_N, strict=True)):
            place = {"parameter": name} | ({"layer": layer} if stacked else {}) | {"in": way}
            tally.see(difference, tolerances.gradient(float(scale), largest), place)
