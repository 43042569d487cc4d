"""Cross entropy at the target positions only (paper, section 2.4: loss on target tokens).

The LM head runs over the T target slots of a row instead of all its slots, chunk by chunk, and a chunk that carries no
weight in any row is skipped: with a vocabulary of 262,144 the head is otherwise the dearest part of a small model.

What is logged as the loss is the cross entropy itself. Label smoothing and z-loss change what a step minimises, not
what is logged, so runs with other knobs can be compared.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from flan_jax import macros
from flan_jax.data.layouts import capacities
from flan_jax.models import DecoderConfig, Dropout, EncoderDecoder, Model
from flan_jax.values import PER_TOKEN

_OF_DROPOUT = 0x0D  # parts the seed of its masks from that of the parameters

SLOTS = 256  # a chunk of all rows together has at least so many, whatever `DecoderConfig.head_chunk` says

NOTHING = float(np.finfo(np.float32).tiny)  # what a mean over targets without weight is divided by: it is 0

Metrics = dict[str, jax.Array]


@dataclasses.dataclass(frozen=True)
class Objective:
    """What a step minimises: a weighted mean over the targets of all its rows.

    Attributes:
      loss_averaging: what a target weighs, one of `values.LOSS_AVERAGES`; see `flan_jax.data.layouts`.
      loss_on_inputs: whether a decoder's inputs are targets too.
      z_loss: coefficient of log(Z)^2, Z the denominator of the softmax; T5X has 1e-4. Logits then stay near 0.
      label_smoothing: how much of a target's probability all other ids share, from 0 to below 1. T5X's form: less the
        entropy of the smoothed target, so that a perfect prediction has a loss of 0.
      dropout_rate: share of what is dropped at `flan_jax.models.dropout`'s places in training.

    Raises, when it is made: FlanError for a value that none of them can be.
    """

    loss_averaging: str = PER_TOKEN
    loss_on_inputs: bool = False
    z_loss: float = 0.0
    label_smoothing: float = 0.0
    dropout_rate: float = 0.0

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = macros.check(f"train.{field.name}", getattr(self, field.name))
            object.__setattr__(self, field.name, value)

    @classmethod
    def of(cls, arguments: Mapping[str, Any]) -> Objective:
        """From those of `loop.train`'s arguments that are its fields; what is missing has its default."""
        return cls(
            **{field.name: arguments[field.name] for field in dataclasses.fields(cls) if field.name in arguments}
        )

    @property
    def is_cross_entropy(self) -> bool:
        """Whether it is the cross entropy that is logged, and nothing besides."""
        return not (self.z_loss or self.label_smoothing)

    def capacities(self, config: DecoderConfig, inputs: int, targets: int) -> tuple[int, int]:
        """Slots and target slots of a row of a model; see `data.layouts.capacities`."""
        return capacities(inputs, targets, bool(config.num_encoder_layers), self.loss_on_inputs)


CROSS_ENTROPY = Objective()  # the paper's: the mean over all target tokens


def row_keys(seed: int, step: jax.Array, num_rows: int) -> jax.Array:
    """Keys [B] of dropout's masks, by (seed, step, number of the row in its step) alone.

    So a run that goes on has the masks of one that was not stopped, and other microbatches, meshes and hosts do not
    change them. Another packing or another BATCH_SIZE does: examples then lie in other rows and slots.
    """
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), _OF_DROPOUT), step)
    return jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(num_rows))


