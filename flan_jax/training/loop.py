"""The training loop, top to bottom: mesh, model, stream, state, step, checkpoints."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
from rich import progress

from flan_jax import catalog, distributed, macros, models, partitioning, styles
from flan_jax.checkpoint import arrays, digests
from flan_jax.checkpoint.manifest import UNTUNED, Manifest
from flan_jax.data import vocabularies
from flan_jax.data.mixture_stream import LENGTHS, open_mixture
from flan_jax.data.stream import prefetch
from flan_jax.errors import FlanError
from flan_jax.files import user_path, writable, write_atomic, written
from flan_jax.json_lines import first_not_finite
from flan_jax.training import optimizers
from flan_jax.training.metrics_log import MetricsLog
from flan_jax.training.state import TrainState, abstract_state, make_train_step, state_shardings

SEPARATOR = "eos"  # what stands between input and target in a packed segment (paper, section 2.4)


@dataclasses.dataclass(frozen=True)
class RunResult:
    """Where a run ended.

    Attributes:
      step: steps taken in all.
      metrics: the last step's figures.
    """

    step: int
    metrics: dict[str, Any]


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
    batch_size: int = 8,
    feature_lengths: Mapping[str, int] | None = None,
    computation: Mapping[str, Any] | None = None,
    random_seed: int = 0,
    optimizer: optimizers.Optimizer | None = None,
    microbatches: int = 1,
    mesh_shape: Mapping[str, int] | None = None,
    checkpoint_period: int = 1_000,
    keep_checkpoints: int = 2,
    log_period: int = 10,
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
      computation: fields of `models.config.COMPUTATION` that differ from the model's own, for this run.
      random_seed: seeds the initial parameters and the stream.
      optimizer: an optax transformation, or what makes one for a model (`optimizers.for_parameters`); default
        Adafactor at 3e-5.
      microbatches: gradient accumulation.
      mesh_shape: sizes of the axes data, fsdp and tensor; -1 takes what is left.
      checkpoint_period: steps between checkpoints; the last step is always saved.
      keep_checkpoints: how many of them stay.
      log_period: steps between printed lines where the output is no terminal.
      config_text: the run's gin configuration, kept as config.gin.

    Raises:
      FlanError: bad input, or a loss that is not finite.
    """
    folder = user_path(model_dir, "MODEL_DIR")
    lengths = {**LENGTHS, **(feature_lengths or {})}

    # ------------------------------------------------------------------------------------------- model and data
    if initial_checkpoint_path:
        manifest = Manifest.load(initial_checkpoint_path)
        tokenizer = manifest.load_vocabulary(initial_checkpoint_path)
    elif model is not None and vocabulary is not None:
        tokenizer = vocabularies.load(vocabulary)
        shape = dataclasses.replace(model, vocab_size=max(model.vocab_size, tokenizer.vocab_size))
        manifest = Manifest.create(shape, tokenizer, UNTUNED, record={"random": random_seed})
    else:
        raise FlanError("train: give INITIAL_CHECKPOINT_PATH, or a model and a VOCABULARY to start from random.")
    network = models.build(models.DecoderConfig.from_dict(manifest.model).computed(**(computation or {})))

    composition, stream = open_mixture(
        mixture,
        prepared_dir,
        tokenizer,
        seed=random_seed,
        rows_per_batch=batch_size,
        lengths=lengths,
        encoder_decoder=bool(network.config.num_encoder_layers),
    )

    # ------------------------------------------------------------------------------------------ mesh and state
    mesh = partitioning.make_mesh(**(mesh_shape or {}))
    tx = optimizers.for_parameters(optimizer or optimizers.adafactor(), network.logical_axes())
    models.refuse_attention(network.config.attention, mesh.devices.flat[0].platform)
    shardings = state_shardings(mesh, network, tx)
    primary = distributed.is_primary()
    if primary and (line := partitioning.undivided(mesh, network.logical_axes(), network.abstract_params())):
        print(line, flush=True)
    # Asked of all, so that none has made the folder yet when another looks.
    resumed = distributed.everywhere(arrays.latest_step(folder) is not None)
    if resumed:
        abstract = abstract_state(network, tx)
        step, params, opt_state = arrays.restore_training(
            folder, (abstract.params, abstract.opt_state), (shardings.params, shardings.opt_state)
        )
        state = TrainState(jax.device_put(np.int32(step), shardings.step), params, opt_state)
    else:
        state = _initial_state(network, tx, shardings, initial_checkpoint_path, random_seed)
    origin = folder if resumed else initial_checkpoint_path or "the random start"
    digests.refuse_not_finite(digests.measure(state.params), f"parameters of {origin}", "start from another checkpoint")
    start = int(state.step)
    if start >= train_steps:
        if primary:
            print(
                f"nothing to do: {model_dir} is at step {start}, and TRAIN_STEPS is {train_steps}; give TRAIN_STEPS of "
                f"more than {start} to train on, or another MODEL_DIR for a new run.",
                flush=True,
            )
        return RunResult(start, {})

    if primary:
        writable(folder)
        with written(folder / "vocabulary"):
            tokenizer.save(folder / "vocabulary")
        write_atomic(folder / "config.gin", config_text)
    record = {
        "tuned on": mixture,
        "absent": list(composition.absent),
        "composition": composition.over(train_steps * stream.draws_per_step).to_dict(),
        "from": str(initial_checkpoint_path),
        "steps": train_steps,
        "batch_size": batch_size,
        "seed": random_seed,
    }
    if primary and resumed:  # what is restored may have been tuned on another mixture before
        manifest = _before_this_run(Manifest.load(folder), record)
    about = {"style": styles.split_name(mixture)[1].name, "vocabulary": tokenizer.fingerprint}
    if primary:
        manifest.inherit(
            datasets=[m.dataset for m in composition.members],
            clusters=sorted(composition.cluster_shares),
            separator=SEPARATOR,
            record=record,
            text=[one | about for one in stream.text],
        ).save(folder)

    # ----------------------------------------------------------------------------------------------------- step
    rows = partitioning.local_rows(mesh, batch_size)
    one_row = stream.batch(start, rows[:1])
    batch_shapes = {k: jax.ShapeDtypeStruct((batch_size, *x.shape[1:]), x.dtype) for k, x in one_row.items()}
    batch_shardings = partitioning.batch_shardings(mesh, batch_shapes)
    train_step = jax.jit(
        make_train_step(network, tx, len(stream.datasets), microbatches, shardings),
        in_shardings=(shardings, batch_shardings),
        out_shardings=(shardings, shardings.step),  # metrics lie whole on every device, like the step
        donate_argnums=0,
    )

    # ----------------------------------------------------------------------------------------------------- loop
    values: dict[str, Any] = {}
    with (
        mesh,
        MetricsLog(folder, start) if primary else contextlib.nullcontext() as log,
        arrays.Saver(folder, keep=keep_checkpoints) as saver,
        _progress(train_steps, start) if primary else contextlib.nullcontext() as bar,
        prefetch(stream, start, rows=rows) as batches,
    ):
        began = time.perf_counter()

        def account(step: int, sums: Mapping[str, jax.Array]) -> None:
            nonlocal began, values
            now, host = _wait(sums)
            values = _figures(host, stream.datasets, now - began, stream.slots_per_step)
            began = now
            if (broken := first_not_finite(values)) is not None:
                saver.wait()
                norms = {name: values[name] for name in ("loss", "gradient_norm", "parameter_norm")}
                raise _diverged(step, norms | {broken[0]: broken[1]}, folder)
            if primary:
                log.write(step, values)
                bar(step, values, step % log_period == 0)

        running: collections.deque[tuple[int, Mapping[str, jax.Array]]] = collections.deque()
        for step in range(start + 1, train_steps + 1):
            batch = partitioning.global_batch(next(batches), batch_shardings, rows, batch_size)
            state, sums = train_step(state, batch)
            saver.check()
            running.append((step, sums))
            save = step % checkpoint_period == 0 or step == train_steps
            while len(running) > (0 if save else 1):  # the devices compute a step while the host accounts for the last
                account(*running.popleft())
            if save:
                if primary:
                    log.flush()
                saver.save(step, state.params, state.opt_state)
    return RunResult(train_steps, values)


