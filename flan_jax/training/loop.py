"""The training loop, top to bottom: resolve the run, restore its state, take steps with hooks."""

from __future__ import annotations

import collections
import dataclasses
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
import optax

from flan_jax import distributed, macros, models, partitioning
from flan_jax.checkpoint import arrays, digests, keeping, lock, place
from flan_jax.data.mixture_stream import open_mixture
from flan_jax.data.stream import ROWS_PER_BATCH, prefetch
from flan_jax.files import AnyPath, user_path
from flan_jax.training import notices, optimizers, records
from flan_jax.training.continuing import continued
from flan_jax.training.figures import Figures, Machine, Rows
from flan_jax.training.hooks import loading
from flan_jax.training.hooks.calls import Hooks
from flan_jax.training.hooks.context import Context
from flan_jax.training.hooks.learning_rate import LearningRate
from flan_jax.training.hooks.metrics_log import MetricsLog
from flan_jax.training.hooks.not_finite import NotFinite, Skipping
from flan_jax.training.hooks.preemption import Preemption
from flan_jax.training.hooks.profiling import Profiling
from flan_jax.training.hooks.progress import Progress
from flan_jax.training.hooks.saving import Saving
from flan_jax.training.hooks.spikes import DEVIATIONS, Spikes
from flan_jax.training.hooks.wandb_log import WandbLog
from flan_jax.training.hooks.watchdog import Watchdog
from flan_jax.training.run import Materials, Run, resolve
from flan_jax.training.state import TrainState, abstract_state, make_train_step, state_shardings


@dataclasses.dataclass(frozen=True)
class RunResult:
    """Where a run ended.

    Attributes:
      step: steps taken in all.
      metrics: the last step's figures.
      reason: why it ended before its last step; empty where it did not.
      status: exit status of the program.
    """

    step: int
    metrics: dict[str, Any]
    reason: str = ""
    status: int = 0


