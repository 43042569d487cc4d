"""The LM head and the cross entropy at targets, in chunks, with their gradient in the same pass.

The head does not run over all slots of a row, but over its T target slots, and only over those that carry weight: they
are moved to the front, and empty chunks are skipped. With a vocabulary of 262,144, the head would otherwise be the most
expensive part of a small model.

As soon as a chunk's logits are there, the gradient of the sum of weight x objective is known up to a factor. So it is
computed at once, and logits are computed only once and never kept.
"""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.custom_derivatives import CustomVJPPrimal, SymbolicZero

from flan_jax import partitioning
from flan_jax.models import Model

SLOTS = 256  # the least size of a chunk on each device with rows, whatever `DecoderConfig.head_chunk` says


class Targets(NamedTuple):
    """What a model makes of the targets of some rows; zero where they have no weight. Only `total` has a gradient.

    Attributes:
      total: what is minimised, the sum of weight x objective; float32 scalar.
      loss_BxT: negative log-likelihoods in nats, float32.
      correct_BxT: 1 if no other id is likelier, else 0, float32.
      minimised_BxT: the objective of each target; the same as its loss if the objective is the cross entropy.
    """

    total: jax.Array
    loss_BxT: jax.Array
    correct_BxT: jax.Array
    minimised_BxT: jax.Array


class _How(NamedTuple):
    """Settings that are fixed when a program is compiled. `loss.Objective` explains the last two."""

    model: Model
    chunk: int
    label_smoothing: float
    z_loss: float


def token_cross_entropy(
    model: Model,
    params: Any,
    hidden_BxTxD: jax.Array,
    targets_BxT: jax.Array,
    weights_BxT: jax.Array,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
) -> Targets:
    """Computes the head and the loss at the targets that carry weight.

    Args:
      model: the model, for its `logits`.
      params: its parameters.
      hidden_BxTxD: the hidden states that predict.
      targets_BxT: the target ids.
      weights_BxT: the weight of each target; it has no gradient.
      label_smoothing: see `loss.Objective`.
      z_loss: see `loss.Objective`.
    """
    num_rows, num_slots = targets_BxT.shape
    shards = partitioning.row_shards()
    shards = shards if num_rows % shards == 0 else 1
    rows = num_rows // shards

    def by_shard(x: jax.Array) -> jax.Array:  # joins the rows of a device
        x = x.reshape(shards, rows * num_slots, *x.shape[2:])
        return x if shards == 1 else partitioning.constrain(x, ("batch", *[None] * (x.ndim - 1)))

    chunk = min(max(model.config.head_chunk * rows, SLOTS), rows * num_slots)
    arrays = by_shard(hidden_BxTxD), by_shard(targets_BxT), by_shard(weights_BxT.astype(jnp.float32))
    total, *found = _weighted(_How(model, chunk, label_smoothing, z_loss), model.head(params), *arrays)
    return Targets(total, *(jax.lax.stop_gradient(x).reshape(num_rows, num_slots) for x in found))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _weighted(how: _How, head: Any, *arrays: jax.Array) -> tuple[jax.Array, ...]:
    """See `Targets`. The arrays are hidden states, targets and weights, [S, N, ...] for S shards of rows."""
    return _in_chunks(how, (False, False), head, *arrays)[0]


def _forward(how: _How, head: Any, *arrays: Any) -> tuple[tuple, tuple]:
    wanted = tuple(any(x.perturbed for x in jax.tree.leaves(tree, is_leaf=_is_primal)) for tree in (head, arrays[0]))
    return _in_chunks(how, wanted, *jax.tree.map(lambda x: x.value, (head, *arrays), is_leaf=_is_primal))


def _is_primal(x: Any) -> bool:
    return isinstance(x, CustomVJPPrimal)


def _backward(how: _How, gradients: tuple, cotangents: tuple) -> tuple:
    del how
    factor = 0.0 if isinstance(cotangents[0], SymbolicZero) else cotangents[0]  # 1 in a training step
    return *jax.tree.map(lambda x: x * jnp.asarray(factor, x.dtype), gradients), None, None


_weighted.defvjp(_forward, _backward, symbolic_zeros=True)