def token_cross_entropy(
    model: Model,
    params: Any,
    hidden_BxTxD: jax.Array,
    targets_BxT: jax.Array,
    weights_BxT: jax.Array,
    objective: Objective = CROSS_ENTROPY,
) -> tuple[jax.Array, ...]:
    """Negative log-likelihood and correctness of each target.

    Returns:
      loss_BxT and correct_BxT, float32, in nats and 0/1; and, where the objective is another than the cross entropy,
      minimised_BxT, which is what it makes of each target. All are zero where the weight is zero.
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
        log_z = jax.nn.logsumexp(logits, axis=-1)
        loss = log_z - picked
        correct = picked >= jnp.max(logits, axis=-1)
        seen = weights > 0
        found = jnp.where(seen, loss, 0.0), (correct & seen).astype(jnp.float32)
        if objective.is_cross_entropy:
            return found
        minimised = _smoothed(logits, picked, log_z, objective.label_smoothing) + objective.z_loss * jnp.square(log_z)
        return *found, jnp.where(seen, minimised, 0.0)

    if chunk == num_slots:
        return head(params, hidden_BxTxD, targets_BxT, weights_BxT.astype(jnp.float32))

    def skip(params: Any, hidden: jax.Array, targets: jax.Array, weights: jax.Array) -> tuple:
        return (jnp.zeros_like(weights),) * (2 if objective.is_cross_entropy else 3)

    def body(_: None, xs: tuple) -> tuple:
        hidden, targets, weights = xs
        return None, jax.lax.cond(jnp.any(weights > 0), head, skip, params, hidden, targets, weights)

    xs = (chunks(hidden_BxTxD), chunks(targets_BxT), chunks(weights_BxT.astype(jnp.float32)))
    _, outputs = jax.lax.scan(body, None, xs, unroll=len(xs[0]) if model.config.unroll else 1)
    return tuple(jnp.moveaxis(x, 0, 1).reshape(num_rows, -1)[:, :num_slots] for x in outputs)


def _smoothed(logits: jax.Array, picked: jax.Array, log_z: jax.Array, smoothing: float) -> jax.Array:
    """Cross entropy [...] against targets of 1 - smoothing, the rest shared by the other ids, less their entropy."""
    if not smoothing:
        return log_z - picked
    others = logits.shape[-1] - 1
    of_others = math.log(smoothing) - math.log(others)
    entropy = -((1 - smoothing) * math.log1p(-smoothing) + smoothing * of_others)
    of_all = jnp.sum(logits - log_z[..., None], axis=-1)  # log-probabilities: their sum loses less than that of logits
    of_target = picked - log_z
    return -(1 - smoothing) * of_target - smoothing / others * (of_all - of_target) - entropy


def target_loss(
    model: Model,
    params: Any,
    batch: Mapping[str, jax.Array],
    num_datasets: int,
    objective: Objective = CROSS_ENTROPY,
) -> tuple[jax.Array, Metrics]:
    """The summed loss of a batch of packed rows, and sums for the metrics.

    Args:
      model: the decoder, or an encoder-decoder where the batch has an encoder's side.
      params: its parameters.
      batch: the arrays of one of `flan_jax.data.layouts`; and, where a rate is dropped, `row_keys` [B].
      num_datasets: how many datasets `dataset_ids` numbers.
      objective: what is minimised.

    Returns:
      What is minimised, as a sum over targets of weight x objective (nats, float32 scalar), and sums by name: `loss`
      (weight x negative log-likelihood), `objective` where that is something else, `weight`, `tokens` (targets of any
      weight), `correct`, `dataset_loss` and `dataset_weight` [num_datasets], `slots_filled`.
    """
    dropout = Dropout(batch["row_keys"], objective.dropout_rate) if objective.dropout_rate else None
    hidden_BxTxD = target_hidden(model, params, batch, dropout)
    weights_BxT = batch["weights"]
    of_targets = (batch["targets"], weights_BxT)
    more = () if objective.is_cross_entropy else (objective,)
    loss_BxT, correct_BxT, *other = token_cross_entropy(model, params, hidden_BxTxD, *of_targets, *more)
    weighted_BxT = loss_BxT * weights_BxT

    def by_dataset(values_BxT: jax.Array) -> jax.Array:
        return jax.ops.segment_sum(values_BxT.ravel(), batch["dataset_ids"].ravel(), num_datasets)

    total = weighted_BxT.sum()
    metrics = {
        "loss": total,
        "weight": weights_BxT.sum(),
        "tokens": (weights_BxT > 0).sum(),
        "correct": (correct_BxT * weights_BxT).sum(),
        "dataset_loss": by_dataset(weighted_BxT),
        "dataset_weight": by_dataset(weights_BxT),
        "slots_filled": sum((batch[k] > 0).sum() for k in batch if k.endswith("segments")).astype(jnp.float32),
    }
    for minimised_BxT in other:
        total = metrics["objective"] = (minimised_BxT * weights_BxT).sum()
    return total, metrics


def target_hidden(
    model: Model | EncoderDecoder, params: Any, batch: Mapping[str, jax.Array], dropout: Dropout | None = None
) -> jax.Array:
    """Hidden states [B, T, D] that predict the targets; see `target_loss`."""
    how = {} if dropout is None else {"dropout": dropout}

    def side(prefix: str) -> tuple[jax.Array, ...]:
        return tuple(batch[prefix + name] for name in ("tokens", "positions", "segments"))

    if "encoder_tokens" in batch:  # every slot of the decoder predicts
        memory = model.encode(params, *side("encoder_"), **how)
        return model.hidden(params, *side(""), memory=memory, **how)
    return jnp.take_along_axis(model.hidden(params, *side(""), **how), batch["target_positions"][..., None], axis=1)
