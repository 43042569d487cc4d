"""Cross entropy at the target positions only (paper, section 2.4: loss on target tokens).

What is logged as the loss is the cross entropy itself. Label smoothing and z-loss change what a step minimises, not
what is logged, so runs with other knobs can be compared.
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

_OF_DROPOUT = 0x0D  # parts the seed of its masks from that of the parameters

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
            value = macro_checks.check(f"train.{field.name}", getattr(self, field.name))
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
    """Hidden states [B, T, D] that predict the targets; see `target_loss`."""
    how: dict[str, Any] = {} if dropout is None else {"dropout": dropout}

    def side(prefix: str) -> tuple[jax.Array, ...]:
        return tuple(batch[prefix + name] for name in ("tokens", "positions", "segments"))

    if "encoder_tokens" in batch:  # every slot of the decoder predicts
        memory = model.encode(params, *side("encoder_"), **how)
        return model.hidden(params, *side(""), memory=memory, **how)
    return jnp.take_along_axis(model.hidden(params, *side(""), **how), batch["target_positions"][..., None], axis=1)
