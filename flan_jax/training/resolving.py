"""Resolves and checks the arguments of a run in one place, and keeps what was opened for that."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from flan_jax import models, partitioning, parts
from flan_jax.checkpoint import adapters, choosing
from flan_jax.checkpoint.manifest import UNTUNED, Manifest
from flan_jax.data import stream, vocabularies
from flan_jax.data.mixture_stream import LENGTHS, Prepared, composed, separators
from flan_jax.errors import FlanError
from flan_jax.files import refuse_pattern, user_path
from flan_jax.models import automatic
from flan_jax.revision import code_revision
from flan_jax.training import optimizers, starting
from flan_jax.training.loss import CROSS_ENTROPY, Objective
from flan_jax.training.run import Program, Run
from flan_jax.training.starting import Start


@dataclasses.dataclass(frozen=True)
class Materials:
    """What resolving a run has opened or was given, so that nothing is opened twice.

    Attributes:
      manifest: the manifest of the model before this run; if the run continues, that of MODEL_DIR.
      tokenizer: the vocabulary.
      prepared: what the mixture consists of.
      mesh: the devices.
      tuning: what is trained, and how.
      saved: the run in MODEL_DIR, or None.
      checkpoint: where the parameters of step 0 are; None makes random ones.
      chosen: a line that says how the model is computed, if that was chosen automatically.
      base: the model that adapters change, if only adapters are trained.
      taken: what else to take from the checkpoint, and which parameters.
    """

    manifest: Manifest
    tokenizer: vocabularies.Tokenizer
    prepared: Prepared
    mesh: jax.sharding.Mesh
    tuning: optimizers.Tuning
    saved: Run | None
    checkpoint: str | None
    chosen: str = ""
    base: adapters.Base | None = None
    taken: Start = dataclasses.field(default_factory=Start)


def origin(
    initial_checkpoint_path: str | None,
    model: models.DecoderConfig | None,
    vocabulary: str | None,
    random_seed: int = 0,
) -> tuple[Manifest, vocabularies.Tokenizer]:
    """What a run starts from: the manifest of a checkpoint or of a random model, and the vocabulary.

    Raises:
      FlanError: neither a checkpoint nor a model is given, or they do not exist.
    """
    if initial_checkpoint_path:
        manifest = Manifest.load(initial_checkpoint_path)
        return manifest, manifest.load_vocabulary(initial_checkpoint_path)
    if model is None or vocabulary is None:
        raise FlanError("train: give INITIAL_CHECKPOINT_PATH, or a model and a VOCABULARY to start from random.")
    tokenizer = vocabularies.load(vocabulary)
    config = dataclasses.replace(model, vocab_size=max(model.vocab_size, tokenizer.vocab_size))
    return Manifest.create(config, tokenizer, UNTUNED, record={"random": random_seed}), tokenizer


def entries(prepared: Prepared) -> tuple[dict[str, Any], ...]:
    """What `Run.datasets` has of a prepared mixture: an entry for each of its parts."""
    names = ("part", "dataset", "style", "examples", "rate", "loss_weight", "joint")
    return tuple(
        {name: getattr(member, name) for name in names} | {"digest": prepared.digests[member.part]}
        for member in prepared.composition.members
    )


def _class_of(hook: Any) -> str:
    return f"{type(hook).__module__}:{type(hook).__qualname__}"


def share_of(
    mesh: Mapping[str, int], rows: int, lengths: Mapping[str, int] | None, microbatches: int
) -> automatic.Step:
    """A device's share of a step, for `automatic.chosen`. The arguments are those of `resolve`."""
    lengths = {**LENGTHS, **(lengths or {})}
    return automatic.Step(
        rows / (mesh["data"] * mesh["fsdp"] * microbatches),
        sum(lengths.values()),
        lengths["targets"],
        mesh["fsdp"] * mesh["tensor"],
        mesh["tensor"],
    )


def refuse_undivided(mesh: Mapping[str, int], rows: int, microbatches: int, names: Sequence[str]) -> None:
    """Refuses rows that cannot be divided evenly among the devices, because some would repeat the work of others.

    Args:
      mesh: the number of devices on each axis.
      rows: the rows of a step.
      microbatches: the number of parts in which they are computed.
      names: what the user calls the three.

    Raises:
      FlanError: the rows are no multiple of data x fsdp x microbatches.
    """
    shards = mesh["data"] * mesh["fsdp"]
    if rows % (shards * microbatches):
        raise FlanError(
            f"{names[1]} {rows} in {microbatches} {'part' if microbatches == 1 else 'parts'} ({names[2]}) cannot be "
            f"split over data x fsdp = {mesh['data']} x {mesh['fsdp']} devices: give a multiple of "
            f"{shards * microbatches}, or another {names[0]}."
        )


