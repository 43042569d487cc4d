"""The training loop from top to bottom: resolve the run, restore its state, take steps with hooks."""

from __future__ import annotations

import collections
import dataclasses
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from flan_jax import distributed, macro_checks, models, partitioning, parts
from flan_jax.checkpoint import arrays, choosing, digests, keeping, lock, place, stored
from flan_jax.data.mixture_stream import open_mixture
from flan_jax.data.stream import ROWS_PER_BATCH, prefetch
from flan_jax.files import AnyPath, user_path
from flan_jax.models import nested
from flan_jax.training import notices, optimizers, records, starting
from flan_jax.training.continuing import continued, refuse_step_of_another
from flan_jax.training.figures import Figures, Machine, Rows
from flan_jax.training.hooks import loading
from flan_jax.training.hooks.calls import Hooks
from flan_jax.training.hooks.context import Context
from flan_jax.training.hooks.keeping_best import KeepingBest
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
from flan_jax.training.loss import Objective
from flan_jax.training.resolving import Materials, resolve
from flan_jax.training.run import Run
from flan_jax.training.state import (
    TrainState,
    abstract_state,
    make_train_step,
    saved_parts,
    state_shardings,
    trained_part,
)


@dataclasses.dataclass(frozen=True)
class RunResult:
    """Where a run ended.

    Attributes:
      step: steps taken in all.
      metrics: the last step's figures.
      reason: why it ended before its last step; empty if it did not.
      status: the program's exit status.
    """

    step: int
    metrics: dict[str, Any]
    reason: str = ""
    status: int = 0


