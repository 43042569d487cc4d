"""The state of a run, and the function that advances it by one step."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from flan_jax import partitioning
from flan_jax.models import Model, lora, nested, prompt
from flan_jax.training import loss as loss_lib
from flan_jax.training import optimizers


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """What a checkpoint holds. The stream has no state besides the step.

    Attributes:
      step: int32 scalar, the number of steps taken.
      params: the model's parameters.
      opt_state: the optimizer's state.
      ema: the mean of the trained parameters over steps; None without one.
    """

    step: jax.Array
    params: Any
    opt_state: Any
    ema: Any = None


@dataclasses.dataclass(frozen=True)
class Taken:
    """What a step has computed, on the devices, while it is traced. Trees are like the trained parameters.

    Attributes:
      step: int32 scalar, the number of steps taken before this one.
      loss: float32 scalar, in nats for each target token.
      gradient_norm: float32 scalar.
      gradients: gradients of what is minimised; that is the loss, unless an objective says otherwise.
      updates: what the optimizer adds to the parameters.
      params: the parameters before the update.
    """

    step: jax.Array
    loss: jax.Array
    gradient_norm: jax.Array
    gradients: Any
    updates: Any
    params: Any


def trained_part(tuning: optimizers.Tuning, model: Model) -> Callable[[Any], Any]:
    """A function that takes the trained part out of a tree like the parameters."""
    wanted = tuning.trained(model.logical_axes()) if tuning.is_partial else None
    return lambda tree: tree if wanted is None else nested.part(tree, wanted)


def saved_parts(model: Model, params: Any) -> tuple[Any, Any]:
    """(parameters, adapters) that a checkpoint holds. With adapters or a soft prompt, it holds only these."""
    if not isinstance(model, lora.Adapted | prompt.Prompted):
        return params, None
    return None, nested.part(params, [path for path in nested.paths(params) if lora.is_adapter(path)])


def abstract_state(model: Model, optimizer: optimizers.Optimizer | optimizers.Tuning) -> TrainState:
    """The shapes and dtypes of the state. Nothing is allocated."""
    params, tuning = model.abstract_params(), optimizers.Tuning.of(optimizer)
    tx = optimizers.for_parameters(tuning, model.logical_axes())
    ema = None if tuning.ema_decay is None else trained_part(tuning, model)(params)
    return TrainState(jax.ShapeDtypeStruct((), jnp.int32), params, jax.eval_shape(tx.init, params), ema)


def state_shardings(
    mesh: jax.sharding.Mesh, model: Model, optimizer: optimizers.Optimizer | optimizers.Tuning
) -> TrainState:
    """The NamedSharding of every leaf of the state: of the parameters, and of the optimizer's state as it declares."""
    params, axes, tuning = model.abstract_params(), model.logical_axes(), optimizers.Tuning.of(optimizer)
    of_params = partitioning.parameter_shardings(mesh, axes, params)
    return TrainState(
        jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec()),
        of_params,
        optimizers.state_shardings(mesh, tuning, params, axes),
        None if tuning.ema_decay is None else trained_part(tuning, model)(of_params),
    )


