"""The run: what a training is, resolved and validated in one place, and kept as MODEL_DIR/run.json from step 0 on.

Every start compares itself with that file. What may change, such as the steps and the mesh, is in `MAY_CHANGE`;
anything else would make it another run, and is refused by its name.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from flan_jax import models, partitioning, parts
from flan_jax.checkpoint import adapters, arrays
from flan_jax.checkpoint.manifest import UNTUNED, Manifest
from flan_jax.data import stream, vocabularies
from flan_jax.data.mixture_stream import LENGTHS, Prepared, composed, separators
from flan_jax.data.mixtures import Member
from flan_jax.errors import FlanError
from flan_jax.files import user_path, write_atomic
from flan_jax.models import automatic
from flan_jax.models.config import COMPUTATION
from flan_jax.parts import kinds
from flan_jax.protocol import EOS
from flan_jax.revision import code_revision
from flan_jax.training import optimizers, starting
from flan_jax.training.described import describe, flat
from flan_jax.training.loss import CROSS_ENTROPY, Objective
from flan_jax.training.starting import Start
from flan_jax.values import shown

FILE = "run.json"
FORMAT = 1  # of the file
_OWN = "digest"  # of the other entries, in the file

_COMPOSITION = "composition."  # before the name of a part, where runs are compared

# What may differ from one start to the next, by name or by the beginning of one. Another way to compute the same
# numbers is among them, up to rounding, as another mesh is; another dtype is not.
MAY_CHANGE = ("train_steps", "mesh", "hosts", "hooks", "code", "changes", "format")
MAY_CHANGE += tuple(f"program.computation.{name}" for name in COMPUTATION if name != "dtype")

# What a user calls it, where that is something else.
_NAMES = {
    "mixture": "MIXTURE_OR_TASK_NAME",
    **{f"recipe.{key}": key.upper() for key in kinds.BY_KEY},
    "seed": "RANDOM_SEED",
    "start": "INITIAL_CHECKPOINT_PATH",
    "train_steps": "TRAIN_STEPS",
    "mesh": "MESH",
    "hooks": "HOOKS",
    "program.model": "MODEL",
    "program.computation": "COMPUTATION",
    "program.rows": "BATCH_SIZE",
    "program.inputs": "TASK_FEATURE_LENGTHS.inputs",
    "program.targets": "TASK_FEATURE_LENGTHS.targets",
    "program.microbatches": "MICROBATCHES",
    "program.optimizer": "optimizer",
    "program.objective.loss_averaging": "LOSS_AVERAGING",
    "program.objective.loss_on_inputs": "LOSS_ON_INPUTS",
    "program.objective.z_loss": "Z_LOSS",
    "program.objective.label_smoothing": "LABEL_SMOOTHING",
    "program.objective.dropout_rate": "DROPOUT_RATE",
    "program.clip_norm": "CLIP_NORM",
    "program.frozen": "FROZEN",
    "program.ema_decay": "EMA_DECAY",
    "program.lora": "LORA",
    "program.prompt_length": "PROMPT_LENGTH",
}


@dataclasses.dataclass(frozen=True)
class Program:
    """What the devices compute at a step.

    Attributes:
      model: the fields of `DecoderConfig` that say what the model is.
      computation: those that say how it is computed, `models.config.COMPUTATION`.
      rows: packed rows a step.
      inputs: slots of a row besides the target slots; of the encoder's row, where there is one.
      targets: target slots of a row.
      microbatches: parts that the rows are computed in.
      optimizer: `described.describe` of it.
      clip_norm: largest global norm of the gradient, or None.
      frozen: patterns of the parameters that are not trained.
      ema_decay: of the mean of parameters over steps, or None.
      lora: rank, alpha and targets of adapters, or None.
      prompt_length: slots of a soft prompt, or None.
      objective: what a step minimises. A file of an earlier version has none: then it was the mean cross entropy.
    """

    model: dict[str, Any]
    computation: dict[str, Any]
    rows: int
    inputs: int
    targets: int
    microbatches: int
    optimizer: Any
    clip_norm: float | None = None
    frozen: tuple[str, ...] = ()
    ema_decay: float | None = None
    lora: dict[str, Any] | None = None
    prompt_length: int | None = None
    objective: Objective = CROSS_ENTROPY

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Program:
        """From what a file has."""
        return cls(**{**values, "objective": Objective(**values.get("objective", {}))})

    @classmethod
    def of(
        cls,
        config: models.DecoderConfig,
        rows: int,
        lengths: Mapping[str, int] | None,
        microbatches: int,
        optimizer: optimizers.Optimizer | optimizers.Tuning | None,
        objective: Objective = CROSS_ENTROPY,
    ) -> Program:
        """The program of a model and a batch; what is None has its default.

        Raises:
          FlanError: an objective that the model, or what is trained of it, cannot have.
        """
        fields, lengths = config.to_dict(), {**LENGTHS, **(lengths or {})}
        objective.capacities(config, lengths["inputs"], lengths["targets"])
        tuning = optimizers.Tuning.of(optimizer)
        if tuning.prompt_length is not None and objective.dropout_rate:
            raise FlanError(
                f"DROPOUT_RATE is {objective.dropout_rate:g}, and a soft prompt is computed once for all rows, which "
                "drop different numbers: set DROPOUT_RATE=0 with PROMPT_LENGTH."
            )
        return cls(
            model={name: value for name, value in fields.items() if name not in COMPUTATION},
            computation={name: fields[name] for name in COMPUTATION},
            rows=rows,
            inputs=lengths["inputs"],
            targets=lengths["targets"],
            microbatches=microbatches,
            optimizer=describe(tuning.made),
            clip_norm=tuning.clip_norm,
            frozen=tuning.frozen,
            ema_decay=tuning.ema_decay,
            lora=None if tuning.lora is None else dataclasses.asdict(tuning.lora),
            prompt_length=tuning.prompt_length,
            objective=objective,
        )

    @property
    def config(self) -> models.DecoderConfig:
        """The model, computed so."""
        return models.DecoderConfig.from_dict(self.model | self.computation)

    @property
    def lengths(self) -> dict[str, int]:
        """TASK_FEATURE_LENGTHS."""
        return {"inputs": self.inputs, "targets": self.targets}


@dataclasses.dataclass(frozen=True)
class Run:
    """What a training is.

    Attributes:
      mixture: the mixture's name.
      datasets: parts of the mixture, in the order of the stream: {"part", "dataset", "style", "examples", "rate",
        "loss_weight", "joint", "digest": of its tokens}. Before there were parts, an entry had no "part", "style",
        "loss_weight" and "joint", and was its dataset in the style of the mixture's name.
      absent: datasets of the mixture that are not there.
      order: version of the order in which a stream draws, `data.stream.ORDER`.
      vocabulary: kind, fingerprint and a digest of what else it says, as in the manifest.
      start: {"checkpoint", "step", "manifest": its digest}, or {"random": the seed}.
      seed: of the first parameters and of the stream.
      program: what the devices compute at a step.
      train_steps: steps in all.
      mesh: how many devices each axis has.
      hosts: {"platform", "kind", "devices", "processes"}.
      hooks: what a user has added, by name.
      code: the revision of the code.
      changes: what changed at later starts: {"when", "step": steps taken before, "changed": {name: [old, new]}}.
      recipe: what makes the mixture more than its name, `parts.Mixture.recipe`.
    """

    mixture: str
    datasets: tuple[dict[str, Any], ...]
    absent: tuple[str, ...]
    order: int
    vocabulary: dict[str, Any]
    start: dict[str, Any]
    seed: int
    program: Program
    train_steps: int
    mesh: dict[str, int]
    hosts: dict[str, Any]
    hooks: tuple[Any, ...] = ()
    code: str = ""
    changes: tuple[dict[str, Any], ...] = ()
    recipe: dict[str, Any] = dataclasses.field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        return json.loads(json.dumps({"format": FORMAT, **dataclasses.asdict(self)}))

    def save(self, model_dir: Path) -> None:
        """Writes MODEL_DIR/run.json, whole or not at all."""
        values = self.to_dict()
        write_atomic(model_dir / FILE, json.dumps(values | {_OWN: _digest(values)}, indent=1) + "\n")

    @classmethod
    def load(cls, model_dir: Path) -> Run | None:
        """Reads MODEL_DIR/run.json; None where there is none.

        Raises:
          FlanError: it is broken, not as it was saved, or of a newer version.
        """
        path = model_dir / FILE
        remedy = "restore it, or delete it: then the next start compares itself with manifest.json and writes it anew"
        try:
            text = path.read_text(encoding="utf-8")
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, UnicodeDecodeError) as error:
            raise FlanError(f"{path} cannot be read ({error}); {remedy}.") from error
        try:
            values = json.loads(text)
            version = values.pop("format")
            if not isinstance(version, int) or version > FORMAT:
                raise FlanError(
                    f"{path} is of a newer version of FLAN-JAX (format {shown(version)}; this one reads {FORMAT}): "
                    "use that version."
                )
            own = values.pop(_OWN, None)
            if own not in (None, _digest({"format": version, **values})):
                raise FlanError(
                    f"{path} is damaged: it does not fit its own digest; restore it, or, where it was edited on "
                    f'purpose, delete its entry "{_OWN}".'
                )
            lists = {name: tuple(values[name]) for name in ("datasets", "absent", "hooks", "changes")}
            run = cls(**values | lists | {"program": Program.from_dict(values["program"])})
            _check_types(run)
            return run
        except FlanError:
            raise  # it says what to do already
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise FlanError(f"{path} is broken ({type(error).__name__}: {error}); {remedy}.") from error


def _check_types(run: Run) -> None:
    """Raises a TypeError where what was read cannot be a run."""
    types = {"mixture": str, "vocabulary": dict, "start": dict, "seed": int, "train_steps": int, "mesh": dict}
    for name, kind in (types | {"recipe": dict}).items():
        if not isinstance(getattr(run, name), kind):
            raise TypeError(f"{name} is {shown(getattr(run, name))}")
    if not all(
        isinstance(one, dict) and {"dataset", "examples", "rate", "digest"} <= one.keys() for one in run.datasets
    ):
        raise TypeError("datasets are not as they were written")


def _digest(values: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


# ------------------------------------------------------------------------------------------------------- comparing


def differences(old: Run, new: Run) -> list[tuple[str, Any, Any]]:
    """What makes the two different runs: (name, old value, new value), by the names that a user gives."""
    return [(_called(name), *pair) for name, pair in _compared(old, new).items() if not _may_change(name)]


def changed(old: Run, new: Run) -> list[tuple[str, Any, Any]]:
    """What differs and may; as `differences`."""
    return [(_called(name), *pair) for name, pair in _compared(old, new).items() if _may_change(name)]


def _may_change(name: str) -> bool:
    return any(name == free or name.startswith(f"{free}.") for free in MAY_CHANGE)


def _called(name: str) -> str:
    """A field's name as a user knows it."""
    for known in sorted(_NAMES, key=len, reverse=True):
        if name == known or name.startswith(f"{known}."):
            return _NAMES[known] + name[len(known) :]
    return name


