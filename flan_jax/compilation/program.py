"""Compiles the step of a training run, or a scorer's forward pass, for devices that are not here."""

from __future__ import annotations

import dataclasses
import re
import tempfile
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from flan_jax import models, partitioning
from flan_jax.data import layouts
from flan_jax.data.stream import ROWS_PER_BATCH
from flan_jax.errors import FlanError
from flan_jax.protocol import MAX_INPUT_TOKENS, MAX_TARGET_TOKENS
from flan_jax.scoring.scorer import Scorer
from flan_jax.training import optimizers
from flan_jax.training.loss import CROSS_ENTROPY, Objective
from flan_jax.training.resolving import refuse_undivided
from flan_jax.training.state import abstract_state, make_train_step, state_shardings

NUM_PARTS = 62  # the paper's datasets, in one style

NO_OVERLAP_LOOPS = {"xla_jf_spmd_threshold_for_windowed_einsum_mib": "1000000"}  # from this size on, so never


@dataclasses.dataclass(frozen=True)
class Shape:
    """What a step computes.

    Attributes:
      rows: packed rows of a step.
      inputs: slots of a row besides its target slots.
      targets: target slots of a row.
      microbatches: the number of parts of a batch, for gradient accumulation.
      optimizer: the optimizer of the training step, or a `Tuning`; None is the paper's.
      objective: what the training step minimises.
      parts: the number of parts of the mixture, whose losses are summed separately.
    """

    rows: int = ROWS_PER_BATCH
    inputs: int = MAX_INPUT_TOKENS
    targets: int = MAX_TARGET_TOKENS
    microbatches: int = 1
    optimizer: optimizers.Optimizer | optimizers.Tuning | None = None
    objective: Objective = CROSS_ENTROPY
    parts: int = NUM_PARTS

    def capacities(self, config: models.DecoderConfig) -> tuple[int, int]:
        """The number of slots and target slots of a row."""
        return self.objective.capacities(config, self.inputs, self.targets)


@dataclasses.dataclass(frozen=True)
class Compiled:
    """What the compiler reports about a program, for one device.

    Attributes:
      memory: bytes by class; see `compile_program`.
      flops: with the body of every loop counted once.
      seconds: the compiler's estimate of the computation without collectives, also with loops counted once. NaN if the
        estimate is impossible: for v4 its sums are negative.
      text: the optimized program.
    """

    memory: dict[str, float]
    flops: float
    seconds: float
    text: str


class TooLargeError(Exception):
    """A program does not fit. Holds the bytes that it would need, or 0 if the compiler does not say."""

    def __init__(self, needed: float, reason: str) -> None:
        super().__init__(reason)
        self.needed = needed


def lower_train_step(config: models.DecoderConfig, mesh: jax.sharding.Mesh, shape: Shape) -> tuple[Any, dict]:
    """The training step of `flan_jax.training.loop`, lowered; and the bytes of its inputs by class."""
    tuning = optimizers.Tuning.of(shape.optimizer)
    network = tuning.adapted(models.build(config))
    refuse_undivided(mesh.shape, shape.rows, shape.microbatches, ("--mesh", "--rows", "--microbatches"))
    shardings, state = state_shardings(mesh, network, tuning), abstract_state(network, tuning)
    batch = abstract_batch(config, shape)
    batch_shardings = partitioning.batch_shardings(mesh, batch)
    step = jax.jit(
        make_train_step(network, tuning, shape.parts, shape.microbatches, shardings, objective=shape.objective),
        in_shardings=(shardings, batch_shardings),
        out_shardings=(shardings, shardings.step),
        donate_argnums=0,
    )
    held = {
        "parameters": _bytes(state.params, shardings.params),
        "optimizer": _bytes(state.opt_state, shardings.opt_state),
    }
    if state.ema is not None:
        held["mean of parameters"] = _bytes(state.ema, shardings.ema)
    return step.lower(state, batch), held