def make_train_step(
    model: Model,
    optimizer: optimizers.Optimizer | optimizers.Tuning,
    num_datasets: int,
    microbatches: int = 1,
    shardings: TrainState | None = None,
    measure: Callable[[Taken], Mapping[str, Any]] | None = None,
    accept: Callable[[Taken], jax.Array] | None = None,
    objective: loss_lib.Objective = loss_lib.CROSS_ENTROPY,
    seed: int = 0,
) -> Callable[[TrainState, Mapping[str, jax.Array]], tuple[TrainState, loss_lib.Metrics]]:
    """Builds `step(state, batch) -> (state, metrics)`. The caller jits it with its shardings.

    Args:
      model: the model.
      optimizer: an optimizer as `optimizers.for_parameters` takes it, or a `Tuning`.
      num_datasets: the number of datasets in the stream.
      microbatches: for gradient accumulation, the number of parts into which the batch is cut; they are computed one
        after another. The gradient is that of the weighted mean over all targets of the batch, whatever the cut.
      shardings: the shardings of the state. Gradients are then laid out like their parameters, part by part, so that
        their sum over the rows arrives scattered and not whole. None leaves this to the compiler.
      measure: what else to compute from a step; its arrays are in the metrics as `measured`.
      accept: whether to take the update, a boolean scalar. If not, parameters and optimizer's state stay as they were,
        bit for bit, and `skipped` in the metrics is 1, not 0. The step counts.
      objective: what is minimised.
      seed: the seed of dropout masks.
    """
    tuning = optimizers.Tuning.of(optimizer)
    tx, part = optimizers.for_parameters(tuning, model.logical_axes()), trained_part(tuning, model)
    asked = () if objective == loss_lib.CROSS_ENTROPY else (objective,)

    def gradient(params: Any, batch: Mapping[str, jax.Array]) -> tuple[Any, loss_lib.Metrics]:
        def total(trained: Any) -> tuple[jax.Array, loss_lib.Metrics]:
            merged = nested.merged(params, trained) if tuning.is_partial else trained
            with contextlib.nullcontext() if shardings is None else partitioning.layout(shardings.step.mesh):
                return loss_lib.target_loss(model, merged, batch, num_datasets, *asked)

        grads, metrics = jax.grad(total, has_aux=True)(part(params))
        if shardings is not None:
            grads = jax.lax.with_sharding_constraint(grads, part(shardings.params))
        return grads, metrics

    def accumulated(params: Any, batch: Mapping[str, jax.Array]) -> tuple[Any, loss_lib.Metrics]:
        if microbatches == 1:
            return gradient(params, batch)
        # Part i takes rows i, i + A, ..., so that the rows' major axis and its sharding stay whole.
        parts = {k: v.reshape(-1, microbatches, *v.shape[1:]).swapaxes(0, 1) for k, v in batch.items()}
        first = jax.eval_shape(gradient, params, {k: v[0] for k, v in parts.items()})
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), first)

        def add(sums: Any, part: Mapping[str, jax.Array]) -> tuple[Any, None]:
            return jax.tree.map(jnp.add, sums, gradient(params, part)), None

        return jax.lax.scan(add, zeros, parts)[0]

    def train_step(state: TrainState, batch: Mapping[str, jax.Array]) -> tuple[TrainState, loss_lib.Metrics]:
        if objective.dropout_rate:
            batch = {**batch, "row_keys": loss_lib.row_keys(seed, state.step, len(batch["weights"]))}
        grads, metrics = accumulated(state.params, batch)
        grads = jax.tree.map(lambda g: g / jnp.maximum(metrics["weight"], loss_lib.NOTHING), grads)
        updates, opt_state = tx.update(grads, state.opt_state, state.params)
        before = part(state.params)
        trained = optax.apply_updates(before, updates)
        ema = None if tuning.ema_decay is None else _averaged(state.ema, trained, tuning.ema_decay)
        metrics["gradient_norm"] = optax.tree.norm(grads)
        loss = metrics["loss"] / jnp.maximum(metrics["weight"], loss_lib.NOTHING)
        taken = Taken(state.step, loss, metrics["gradient_norm"], grads, updates, before)
        if measure is not None:
            metrics["measured"] = measure(taken)
        if accept is not None:  # here, because the caller donates the old state
            accepted = accept(taken)
            as_before = (before, state.opt_state, state.ema)
            keep = lambda new, old: jnp.where(accepted, new, old)  # noqa: E731
            trained, opt_state, ema = jax.tree.map(keep, (trained, opt_state, ema), as_before)
            metrics["skipped"] = 1.0 - accepted.astype(jnp.float32)
        params = nested.merged(state.params, trained) if tuning.is_partial else trained
        metrics["parameter_norm"] = optax.tree.norm(params)  # shows a broken update before it is saved
        return TrainState(state.step + 1, params, opt_state, ema), metrics

    return train_step


def _averaged(mean: Any, params: Any, decay: float) -> Any:
    return jax.tree.map(lambda m, p: decay * m + (1.0 - decay) * p, mean, params)