@macros.checked
def train(
    *,
    model_dir: str,
    mixture: str,
    prepared_dir: str,
    train_steps: int = 30_000,
    initial_checkpoint_path: str | None = None,
    model: models.DecoderConfig | None = None,
    vocabulary: str | None = None,
    batch_size: int = ROWS_PER_BATCH,
    feature_lengths: Mapping[str, int] | None = None,
    computation: Mapping[str, Any] | str | None = None,
    random_seed: int = 0,
    optimizer: optimizers.Optimizer | None = None,
    microbatches: int = 1,
    mesh_shape: Mapping[str, int] | None = None,
    checkpoint_period: int = 1_000,
    keep_checkpoints: int = 2,
    keep_every: int | None = None,
    keep_best: Mapping[str, Any] | None = None,
    log_period: int = 10,
    hooks: Sequence[Any] = (),
    evaluation: Any = None,
    profile: tuple[int, int] | None = None,
    loss_spike: float | None = DEVIATIONS,
    wandb: Mapping[str, Any] | None = None,
    on_damage: str = "stop",
    on_nan: str | int = "stop",
    grace_seconds: float = 25.0,
    no_step_seconds: float | None = 1800.0,
    config_text: str = "",
) -> RunResult:
    """Tunes a model on a mixture; continues where an earlier run on `model_dir` stopped.

    In a pod every process calls this with the same arguments and a `model_dir` that all of them see. Each reads its own
    rows and saves its own shards; process 0 writes the rest.

    Args:
      model_dir: MODEL_DIR, where config, manifest, checkpoints and metrics go.
      mixture: "flan", "flan_without_<cluster>" or another name of `catalog.mixture`, with or without a style at its
        end (`flan_jax.styles`).
      prepared_dir: what `flan_jax.prepare` wrote.
      train_steps: steps in all (paper: 30,000).
      initial_checkpoint_path: a checkpoint folder to start from; its manifest is inherited. None starts from
        random parameters of `model`.
      model: the shape, without an initial checkpoint.
      vocabulary: as `vocabularies.load` takes it, without an initial checkpoint.
      batch_size: rows a step (paper: 8,192 tokens a batch).
      feature_lengths: {"inputs": 1024, "targets": 256}: their sum is the row length, the second the target slots. Of an
        encoder-decoder they are the lengths of its two rows.
      computation: fields of `models.config.COMPUTATION` that differ from the model's own, for this run; "auto" as a
        whole, or for a field, lets `models.automatic` choose.
      random_seed: seeds the initial parameters and the stream.
      optimizer: an optax transformation, or what makes one for a model (`optimizers.for_parameters`); default
        Adafactor at 3e-5.
      microbatches: gradient accumulation.
      mesh_shape: sizes of the axes data, fsdp and tensor; -1 takes what is left.
      checkpoint_period: steps between checkpoints; the last step is always saved.
      keep_checkpoints: how many of the last ones stay.
      keep_every: those of all multiples of so many steps stay for good.
      keep_best: {"figure": "loss", "best": "lowest", "count": 1}: so many stay whose steps have the best figure, which
        is one of `metrics.jsonl`; "cluster_loss/nli" names one of several.
      log_period: steps between printed lines where the output is no terminal.
      hooks: what else happens at a step, by name or made; see `flan_jax.training.hooks`.
      evaluation: a hook that evaluates, as `evaluation.during_training` makes it; None for none.
      profile: the first and the last step of which a profile is written to MODEL_DIR/profile; None for none.
      loss_spike: a step whose loss is so many deviations above the median of the steps before is written to
        MODEL_DIR/spikes.jsonl with what was in its batch; see `hooks.spikes`. None for none.
      wandb: {"project": ...}, with "entity", "group", "name" or "mode": figures go to Weights & Biases too.
      on_damage: where the newest checkpoint is damaged, "stop", or "previous" to go on from the one before.
      on_nan: where a loss, gradient or update is not finite, "stop", or how many batches of the run may be skipped.
      grace_seconds: from SIGTERM to the end of the program, at most.
      no_step_seconds: a run that waits longer for a step is ended; see `hooks.watchdog`. None waits for ever.
      config_text: the run's gin configuration, kept as config.gin.

    Raises:
      FlanError: bad input, or a loss that is not finite.
    """
    folder = user_path(model_dir, "MODEL_DIR")
    own_hooks, best = loading.load(hooks), keeping.Best(**keep_best) if keep_best else None
    evaluations = loading.load([] if evaluation is None else [evaluation])
    place.check_shared(folder)
    with lock.held(folder, "training") as hold, notices.listening_if_nobody_does() as listener:
        if listener is not None:  # a start on another host would wait for a sign of life
            listener.at_the_end(hold.release)
        called = [
            *([Watchdog(no_step_seconds)] if no_step_seconds else []),
            *([Spikes(loss_spike)] if loss_spike is not None else []),
            NotFinite() if on_nan == "stop" else Skipping(on_nan),
            LearningRate(optimizer if optimizer is not None else optimizers.adafactor()),
            *own_hooks,
            *evaluations,
            *([WandbLog(wandb)] if wandb else []),
            *(MetricsLog(), Progress(log_period)),
            *([Profiling(profile)] if profile else []),
            Preemption(grace_seconds),
            Saving(checkpoint_period, keep_checkpoints, keep_every, best, known=not own_hooks, allowed=hold.check),
        ]
        run, given = resolve(
            model_dir=folder,
            mixture=mixture,
            prepared_dir=prepared_dir,
            train_steps=train_steps,
            initial_checkpoint_path=initial_checkpoint_path,
            model=model,
            vocabulary=vocabulary,
            batch_size=batch_size,
            feature_lengths=feature_lengths,
            computation=computation,
            random_seed=random_seed,
            optimizer=optimizer,
            microbatches=microbatches,
            mesh_shape=mesh_shape,
            hooks=hooks,
        )
        return _trained(run, given, folder, prepared_dir, called, on_damage, config_text)