@macro_checks.checked
def train(
    *,
    model_dir: str,
    mixture: str | Mapping[str, Any] | parts.Mixture,
    prepared_dir: str,
    train_steps: int = 30_000,
    initial_checkpoint_path: str | None = None,
    initial_step: int | None = None,
    initial_optimizer_state: bool = False,
    initial_map: Mapping[str, str | None] | None = None,
    model: models.DecoderConfig | None = None,
    vocabulary: str | None = None,
    batch_size: int = ROWS_PER_BATCH,
    feature_lengths: Mapping[str, int] | None = None,
    computation: Mapping[str, Any] | str | None = None,
    random_seed: int = 0,
    optimizer: optimizers.Optimizer | None = None,
    clip_norm: float | None = None,
    frozen: Sequence[str] = (),
    ema_decay: float | None = None,
    lora: Mapping[str, Any] | None = None,
    prompt_length: int | None = None,
    microbatches: int = 1,
    loss_averaging: str = Objective.loss_averaging,
    loss_on_inputs: bool = Objective.loss_on_inputs,
    z_loss: float = Objective.z_loss,
    label_smoothing: float = Objective.label_smoothing,
    dropout_rate: float = Objective.dropout_rate,
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
    """Tunes a model on a mixture. Continues if an earlier run on `model_dir` has stopped.

    In a pod, every process calls this with the same arguments and a `model_dir` that all of them can access. Each
    process reads its own rows and saves its own shards; process 0 writes the rest.

    Args:
      model_dir: MODEL_DIR, the folder for config, manifest, checkpoints and metrics.
      mixture: "flan", "flan_without_<cluster>" or another name of `catalog.mixture`, with or without a style at its end
        (`flan_jax.styles`); or anything else that `parts.of` takes.
      prepared_dir: the folder that `flan_jax.prepare` wrote.
      train_steps: steps in all (paper: 30,000).
      initial_checkpoint_path: a checkpoint folder to start from; its manifest is inherited. None starts from random
        parameters of `model`.
      initial_step: which step of it; None takes the last.
      initial_optimizer_state: whether to take the optimizer's state too. The learning rate's schedule begins anew.
      initial_map: says where in the checkpoint this model's parameters are, by patterns of their paths. A pattern with
        None starts at random. With a map, the model is `model`; see `starting.Start`.
      model: the shape of the model; needed without an initial checkpoint, or with a map.
      vocabulary: see `vocabularies.load`; needed without an initial checkpoint.
      batch_size: rows of a step (paper: 8,192 tokens a batch).
      feature_lengths: {"inputs": 1024, "targets": 256}. Their sum is the length of a row; "targets" is the number of
        target slots. An encoder-decoder has two rows with these lengths.
      computation: fields of `models.config.COMPUTATION` that differ from the model's own, for this run. "auto", in
        place of the dictionary or of a value, lets `models.automatic` choose.
      random_seed: the seed of the initial parameters and the stream.
      optimizer: an optax transformation, or a function that makes one for a model (`optimizers.for_parameters`); by
        default Adafactor with learning rate 3e-5.
      clip_norm: largest global norm of the gradient; None sets no limit.
      frozen: patterns of paths of parameters that are not trained; see `optimizers.patterns.matches`.
      ema_decay: decay of the mean of the trained parameters over steps, which checkpoints then hold too; None for no
        mean.
      lora: for example {"rank": 8, "alpha": 16, "targets": ("self_attention",)}. Only adapters of these projections are
        trained, and checkpoints hold only these. None for no adapters; see `optimizers.Lora`.
      prompt_length: slots of a soft prompt, which is then all that is trained and saved; None for no prompt.
      microbatches: the number of parts of a batch, for gradient accumulation.
      loss_averaging: "per_token" as in the paper; with "per_example", the targets of an example together weigh 1.
      loss_on_inputs: whether a decoder's inputs have a loss too. Then all slots of a row are target slots, and the LM
        head runs over all of them. Not for an encoder-decoder.
      z_loss: the coefficient of T5X's z-loss.
      label_smoothing: as in T5X.
      dropout_rate: the rate of dropout in training, at T5X's places; see `flan_jax.models.dropout`.
      mesh_shape: sizes of the mesh axes data, fsdp and tensor; -1 takes the devices that are left.
      checkpoint_period: steps between checkpoints; the last step is always saved.
      keep_checkpoints: how many of the last checkpoints stay.
      keep_every: checkpoints at multiples of so many steps stay for good.
      keep_best: for example {"figure": "loss", "best": "lowest", "count": 1}: how many checkpoints with the best figure
        stay. The figure is one of `metrics.jsonl`; "cluster_loss/nli" names one of several. Figures of held-out data
        are not allowed; see `hooks.keeping_best`.
      log_period: steps between printed lines if the output is not a terminal.
      hooks: what else happens at a step, as names or objects; see `flan_jax.training.hooks`.
      evaluation: a hook that evaluates, from `evaluation.during_training`; None for none.
      profile: the first and the last step to profile, in MODEL_DIR/profile; None for none.
      loss_spike: a step whose loss is so many deviations above the median of the steps before is recorded in
        MODEL_DIR/spikes.jsonl with its batch; see `hooks.spikes`. None for none.
      wandb: {"project": ...}, and if wanted "entity", "group", "name" and "mode"; sends figures to Weights & Biases.
      on_damage: if the newest checkpoint is damaged, "stop", or "previous" to continue from the one before.
      on_nan: if a loss, gradient or update is not finite, "stop", or how many batches of the run may be skipped.
      grace_seconds: the most seconds from SIGTERM to the end of the program.
      no_step_seconds: a run that waits longer for a step is ended; see `hooks.watchdog`. None waits forever.
      config_text: the run's gin configuration, which is kept as config.gin.

    Raises:
      FlanError: bad input, or a loss that is not finite.
    """
    folder = user_path(model_dir, "MODEL_DIR")
    own_hooks = loading.load(hooks)
    best = KeepingBest(keeping.Best(**keep_best), known=not own_hooks) if keep_best else None
    evaluations = loading.load([] if evaluation is None else [evaluation])
    place.check_shared(folder)
    with lock.held(folder, "training") as hold, notices.listening_if_nobody_does() as listener:
        if listener is not None:  # a start on another host would wait for the lock to expire
            listener.at_the_end(hold.release)
        called = [
            *([Watchdog(no_step_seconds)] if no_step_seconds else []),
            *([Spikes(loss_spike)] if loss_spike is not None else []),
            NotFinite() if on_nan == "stop" else Skipping(on_nan),
            LearningRate(optimizer if optimizer is not None else optimizers.adafactor()),
            *own_hooks,
            *evaluations,
            *([best] if best else []),
            *([WandbLog(wandb)] if wandb else []),
            *(MetricsLog(), Progress(log_period)),
            *([Profiling(profile)] if profile else []),
            Preemption(grace_seconds),
            Saving(checkpoint_period, keep_checkpoints, keep_every, best, hold.check),
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
            optimizer=optimizers.Tuning(
                optimizer,
                clip_norm,
                tuple(frozen),
                ema_decay,
                None if lora is None else optimizers.Lora(**lora),
                prompt_length,
            ),
            microbatches=microbatches,
            objective=Objective(loss_averaging, loss_on_inputs, z_loss, label_smoothing, dropout_rate),
            mesh_shape=mesh_shape,
            hooks=hooks,
            taken=starting.Start(initial_step, initial_optimizer_state, initial_map),
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
    """Restores the state, takes the remaining steps and calls the hooks; see `train`."""
    primary, program, mesh = distributed.is_primary(), run.program, given.mesh

    # -------------------------------------------------------------------------------- compare with what is there
    if on_damage == choosing.PREVIOUS:  # refuse another run before a step of this one is moved aside
        continued(folder, run, given.saved, distributed.decided(lambda: choosing.latest_step(folder)))
    start = choosing.choose_step(folder, on_damage)
    run, changes = continued(folder, run, given.saved, start)
    refuse_step_of_another(folder, run, start)
    if start is not None and start >= run.train_steps:
        if on_damage != choosing.PREVIOUS:  # with PREVIOUS it was read above
            choosing.refuse_damaged(folder, start)
        if primary:
            print(
                f"nothing to do: {folder} is at step {start}, and TRAIN_STEPS is {run.train_steps}; give TRAIN_STEPS "
                f"of more than {start} to train on, or another MODEL_DIR for a new run.",
                flush=True,
            )
        return RunResult(start, {})

    # -------------------------------------------------------------------------------------------------- restore
    network = given.tuning.adapted(models.build(program.config))
    composition, stream = open_mixture(
        given.prepared.mixture,
        prepared_dir,
        given.tokenizer,
        seed=run.seed,
        rows_per_batch=program.rows,
        lengths=program.lengths,
        encoder_decoder=bool(network.config.num_encoder_layers),
        loss_averaging=program.objective.loss_averaging,
        loss_on_inputs=program.objective.loss_on_inputs,
    )
    tuning = given.tuning
    shardings = state_shardings(mesh, network, tuning)
    state = _state(network, tuning, shardings, folder, start, run, given)
    place.check_room(folder, (saved_parts(network, state.params), state.opt_state, state.ema))
    if primary:
        whole = partitioning.undivided(mesh, network.logical_axes(), network.abstract_params())
        said = filter(None, [given.chosen, whole, getattr(tuning.made, "note", "")])
        lines = [*changes, *said, *records.earlier_drafts(given, stream, composition)]
        records.show(composition, run.train_steps * stream.draws_per_step, lines)
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
            tuning,
            len(stream.parts),
            program.microbatches,
            shardings,
            measure=called.measure if called.measures else None,
            accept=called.accept if called.accepts else None,
            objective=program.objective,
            seed=run.seed,
        ),
        in_shardings=(shardings, batch_shardings),
        out_shardings=(shardings, shardings.step),  # metrics lie whole on every device, like the step
        donate_argnums=0,
    )

    # ----------------------------------------------------------------------------------------------------- loop
    of_trained = tuning.shares(network)
    running: collections.deque[tuple[int, Mapping[str, jax.Array], Rows]] = collections.deque()
    context.held = lambda: (state, [sums for _, sums, _ in running])
    with called, prefetch(stream, step, rows=rows) as batches:
        figures = Figures(stream.parts, stream.slots_per_step, Machine(mesh, program.config.dtype))
        while step < run.train_steps and context.stopped is None:
            began = time.perf_counter()
            read = next(batches)
            waited = time.perf_counter() - began
            batch = partitioning.global_batch(read, batch_shardings, rows, program.rows)
            state, sums = train_step(state, batch)
            step += 1
            running.append((step, sums, Rows.of(network.config, read, len(rows) / program.rows, waited, of_trained)))
            # The devices compute a step while hooks are told about the last one, unless the devices have to wait.
            while len(running) > (0 if called.pauses(step) else 1):
                done, sums, of_rows = running.popleft()
                called.after_step(done, *figures.fetched(sums, of_rows), None if running else state)
                if not running:  # time that hooks took meanwhile is not part of the next step
                    figures.resumes()
    if context.stopped is not None and primary:
        print(f"stopped after step {step}: {context.stopped.reason}", flush=True)
    return RunResult(step, context.values, *(dataclasses.astuple(context.stopped) if context.stopped else ()))


