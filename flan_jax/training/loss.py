"""Cross entropy at the target positions only (paper, section 2.4: loss on target tokens).

The LM head runs over the T target slots of a row instead of all its slots, chunk by chunk, and a chunk that carries no
weight in any row is skipped: with a vocabulary of 262,144 the head is otherwise the dearest part of a small model.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from flan_jax.models import EncoderDecoder, Model

SLOTS = 256  # a chunk of all rows together has at least so many, whatever `DecoderConfig.head_chunk` says

Metrics = dict[str, jax.Array]


def token_cross_entropy(
    model: Model, params: Any, hidden_BxTxD: jax.Array, targets_BxT: jax.Array, weights_BxT: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Negative log-likelihood and correctness of each target.

    Returns:
      loss_BxT and correct_BxT, float32, in nats and 0/1; zero where the weight is zero.
    """
    num_rows, num_slots = targets_BxT.shape
    chunk = min(max(model.config.head_chunk, SLOTS // num_rows), num_slots)
    padding = -num_slots % chunk
    if padding:
        pad = ((0, 0), (0, padding))
        hidden_BxTxD = jnp.pad(hidden_BxTxD, (*pad, (0, 0)))
        targets_BxT, weights_BxT = jnp.pad(targets_BxT, pad), jnp.pad(weights_BxT, pad)

    def chunks(x: jax.Array) -> jax.Array:
        return jnp.moveaxis(x.reshape(num_rows, -1, chunk, *x.shape[2:]), 1, 0)

    @jax.checkpoint
    def head(params: Any, hidden: jax.Array, targets: jax.Array, weights: jax.Array) -> tuple:
        logits = model.logits(params, hidden).astype(jnp.float32)
        # A sum instead of a look-up: each shard of the vocabulary then adds its own.
        is_target = jax.lax.broadcasted_iota(jnp.int32, logits.shape, logits.ndim - 1) == targets[..., None]
        picked = jnp.sum(jnp.where(is_target, logits, 0.0), axis=-1)
        loss = jax.nn.logsumexp(logits, axis=-1) - picked
        correct = picked >= jnp.max(logits, axis=-1)
        seen = weights > 0
        return jnp.where(seen, loss, 0.0), (correct & seen).astype(jnp.float32)

    if chunk == num_slots:
        return head(params, hidden_BxTxD, targets_BxT, weights_BxT.astype(jnp.float32))

    def skip(params: Any, hidden: jax.Array, targets: jax.Array, weights: jax.Array) -> tuple:
        return jnp.zeros_like(weights), jnp.zeros_like(weights)

    def body(_: None, xs: tuple) -> tuple:
        hidden, targets, weights = xs
        return None, jax.lax.cond(jnp.any(weights > 0), head, skip, params, hidden, targets, weights)

    xs = (chunks(hidden_BxTxD), chunks(targets_BxT), chunks(weights_BxT.astype(jnp.float32)))
    _, outputs = jax.lax.scan(body, None, xs, unroll=len(xs[0]) if model.config.unroll else 1)
    loss, correct = (jnp.moveaxis(x, 0, 1).reshape(num_rows, -1)[:, :num_slots] for x in outputs)
    return loss, correct


def target_loss(
    model: Model, params: Any, batch: Mapping[str, jax.Array], num_datasets: int
) -> tuple[jax.Array, Metrics]:
    """The summed loss of a batch of packed rows, and sums for the metrics.

    Args:
      model: the decoder, or an encoder-decoder where the batch has an encoder's side.
      params: its parameters.
      batch: the arrays of one of `flan_jax.data.layouts`.
      num_datasets: how many datasets `dataset_ids` numbers.

    Returns:
      The sum of weight x negative log-likelihood (nats, float32 scalar), and sums by name: `weight`, `correct`,
      `dataset_loss` and `dataset_weight` [num_datasets], `slots_filled`.
    """
    hidden_BxTxD = target_hidden(model, params, batch)
    weights_BxT = batch["weights"]
    loss_BxT, correct_BxT = token_cross_entropy(model, params, hidden_BxTxD, batch["targets"], weights_BxT)
    weighted_BxT = loss_BxT * weights_BxT

    def by_dataset(values_BxT: jax.Array) -> jax.Array:
        return jax.ops.segment_sum(values_BxT.ravel(), batch["dataset_ids"].ravel(), num_datasets)

    total = weighted_BxT.sum()
    metrics = {
        "loss": total,
        "weight": weights_BxT.sum(),
        "correct": (correct_BxT * weights_BxT).sum(),
        "dataset_loss": by_dataset(weighted_BxT),
        "dataset_weight": by_dataset(weights_BxT),
        "slots_filled": sum((batch[k] > 0).sum() for k in batch if k.endswith("segments")).astype(jnp.float32),
    }
    return total, metrics


def target_hidden(model: Model | EncoderDecoder, params: Any, batch: Mapping[str, jax.Array]) -> jax.Array:
    """Hidden states [B, T, D] that predict the targets; see `target_loss`."""

    def side(prefix: str) -> tuple[jax.Array, ...]:
        return tuple(batch[prefix + name] for name in ("tokens", "positions", "segments"))

    if "encoder_tokens" in batch:  # every slot of the decoder predicts
        return model.hidden(params, *side(""), memory=model.encode(params, *side("encoder_")))
    return jnp.take_along_axis(model.hidden(params, *side("")), batch["target_positions"][..., None], axis=1)