def lower_scoring(config: models.DecoderConfig, mesh: jax.sharding.Mesh, shape: Shape) -> tuple[Any, dict]:
    """A scorer's forward pass over rows of one length, lowered; and the bytes of its inputs by class."""
    if config.num_encoder_layers:
        raise FlanError("--score: option scoring is for decoders; leave it out for an encoder-decoder.")
    network = models.build(config)
    params = network.abstract_params()
    shardings = partitioning.parameter_shardings(mesh, network.logical_axes(), params)
    placed = jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), params, shardings)
    length, shards = shape.inputs + shape.targets, partitioning.rows_per_shard_of(mesh)
    scorer = Scorer(network, placed, mesh=mesh, row_lengths=(length,), tokens_per_batch=shape.rows // shards * length)
    return scorer.lower(length), {"parameters": _bytes(params, shardings)}


def abstract_batch(config: models.DecoderConfig, shape: Shape) -> dict[str, jax.ShapeDtypeStruct]:
    """The shapes of the arrays that a stream gives for this model."""
    layout = layouts.EncoderDecoderLayout if config.num_encoder_layers else layouts.DecoderLayout
    empty = layout(*shape.capacities(config), None, 1).batch([[]])
    return {name: jax.ShapeDtypeStruct((shape.rows, *x.shape[1:]), x.dtype) for name, x in empty.items()}


def compile_program(lowered: Any, held: dict[str, float], tpu: bool = False, straight: bool = False) -> Compiled:
    """Compiles a program and reads the compiler's reports.

    Args:
      lowered: the program.
      held: bytes of its inputs by class.
      tpu: whether it is for TPUs. Their compiler then writes the program's text, because jaxlib cannot read what newer
        TPUs' compilers make for SparseCores.
      straight: whether a TPU's compiler must not make loops of products that overlap the gathering of their operand, so
        that everything is counted.

    Raises:
      TooLargeError: the program needs more memory than a device has.
    """
    if not tpu:
        compiled = _compiled(lowered, held)
        return _accounts(compiled, held, compiled.as_text())
    with tempfile.TemporaryDirectory() as folder:
        options = {"xla_dump_to": folder, "xla_dump_hlo_as_text": True} | (NO_OVERLAP_LOOPS if straight else {})
        compiled = _compiled(lowered, held, options)
        (written,) = Path(folder).glob("*.after_codegen.txt")
        return _accounts(compiled, held, written.read_text())


def _compiled(lowered: Any, held: dict[str, float], options: dict[str, Any] | None = None) -> Any:
    try:
        return lowered.compile(compiler_options=options)
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise TooLargeError(_needed(str(error), sum(held.values())), str(error)) from error


def _accounts(compiled: Any, held: dict[str, float], text: str) -> Compiled:
    analysis, costs = compiled.memory_analysis(), compiled.cost_analysis()
    arguments, temporary = analysis.argument_size_in_bytes, analysis.temp_size_in_bytes
    outputs = analysis.output_size_in_bytes - analysis.alias_size_in_bytes
    memory = held | {"activations and gradients": float(temporary), "outputs": float(outputs)}
    memory["batch and counters"] = float(arguments) - sum(held.values())
    memory["peak"] = float(arguments + outputs + temporary + analysis.generated_code_size_in_bytes)
    seconds = float(costs.get("optimal_seconds", np.nan))
    return Compiled(memory, float(costs["flops"]), seconds if seconds > 0 else np.nan, text)


def _needed(refusal: str, held: float) -> float:
    """The bytes that a program would need by the compiler's error; 0 if it does not say.

    `held` are those of the inputs.
    """
    found = re.search(r"(Used |HLO temporaries \()([\d.]+)([KMGT])", refusal)
    if not found:
        return 0.0
    said = float(found[2]) * {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}[found[3]]
    return said if found[1] == "Used " else said + held


def _bytes(tree: Any, shardings: Any) -> float:
    """The bytes of a tree of arrays on one device."""

    def one(x: Any, sharding: jax.sharding.Sharding) -> float:
        return float(np.prod(sharding.shard_shape(x.shape), initial=1)) * jnp.dtype(x.dtype).itemsize

    return sum(jax.tree.leaves(jax.tree.map(one, tree, shardings)), 0.0)