def _compared(old: Run, new: Run) -> dict[str, tuple[Any, Any]]:
    """The fields in which two runs differ, by dotted name; a part is one field.

    Two recipes for the same parts are the same.
    """
    before, after = _fields(old), _fields(new)
    names = dict.fromkeys([*before, *after])
    found = {name: (before.get(name), after.get(name)) for name in names if before.get(name) != after.get(name)}
    if not _same_start(old.start, new.start):
        found["start"] = _named_start(old.start), _named_start(new.start)
    orders = [[part_of(one) for one in run.datasets] for run in (old, new)]
    if orders[0] != orders[1] and set(orders[0]) == set(orders[1]):
        found["order of datasets"] = tuple(orders)
    if not any(name == "mixture" or name.startswith(_COMPOSITION) for name in found):
        found = {name: pair for name, pair in found.items() if not name.startswith("recipe.")}
    elif any(name.startswith("recipe.") for name in found):  # which says why parts are drawn otherwise
        data = [{part_of(one): (one["examples"], one["digest"]) for one in run.datasets} for run in (old, new)]
        same = {f"{_COMPOSITION}{part}" for part, one in data[0].items() if data[1].get(part) == one}
        found = {name: pair for name, pair in found.items() if name not in same}
    return found


def part_of(entry: Mapping[str, Any]) -> str:
    """The part of an entry of `Run.datasets`, by its name."""
    return entry.get("part", entry["dataset"])