def _state(
    network: models.Model,
    tuning: optimizers.Tuning,
    shardings: TrainState,
    model_dir: AnyPath,
    step: int | None,
    run: Run,
    given: Materials,
) -> TrainState:
    """The state to continue from. Each leaf is made on the devices that will hold it.

    Args:
      network: the model.
      tuning: what is trained, and how.
      shardings: the shardings of the state.
      model_dir: the run's own folder.
      step: the step of its checkpoint; None if there is none.
      run: says which step of the initial checkpoint to start from, and the seed.
      given: says where the parameters of step 0 are, and what else to take from there.

    Raises:
      FlanError: it cannot be read, or the parameters are not finite.
    """
    plain, axes = models.build(network.config), network.logical_axes()
    of_plain = partitioning.parameter_shardings(shardings.step.mesh, plain.logical_axes(), plain.abstract_params())
    begun: dict[str, Any] = {}
    checkpoint, taken = given.checkpoint, given.taken
    if step is not None:
        abstract = abstract_state(network, tuning)
        wanted = {
            stored.OPT_STATE: (abstract.opt_state, shardings.opt_state),
            stored.EMA: (abstract.ema, shardings.ema),
        }
        both = (saved_parts(network, tree.params) for tree in (abstract, shardings))
        wanted |= dict(zip((stored.PARAMS, stored.ADAPTERS), zip(*both, strict=True), strict=True))
        begun = arrays.restore_items(model_dir, {k: pair for k, pair in wanted.items() if pair[0] is not None}, step)
    if stored.PARAMS in begun:
        params = begun[stored.PARAMS]
    elif checkpoint and taken.map is not None and step is None:
        found = starting.sources(plain.abstract_params(), checkpoint, run.start["step"], taken.map)
        params = jax.jit(plain.init, out_shardings=of_plain)(jax.random.key(run.seed))
        params = starting.restored(checkpoint, run.start["step"], found, params, of_plain)
    elif checkpoint:
        of_step = run.start.get("step")
        params = arrays.restore_params(checkpoint, plain.abstract_params(), of_plain, of_step, choosing.START)
    else:
        params = jax.jit(plain.init, out_shardings=of_plain)(jax.random.key(run.seed))
    if tuning.keeps_base:
        laid_out = saved_parts(network, shardings.params)[1]
        make = jax.jit(network.adapters, out_shardings=laid_out)
        params = nested.merged(params, begun.get(stored.ADAPTERS) or make(jax.random.key(run.seed), params))
    opt_state, ema = begun.get(stored.OPT_STATE), begun.get(stored.EMA)
    origin = checkpoint or "the random start" if step is None else model_dir
    digests.refuse_not_finite(digests.measure(params), f"parameters of {origin}", "start from another checkpoint")
    if step is None:
        tx = optimizers.for_parameters(tuning, axes)
        opt_state = jax.jit(tx.init, out_shardings=shardings.opt_state)(params)
        if checkpoint and taken.optimizer_state:
            of_state = jax.eval_shape(tx.init, network.abstract_params()), shardings.opt_state
            opt_state = starting.optimizer_state(checkpoint, run.start["step"], opt_state, *of_state)
        if tuning.ema_decay is not None:  # a copy, because the step is given the memory of both
            ema = jax.tree.map(jnp.copy, trained_part(tuning, network)(params))
    return TrainState(jax.device_put(np.int32(step or 0), shardings.step), params, opt_state, ema)