def resolve(
    *,
    model_dir: Path,
    mixture: str | Mapping[str, Any] | parts.Mixture,
    prepared_dir: str,
    train_steps: int,
    initial_checkpoint_path: str | None = None,
    model: models.DecoderConfig | None = None,
    vocabulary: str | None = None,
    batch_size: int = stream.ROWS_PER_BATCH,
    feature_lengths: Mapping[str, int] | None = None,
    computation: Mapping[str, Any] | str | None = None,
    random_seed: int = 0,
    optimizer: optimizers.Optimizer | optimizers.Tuning | None = None,
    microbatches: int = 1,
    objective: Objective = CROSS_ENTROPY,
    mesh_shape: Mapping[str, int] | None = None,
    hooks: Sequence[Any] = (),
    taken: Start = Start(),  # noqa: B008 - it cannot be changed
) -> tuple[Run, Materials]:
    """Resolves and checks the arguments of `loop.train`, which explains them. Nothing is written.

    If a run continues, model and vocabulary come from `model_dir`, since the initial checkpoint may be gone.

    Raises:
      FlanError: bad input, or values that do not fit each other, the data or the devices.
    """
    refuse_pattern(model_dir)
    saved = Run.load(model_dir)
    begun = saved is not None and choosing.latest_step(model_dir) is not None
    starting.refuse(taken, initial_checkpoint_path, model)
    if (
        begun
        and initial_checkpoint_path
        and saved.start.get("checkpoint") == str(initial_checkpoint_path)
        and taken.step in (None, saved.start.get("step"))
    ):
        names = ("checkpoint", "step", "manifest", "weights", "tuning")
        kept = {name: saved.start[name] for name in names if name in saved.start}
        manifest, start = Manifest.load(model_dir), kept | taken.described()
        tokenizer = manifest.load_vocabulary(model_dir)
    else:
        manifest, tokenizer = origin(initial_checkpoint_path, model, vocabulary, random_seed)
        start = {"random": random_seed}
        if initial_checkpoint_path:
            start = starting.of_checkpoint(initial_checkpoint_path, taken, manifest)
            if taken.map is not None:
                manifest = dataclasses.replace(manifest, model=model.to_dict())
                vocabularies.check_fits(tokenizer, model.vocab_size, "MODEL")
    config, mesh = models.DecoderConfig.from_dict(manifest.model), partitioning.make_mesh(**(mesh_shape or {}))
    share = share_of(mesh.shape, batch_size, feature_lengths, microbatches)
    computation, chosen = automatic.chosen(config, computation, automatic.Device.of(mesh.devices.flat[0]), share)
    config, tuning = config.computed(**computation), optimizers.Tuning.of(optimizer)
    # Before the optimizer is called, because optax's schedules turn their values into floats.
    program = Program.of(config, batch_size, feature_lengths, microbatches, tuning, objective)
    network = tuning.adapted(models.build(config))
    base = starting.base_of(initial_checkpoint_path, start, model_dir if begun else None) if tuning.keeps_base else None
    if taken.map is not None and tuning.keeps_base:
        raise FlanError(
            "LORA and PROMPT_LENGTH name the model that they change, which a map would make: leave INITIAL_MAP out."
        )
    if taken.map is not None and not begun:
        starting.sources(network.abstract_params(), initial_checkpoint_path, start["step"], taken.map)
    starting.refuse_offset(tuning.made, taken)
    if taken.optimizer_state and not begun:
        if tuning.keeps_base:
            raise FlanError(
                "LORA and PROMPT_LENGTH begin with adapters or a prompt of their own, of which no optimizer's state is "
                "there: leave INITIAL_OPTIMIZER_STATE out. A run that goes on has its own."
            )
        before = Run.load(user_path(initial_checkpoint_path))
        starting.refuse_another(initial_checkpoint_path, before and before.program.optimizer, program.optimizer)
        tx = optimizers.for_parameters(tuning, network.logical_axes())
        starting.refuse_unfit(
            initial_checkpoint_path, start["step"], jax.eval_shape(tx.init, network.abstract_params())
        )
    tuning.check(train_steps, network.abstract_params(), network.logical_axes())
    refuse_undivided(mesh.shape, batch_size, microbatches, ("MESH", "BATCH_SIZE", "MICROBATCHES"))
    models.refuse_attention(config.attention, mesh.devices.flat[0].platform)
    prepared = composed(mixture, prepared_dir, tokenizer.fingerprint)
    separators(prepared, tokenizer, bool(config.num_encoder_layers))
    devices = mesh.devices.flat
    run = Run(
        mixture=prepared.mixture.name,
        datasets=entries(prepared),
        absent=prepared.composition.absent,
        order=stream.ORDER,
        vocabulary=dict(manifest.vocabulary),
        start=start,
        seed=random_seed,
        program=program,
        train_steps=train_steps,
        mesh={name: int(size) for name, size in mesh.shape.items()},
        hosts={
            "platform": devices[0].platform,
            "kind": devices[0].device_kind,
            "devices": mesh.size,
            "processes": jax.process_count(),
        },
        hooks=tuple(hook if isinstance(hook, str) else _class_of(hook) for hook in hooks),
        code=code_revision(),
        recipe=dict(prepared.mixture.recipe),
    )
    opened = (manifest, tokenizer, prepared, mesh, tuning, saved)
    return run, Materials(*opened, initial_checkpoint_path, chosen, base, taken)