def _in_chunks(
    how: _How,
    wanted: tuple[bool, bool],
    head: Any,
    hidden_SxNxD: jax.Array,
    targets_SxN: jax.Array,
    weights_SxN: jax.Array,
) -> tuple[tuple[jax.Array, ...], tuple[Any, Any]]:
    """(total, loss, correct, minimised [S, N]), and the total's gradients by head and hidden states.

    Args:
      how: the model, the chunk and the objective.
      wanted: whether the gradients by head and by hidden states are needed; a gradient that is not needed is None.
      head: parameters of the head.
      hidden_SxNxD: hidden states.
      targets_SxN: the target ids.
      weights_SxN: their weights.
    """
    num_slots, chunk = targets_SxN.shape[1], how.chunk
    if chunk == num_slots:
        return _chunk(how, wanted, head, hidden_SxNxD, targets_SxN, weights_SxN)
    order_SxN = jnp.argsort(weights_SxN <= 0, axis=1, stable=True)
    chunks = -(-num_slots // chunk)
    places_SxN = jnp.pad(order_SxN, ((0, 0), (0, chunks * chunk - num_slots)))
    is_slot_N = jnp.arange(chunks * chunk) < num_slots

    def taken(number: Any, sums: tuple) -> tuple:
        (total, *of_slots), (d_head, d_hidden) = sums
        first = number * chunk
        places = jax.lax.dynamic_slice_in_dim(places_SxN, first, chunk, axis=1)
        hidden, targets, weights = (_at(x, places) for x in (hidden_SxNxD, targets_SxN, weights_SxN))
        weights = jnp.where(jax.lax.dynamic_slice_in_dim(is_slot_N, first, chunk), weights, 0.0)
        (more, *found), (more_head, more_hidden) = _chunk(how, wanted, head, hidden, targets, weights)

        def put(whole: jax.Array, x: jax.Array) -> jax.Array:
            return jax.lax.dynamic_update_slice_in_dim(whole, x, first, axis=1)

        of_slots = [put(whole, x) for whole, x in zip(of_slots, found, strict=True)]
        d_hidden = None if d_hidden is None else put(d_hidden, more_hidden)
        return (total + more, *of_slots), (jax.tree.map(jnp.add, d_head, more_head), d_hidden)

    of_slots = (jnp.zeros(places_SxN.shape),) * 3
    d_hidden = jnp.zeros((*places_SxN.shape, hidden_SxNxD.shape[-1]), hidden_SxNxD.dtype) if wanted[1] else None
    sums = (jnp.float32(0), *of_slots), (jax.tree.map(jnp.zeros_like, head) if wanted[0] else None, d_hidden)
    most_live = (weights_SxN > 0).sum(axis=1).max()
    if how.model.config.unroll:
        for number in range(chunks):
            sums = taken(number, sums)
    elif partitioning.row_shards() == 1:
        sums = jax.lax.fori_loop(0, -(-most_live // chunk), taken, sums)
    else:  # a fixed number of steps, so that tools which count a compiled program's work can count them

        def step(number: Any, sums: tuple) -> tuple:
            return jax.lax.cond(number * chunk < most_live, functools.partial(taken, number), lambda x: x, sums)

        sums = jax.lax.fori_loop(0, chunks, step, sums)
    (total, *of_slots), (d_head, d_hidden) = sums
    back_SxN = jnp.argsort(order_SxN, axis=1)  # the new place of each slot
    return (
        (total, *(_at(x, back_SxN) for x in of_slots)),
        (d_head, None if d_hidden is None else _at(d_hidden, back_SxN)),
    )


def _at(x_SxNx: jax.Array, places_SxM: jax.Array) -> jax.Array:
    """The values at these places of each shard's slots."""
    places = places_SxM if x_SxNx.ndim == 2 else places_SxM[..., None]
    return jnp.take_along_axis(x_SxNx, places, axis=1, mode="clip")


def _chunk(
    how: _How, wanted: tuple[bool, bool], head: Any, hidden: jax.Array, targets: jax.Array, weights: jax.Array
) -> tuple[tuple[jax.Array, ...], tuple[Any, Any]]:
    """The same as `_in_chunks`, for slots whose logits are computed at once."""

    def logits_of(*operands: Any) -> jax.Array:
        both = iter(operands)
        return how.model.logits(next(both) if wanted[0] else head, next(both) if wanted[1] else hidden)

    operands = [x for x, is_wanted in zip((head, hidden), wanted, strict=True) if is_wanted]
    logits, pulled = jax.vjp(logits_of, *operands) if operands else (logits_of(), None)
    logits_SxNxV = logits.astype(jnp.float32)
    # A sum, not a look-up, so that each shard of the vocabulary adds its own part.
    is_target = jax.lax.broadcasted_iota(jnp.int32, logits_SxNxV.shape, 2) == targets[..., None]
    picked = jnp.sum(jnp.where(is_target, logits_SxNxV, 0.0), axis=-1)
    log_z = jax.nn.logsumexp(logits_SxNxV, axis=-1)
    seen = weights > 0
    loss = jnp.where(seen, log_z - picked, 0.0)
    correct = ((picked >= jnp.max(logits_SxNxV, axis=-1)) & seen).astype(jnp.float32)
    minimised = loss
    if how.label_smoothing or how.z_loss:
        minimised = _smoothed(logits_SxNxV, picked, log_z, how.label_smoothing) + how.z_loss * jnp.square(log_z)
        minimised = jnp.where(seen, minimised, 0.0)
    found = jnp.sum(minimised * weights), loss, correct, minimised
    if pulled is None:
        return found, (None, None)
    smoothing, others = how.label_smoothing, logits_SxNxV.shape[-1] - 1
    wished = jnp.where(is_target, 1.0 - smoothing, smoothing / others)
    likelihoods = jnp.exp(logits_SxNxV - log_z[..., None])
    if how.z_loss:
        likelihoods *= 1 + 2 * how.z_loss * log_z[..., None]
    d_logits = jnp.where(seen, weights, 0.0)[..., None] * (likelihoods - wished)
    gradients = iter(pulled(d_logits.astype(logits.dtype)))
    return found, tuple(next(gradients) if is_wanted else None for is_wanted in wanted)


def _smoothed(logits: jax.Array, picked: jax.Array, log_z: jax.Array, smoothing: float) -> jax.Array:
    """Cross entropy [...] with smoothed targets, minus their entropy.

    The target has probability 1 - smoothing; the other ids share the rest.
    """
    if not smoothing:
        return log_z - picked
    others = logits.shape[-1] - 1
    of_others = math.log(smoothing) - math.log(others)
    entropy = -((1 - smoothing) * math.log1p(-smoothing) + smoothing * of_others)
    # Log-probabilities, because their sum is more exact than that of logits.
    of_all = jnp.sum(logits - log_z[..., None], axis=-1)
    of_target = picked - log_z
    return -(1 - smoothing) * of_target - smoothing / others * (of_all - of_target) - entropy