def _before_this_run(manifest: Manifest, record: Mapping[str, Any]) -> Manifest:
    """The manifest without the entry that a run stopped part-way has made, so that every run has one entry."""
    last = manifest.history[-1] if manifest.history else {}
    kept = [name for name in record if name not in ("steps", "composition")]  # which grow with the length of the run
    same = all(last.get(name) == record[name] for name in kept)
    return dataclasses.replace(manifest, history=manifest.history[:-1]) if same else manifest


def _diverged(step: int, norms: Mapping[str, float], folder: Path) -> FlanError:
    """The error of figures that are not finite; names the last checkpoint, all of which are finite."""
    saved = arrays.latest_step(folder)
    where = f"{folder} holds no checkpoint" if saved is None else f"The last checkpoint in {folder} is of step {saved}"
    remedy = "lower the learning rate and run again" + ("" if saved is None else " to go on from it")
    figures = ", ".join(f"{name} {value}" for name, value in norms.items())
    return FlanError(f"step {step} is not finite ({figures}); stopped. {where}; {remedy}.")


def _initial_state(
    network: models.Model,
    tx: optax.GradientTransformation,
    shardings: TrainState,
    checkpoint: str | None,
    seed: int,
) -> TrainState:
    """Step 0, each leaf made on the devices that will hold it."""
    if checkpoint:
        params = arrays.restore_params(checkpoint, network.abstract_params(), shardings.params)
    else:
        params = jax.jit(network.init, out_shardings=shardings.params)(jax.random.key(seed))
    opt_state = jax.jit(tx.init, out_shardings=shardings.opt_state)(params)
    return TrainState(jax.device_put(np.int32(0), shardings.step), params, opt_state)


