"""Cross entropy at the target positions (paper, section 2.4: loss on target tokens).

The logged loss is always the cross entropy itself. Label smoothing and z-loss change what a step minimises, but not
what is logged, so runs with other settings can be compared.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from flan_jax import macro_checks
from flan_jax.data.layouts import capacities
from flan_jax.models import DecoderConfig, Dropout, EncoderDecoder, Model
from flan_jax.training.cross_entropy import token_cross_entropy
from flan_jax.values import PER_TOKEN

_OF_DROPOUT = 0x0D  # keeps the seed of dropout masks apart from that of the parameters

NOTHING = float(np.finfo(np.float32).tiny)  # divisor of a mean over targets without any weight, which is then 0

Metrics = dict[str, jax.Array]


@dataclasses.dataclass(frozen=True)
class Objective:
    """What a step minimises: a weighted mean over the targets of all its rows.

    Attributes:
      loss_averaging: the weight of a target, one of `values.LOSS_AVERAGES`; see `flan_jax.data.layouts`.
      loss_on_inputs: whether a decoder's inputs are targets too.
      z_loss: the coefficient of log(Z)^2, where Z is the denominator of the softmax; T5X uses 1e-4. It keeps logits
        near 0.
      label_smoothing: the share of a target's probability that goes to all other ids, from 0 to below 1. As in T5X, the
        entropy of the smoothed target is subtracted, so that a perfect prediction has loss 0.
      dropout_rate: the share that is dropped in training, at the places of `flan_jax.models.dropout`.

    Raises:
      FlanError: when it is made, if a value is not allowed.
    """

    loss_averaging: str = PER_TOKEN
    loss_on_inputs: bool = False
    z_loss: float = 0.0
    label_smoothing: float = 0.0
    dropout_rate: float = 0.0

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = macro_checks.check(f"train.{field.name}", getattr(self, field.name))
            object.__setattr__(self, field.name, value)

    @classmethod
    def of(cls, arguments: Mapping[str, Any]) -> Objective:
        """Takes the fields from the arguments of `loop.train`. A missing argument has its default."""
        return cls(
            **{field.name: arguments[field.name] for field in dataclasses.fields(cls) if field.name in arguments}
        )

    @property
    def is_cross_entropy(self) -> bool:
        """Whether it is the same as the logged cross entropy."""
        return not (self.z_loss or self.label_smoothing)

    def capacities(self, config: DecoderConfig, inputs: int, targets: int) -> tuple[int, int]:
        """The number of slots and of target slots of a row; see `data.layouts.capacities`."""
        return capacities(inputs, targets, bool(config.num_encoder_layers), self.loss_on_inputs)


CROSS_ENTROPY = Objective()  # the paper's: the mean over all target tokens


def row_keys(seed: int, step: jax.Array, num_rows: int) -> jax.Array:
    """The keys [B] of dropout masks. They depend only on (seed, step, number of the row in its step).

    So a resumed run has the masks of a run that was not stopped, and microbatches, meshes and hosts do not change them.
    Another packing or BATCH_SIZE does, because examples then lie in other rows and slots.
    """
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), _OF_DROPOUT), step)
    return jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(num_rows))


def target_loss(
    model: Model,
    params: Any,
    batch: Mapping[str, jax.Array],
    num_datasets: int,
    objective: Objective = CROSS_ENTROPY,
) -> tuple[jax.Array, Metrics]:
    """The summed loss of a batch of packed rows, and sums for the metrics.

    Args:
      model: the decoder; or an encoder-decoder, if the batch has an encoder's side.
      params: its parameters.
      batch: the arrays of a layout of `flan_jax.data.layouts`; with dropout, also `row_keys` [B].
      num_datasets: the number of datasets in `dataset_ids`.
      objective: what is minimised.

    Returns:
      What is minimised, the sum over targets of weight x objective (nats, float32 scalar); and sums by name: `loss`
      (weight x negative log-likelihood), `objective` if it differs from the loss, `weight`, `tokens` (targets with any
      weight), `correct`, `dataset_loss` and `dataset_weight` [num_datasets], `slots_filled`.
    """
    dropout = Dropout(batch["row_keys"], objective.dropout_rate) if objective.dropout_rate else None
    hidden_BxTxD = target_hidden(model, params, batch, dropout)
    weights_BxT = batch["weights"]
    of_targets = (batch["targets"], weights_BxT, objective.label_smoothing, objective.z_loss)
    found = token_cross_entropy(model, params, hidden_BxTxD, *of_targets)
    weighted_BxT = found.loss_BxT * weights_BxT

    def by_dataset(values_BxT: jax.Array) -> jax.Array:
        return jax.ops.segment_sum(values_BxT.ravel(), batch["dataset_ids"].ravel(), num_datasets)

    metrics = {
        "loss": weighted_BxT.sum(),
        "weight": weights_BxT.sum(),
        "tokens": (weights_BxT > 0).sum(),
        "correct": (found.correct_BxT * weights_BxT).sum(),
        "dataset_loss": by_dataset(weighted_BxT),
        "dataset_weight": by_dataset(weights_BxT),
        "slots_filled": sum((batch[k] > 0).sum() for k in batch if k.endswith("segments")).astype(jnp.float32),
    }
    if not objective.is_cross_entropy:
        metrics["objective"] = found.total
    return found.total, metrics


def target_hidden(
    model: Model | EncoderDecoder, params: Any, batch: Mapping[str, jax.Array], dropout: Dropout | None = None
) -> jax.Array:
    """The hidden states [B, T, D] that predict the targets; see `target_loss`."""
    how: dict[str, Any] = {} if dropout is None else {"dropout": dropout}

    def side(prefix: str) -> tuple[jax.Array, ...]:
        return tuple(batch[prefix + name] for name in ("tokens", "positions", "segments"))

    if "encoder_tokens" in batch:  # every slot of the decoder predicts
        memory = model.encode(params, *side("encoder_"), **how)
        return model.hidden(params, *side(""), memory=memory, **how)
    return jnp.take_along_axis(model.hidden(params, *side(""), **how), batch["target_positions"][..., None], axis=1)