def _trained(
    run: Run,
    given: Materials,
    folder: AnyPath,
    prepared_dir: str,
    hooks: Sequence[Any],
    on_damage: str,
    config_text: str,
) -> RunResult:
    """Restores, takes the steps that are left, and calls the hooks; see `train`."""
    primary, program, mesh = distributed.is_primary(), run.program, given.mesh

    # -------------------------------------------------------------------------------- compare with what is there
    if on_damage == arrays.PREVIOUS:  # another run is refused before a step of this one is moved aside
        continued(folder, run, given.saved, distributed.decided(lambda: arrays.latest_step(folder)))
    start = arrays.choose_step(folder, on_damage)
    run, changes = continued(folder, run, given.saved, start)
    if start is not None and start >= run.train_steps:
        if primary:
            print(
                f"nothing to do: {folder} is at step {start}, and TRAIN_STEPS is {run.train_steps}; give TRAIN_STEPS "
                f"of more than {start} to train on, or another MODEL_DIR for a new run.",
                flush=True,
            )
        return RunResult(start, {})

    # -------------------------------------------------------------------------------------------------- restore
    network = models.build(program.config)
    composition, stream = open_mixture(
        run.mixture,
        prepared_dir,
        given.tokenizer,
        seed=run.seed,
        rows_per_batch=program.rows,
        lengths=program.lengths,
        encoder_decoder=bool(network.config.num_encoder_layers),
    )
    tx = optimizers.for_parameters(given.optimizer, network.logical_axes())
    shardings = state_shardings(mesh, network, tx)
    state = _state(network, tx, shardings, folder, start, run, given.checkpoint)
    place.check_room(folder, (state.params, state.opt_state))
    if primary:
        whole = partitioning.undivided(mesh, network.logical_axes(), network.abstract_params())
        records.show(
            composition, run.train_steps * stream.draws_per_step, [*changes, *filter(None, [given.chosen, whole])]
        )
        records.write(folder, run, given, composition, stream, start, config_text)

    # ----------------------------------------------------------------------------------------------------- step
    step = int(state.step)
    context = Context(run, folder, network, mesh, stream, step)
    called = Hooks(hooks, context)
    rows = partitioning.local_rows(mesh, program.rows)
    one_row = stream.batch(step, rows[:1])
    batch_shapes = {k: jax.ShapeDtypeStruct((program.rows, *x.shape[1:]), x.dtype) for k, x in one_row.items()}
    batch_shardings = partitioning.batch_shardings(mesh, batch_shapes)
    train_step = jax.jit(
        make_train_step(
            network,
            tx,
            len(stream.datasets),
            program.microbatches,
            shardings,
            measure=called.measure if called.measures else None,
            accept=called.accept if called.accepts else None,
        ),
        in_shardings=(shardings, batch_shardings),
        out_shardings=(shardings, shardings.step),  # metrics lie whole on every device, like the step
        donate_argnums=0,
    )

    # ----------------------------------------------------------------------------------------------------- loop
    running: collections.deque[tuple[int, Mapping[str, jax.Array], Rows]] = collections.deque()
    with mesh, called, prefetch(stream, step, rows=rows) as batches:
        figures = Figures(stream.datasets, stream.slots_per_step, Machine(mesh, program.config.dtype))
        while step < run.train_steps and context.stopped is None:
            began = time.perf_counter()
            read = next(batches)
            waited = time.perf_counter() - began
            batch = partitioning.global_batch(read, batch_shardings, rows, program.rows)
            state, sums = train_step(state, batch)
            step += 1
            running.append((step, sums, Rows.of(network.config, read, len(rows) / program.rows, waited)))
            # The devices compute a step while the host accounts for the last, unless they have to wait.
            while len(running) > (0 if called.pauses(step) else 1):
                done, sums, of_rows = running.popleft()
                called.after_step(done, *figures.fetched(sums, of_rows), None if running else state)
                if not running:  # what hooks did meanwhile is no part of the next step
                    figures.resumes()
    if context.stopped is not None and primary:
        print(f"stopped after step {step}: {context.stopped.reason}", flush=True)
    return RunResult(step, context.values, *(dataclasses.astuple(context.stopped) if context.stopped else ()))


def _state(
    network: models.Model,
    tx: optax.GradientTransformation,
    shardings: TrainState,
    model_dir: AnyPath,
    step: int | None,
    run: Run,
    checkpoint: str | None,
) -> TrainState:
    """The state to go on from, each leaf made on the devices that will hold it.

    Args:
      network: the model.
      tx: the optimizer.
      shardings: of the state.
      model_dir: the run's own folder.
      step: which of its checkpoints; None where it has none.
      run: says which step of the checkpoint to start from, and the seed.
      checkpoint: where the parameters of step 0 are; None makes random ones.

    Raises:
      FlanError: it cannot be read, or the parameters are not finite.
    """
    if step is not None:
        abstract = abstract_state(network, tx)
        _, params, opt_state = arrays.restore_training(
            model_dir, (abstract.params, abstract.opt_state), (shardings.params, shardings.opt_state), step
        )
    elif checkpoint:
        of_step = run.start.get("step")
        params = arrays.restore_params(checkpoint, network.abstract_params(), shardings.params, of_step, arrays.START)
    else:
        params = jax.jit(network.init, out_shardings=shardings.params)(jax.random.key(run.seed))
    origin = checkpoint or "the random start" if step is None else model_dir
    digests.refuse_not_finite(digests.measure(params), f"parameters of {origin}", "start from another checkpoint")
    if step is None:
        opt_state = jax.jit(tx.init, out_shardings=shardings.opt_state)(params)
    return TrainState(jax.device_put(np.int32(step or 0), shardings.step), params, opt_state)