def _wait(sums: Mapping[str, jax.Array]) -> tuple[float, dict[str, np.ndarray]]:
    """Fetches a step's sums; the time is taken when they have arrived."""
    host = jax.device_get(dict(sums))
    return time.perf_counter(), host


def _figures(
    sums: Mapping[str, np.ndarray], datasets: tuple[str, ...], seconds: float, num_slots: int
) -> dict[str, Any]:
    """A step's metrics: means over target tokens, rates per second."""
    weight = max(float(sums["weight"]), 1.0)
    by_cluster: dict[str, list[float]] = {}
    for name, total, count in zip(datasets, sums["dataset_loss"], sums["dataset_weight"], strict=True):
        pair = by_cluster.setdefault(catalog.dataset(name).cluster, [0.0, 0.0])
        pair[0] += float(total)
        pair[1] += float(count)
    return {
        "loss": float(sums["loss"]) / weight,
        "accuracy": float(sums["correct"]) / weight,
        "gradient_norm": float(sums["gradient_norm"]),
        "parameter_norm": float(sums["parameter_norm"]),
        "target_tokens": int(sums["weight"]),
        "slots_filled": float(sums["slots_filled"]) / num_slots,
        "tokens_per_second": float(sums["slots_filled"]) / max(seconds, 1e-9),
        "seconds": seconds,
        "dataset_loss": {
            name: float(total / count)
            for name, total, count in zip(datasets, sums["dataset_loss"], sums["dataset_weight"], strict=True)
            if count
        },
        "cluster_loss": {name: total / count for name, (total, count) in by_cluster.items() if count},
    }


class _progress:
    """A progress bar in a terminal, a line every so many steps elsewhere; a context manager."""

    def __init__(self, train_steps: int, start: int) -> None:
        self._total, self._start = train_steps, start
        self._bar = progress.Progress(
            progress.TextColumn("training"),
            progress.BarColumn(),
            progress.MofNCompleteColumn(),
            progress.TimeRemainingColumn(),
            progress.TextColumn("{task.fields[figures]}"),
        )

    def __enter__(self) -> Any:
        self._task = self._bar.add_task("training", total=self._total, completed=self._start, figures="")
        self._bar.__enter__()
        return self._update

    def __exit__(self, *error: Any) -> None:
        self._bar.__exit__(*error)

    def _update(self, step: int, values: Mapping[str, Any], print_line: bool) -> None:
        figures = (
            f"loss {values['loss']:.3f}  accuracy {values['accuracy']:.3f}  "
            f"{values['tokens_per_second']:.0f} tokens/s  filled {values['slots_filled']:.3f}"
        )
        self._bar.update(self._task, completed=step, figures=figures)
        if print_line and not self._bar.console.is_terminal:
            print(f"step {step}/{self._total}  {figures}", flush=True)