def drawn(entry: Mapping[str, Any]) -> str:
    """How a part is drawn and weighted, for comparing: of `Run.datasets`, or of a composition's members."""
    weight, joint = entry.get("loss_weight", 1.0), entry.get("joint", EOS)
    said = f"{entry['examples']} examples at rate {entry['rate']}"
    return said + (f", loss weight {weight}" if weight != 1 else "") + (f", joint {joint}" if joint != EOS else "")


def _fields(run: Run) -> dict[str, Any]:
    values = run.to_dict()
    for name in ("datasets", "absent", "start", "changes", "format", "hooks", *([] if run.recipe else ["recipe"])):
        del values[name]
    by_part = {f"{_COMPOSITION}{part_of(one)}": f"{drawn(one)}, data {one['digest'][:12]}" for one in run.datasets}
    return flat(values) | by_part | {"hooks": [*map(str, run.hooks)]}


def _same_start(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    """Whether both start from the same parameters, by content, wherever they lie; two seeds differ as seeds."""
    if "random" in old and "random" in new:
        return True
    names = ("manifest", "step", "optimizer_state", "map")
    return old.get("manifest") is not None and all(old.get(name) == new.get(name) for name in names)


def _named_start(start: Mapping[str, Any]) -> str | None:
    if "random" in start:
        return None
    more = ", with the optimizer's state" if start.get("optimizer_state") else ""
    more += f", by INITIAL_MAP {shown(start['map'])}" if "map" in start else ""
    return f"{start.get('checkpoint')} (step {start.get('step')}, manifest {str(start.get('manifest'))[:12]}{more})"


# ------------------------------------------------------------------------------------------------------- resolving


@dataclasses.dataclass(frozen=True)
class Materials:
    """What resolving a run has opened or was given, so that nobody opens it again.

    Attributes:
      manifest: of the model before this run, or of MODEL_DIR where the run goes on.
      tokenizer: the vocabulary.
      prepared: what the mixture consists of.
      mesh: the devices.
      tuning: what is trained, and how.
      saved: the run in MODEL_DIR, or None.
      checkpoint: where the parameters of step 0 are; None makes random ones.
      chosen: a line that says how the model is computed, where that was chosen here.
      base: the model that adapters change, where only these are trained.
      taken: what else than parameters is taken from there, and which of them.
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
    """What a run starts from: the checkpoint's manifest, or that of a random model, and the vocabulary.

    Raises:
      FlanError: neither a checkpoint nor a model is given, or they are not there.
    """
    if initial_checkpoint_path:
        manifest = Manifest.load(initial_checkpoint_path)
        return manifest, manifest.load_vocabulary(initial_checkpoint_path)
    if model is None or vocabulary is None:
        raise FlanError("train: give INITIAL_CHECKPOINT_PATH, or a model and a VOCABULARY to start from random.")
    tokenizer = vocabularies.load(vocabulary)
    config = dataclasses.replace(model, vocab_size=max(model.vocab_size, tokenizer.vocab_size))
    return Manifest.create(config, tokenizer, UNTUNED, record={"random": random_seed}), tokenizer


def _entry(member: Member, digest: str) -> dict[str, Any]:
    """A part in `Run.datasets`."""
    names = ("part", "dataset", "style", "examples", "rate", "loss_weight", "joint")
    return {name: getattr(member, name) for name in names} | {"digest": digest}


def _class_of(hook: Any) -> str:
    return f"{type(hook).__module__}:{type(hook).__qualname__}"


def share_of(
    mesh: Mapping[str, int], rows: int, lengths: Mapping[str, int] | None, microbatches: int
) -> automatic.Step:
    """What a device has of a step, as `automatic.chosen` asks for it. Arguments as in `resolve`."""
    lengths = {**LENGTHS, **(lengths or {})}
    return automatic.Step(
        rows / (mesh["data"] * mesh["fsdp"] * microbatches),
        sum(lengths.values()),
        lengths["targets"],
        mesh["fsdp"] * mesh["tensor"],
        mesh["tensor"],
    )


def refuse_undivided(mesh: Mapping[str, int], rows: int, microbatches: int, names: Sequence[str]) -> None:
    """Refuses rows that the devices do not share evenly: some would compute what others compute as well.

    Args:
      mesh: how many devices each axis has.
      rows: of a step.
      microbatches: parts that they are computed in.
      names: what the user calls the three.

    Raises:
      FlanError: rows are no multiple of data x fsdp x microbatches.
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
    """Resolves and validates the arguments of `loop.train`, which says what they are; nothing is written.

    Of a run that goes on, model and vocabulary are those in `model_dir`: the initial checkpoint may be gone.

    Raises:
      FlanError: bad input, or values that do not fit each other, the data or the devices.
    """
    saved = Run.load(model_dir)
    begun = saved is not None and arrays.latest_step(model_dir) is not None
    starting.refuse(taken, initial_checkpoint_path, model)
    if (
        begun
        and initial_checkpoint_path
        and saved.start.get("checkpoint") == str(initial_checkpoint_path)
        and taken.step in (None, saved.start.get("step"))
    ):
        kept = {name: saved.start.get(name) for name in ("checkpoint", "step", "manifest")}
        manifest, start = Manifest.load(model_dir), kept | taken.described()
        tokenizer = manifest.load_vocabulary(model_dir)
    else:
        manifest, tokenizer = origin(initial_checkpoint_path, model, vocabulary, random_seed)
        start = {"random": random_seed}
        if initial_checkpoint_path:
            step = starting.step_of(initial_checkpoint_path, taken)
            start = {"checkpoint": str(initial_checkpoint_path), "step": step, "manifest": manifest.digest()}
            start |= taken.described()
            if taken.map is not None:
                manifest = dataclasses.replace(manifest, model=model.to_dict())
                vocabularies.check_fits(tokenizer, model.vocab_size, "MODEL")
    config, mesh = models.DecoderConfig.from_dict(manifest.model), partitioning.make_mesh(**(mesh_shape or {}))
    share = share_of(mesh.shape, batch_size, feature_lengths, microbatches)
    computation, chosen = automatic.chosen(config, computation, automatic.Device.of(mesh.devices.flat[0]), share)
    config, tuning = config.computed(**computation), optimizers.Tuning.of(optimizer)
    # Before the optimizer is called: optax's schedules turn what they hold into floats.
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
        datasets=tuple(_entry(m, prepared.digests[m.part]) for m in prepared.composition.members),
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
