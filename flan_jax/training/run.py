"""The run: the record of a training, kept as MODEL_DIR/run.json from step 0 on.

Every start is compared with that file. `comparing.MAY_CHANGE` lists what may differ, such as the steps and the mesh.
Any other difference would make it another run, and is refused by name.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from flan_jax import models
from flan_jax.data.mixture_stream import LENGTHS
from flan_jax.errors import FlanError
from flan_jax.files import AnyPath, write_atomic
from flan_jax.models.config import COMPUTATION
from flan_jax.training import optimizers
from flan_jax.training.described import describe
from flan_jax.training.loss import CROSS_ENTROPY, Objective
from flan_jax.values import shown

FILE = "run.json"
FORMAT = 1  # version of the file
_OWN = "digest"  # the key for the digest of the other entries
_REMEDY = "restore it, or delete it: then the next start compares itself with manifest.json and writes it anew"

# What entries have to be, in what is read: those of a run, of its program, of its start and of a part.
_OF_RUN = {"mixture": str, "order": int, "vocabulary": dict, "start": dict, "seed": int, "train_steps": int}
_OF_RUN |= {"mesh": dict, "hosts": dict, "code": str, "recipe": dict}
_OF_PROGRAM = {"model": dict, "computation": dict, "rows": int, "inputs": int, "targets": int, "microbatches": int}
_OF_START = {"checkpoint": str, "step": int, "manifest": str, "weights": str, "tuning": str, "map": dict}
_OF_PART = {"dataset": str, "examples": int, "rate": float, "digest": str}
_OF_PART_OR_ABSENT = {"part": str, "style": str, "loss_weight": float, "joint": str}
_LISTS = ("datasets", "absent", "hooks", "changes")


@dataclasses.dataclass(frozen=True)
class Program:
    """What the devices compute at a step.

    Attributes:
      model: the fields of `DecoderConfig` that say what the model is.
      computation: the fields that say how it is computed, `models.config.COMPUTATION`.
      rows: packed rows of a step.
      inputs: slots of a row besides its target slots; for an encoder-decoder, slots of the encoder's row.
      targets: target slots of a row.
      microbatches: the number of parts in which the rows are computed.
      optimizer: its description by `described.describe`.
      clip_norm: largest global norm of the gradient, or None.
      frozen: patterns of the parameters that are not trained.
      ema_decay: decay of the mean of parameters over steps, or None.
      lora: rank, alpha and targets of adapters, or None.
      prompt_length: slots of a soft prompt, or None.
      objective: what a step minimises. Files of earlier versions lack it; then it was the mean cross entropy.
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
        """Reads what a file has."""
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
        """The program of a model and a batch. An argument that is None has its default.

        Raises:
          FlanError: an objective that does not fit the model, or what is trained of it.
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
        """The model with these settings of the computation."""
        return models.DecoderConfig.from_dict(self.model | self.computation)

    @property
    def lengths(self) -> dict[str, int]:
        """TASK_FEATURE_LENGTHS."""
        return {"inputs": self.inputs, "targets": self.targets}


@dataclasses.dataclass(frozen=True)
class Run:
    """The record of a training.

    Attributes:
      mixture: the mixture's name.
      datasets: the parts of the mixture, in the order of the stream: {"part", "dataset", "style", "examples", "rate",
        "loss_weight", "joint", "digest": of its tokens}. Files from before there were parts lack "part", "style",
        "loss_weight" and "joint"; an entry was then a dataset in the style of the mixture's name.
      absent: datasets of the mixture that are not prepared.
      order: the version of the order in which a stream draws, `data.stream.ORDER`.
      vocabulary: kind, fingerprint, and a digest of its other entries, as in the manifest.
      start: {"checkpoint", "step", "manifest": its digest, "weights": their digest, "tuning": the digest of the
        manifest's entry}, or {"random": the seed}.
      seed: the seed of the first parameters and the stream.
      program: what the devices compute at a step.
      train_steps: steps in all.
      mesh: the number of devices on each axis.
      hosts: {"platform", "kind", "devices", "processes"}.
      hooks: the user's own hooks, by name.
      code: the revision of the code.
      changes: what changed at later starts: {"when", "step": steps taken before, "changed": {name: [old, new]}}.
      recipe: what the mixture adds to its name, `parts.Mixture.recipe`.
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
        """The run as values that JSON can hold."""
        return json.loads(json.dumps({"format": FORMAT, **dataclasses.asdict(self)}))

    def save(self, model_dir: AnyPath) -> None:
        """Writes MODEL_DIR/run.json, whole or not at all."""
        values = self.to_dict()
        write_atomic(model_dir / FILE, json.dumps(values | {_OWN: _digest(values)}, indent=1) + "\n")

    @classmethod
    def load(cls, model_dir: AnyPath, remedy: str = _REMEDY) -> Run | None:
        """Reads MODEL_DIR/run.json; None if there is none.

        Args:
          model_dir: MODEL_DIR.
          remedy: what to do where it cannot be read or is broken, for the message; by default, for a start of the run.

        Raises:
          FlanError: it is broken, was changed, or belongs to a newer version.
        """
        path = model_dir / FILE
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
        except FlanError:
            raise  # its message already says what to do
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise FlanError(f"{path} is broken ({type(error).__name__}: {error}); {remedy}.") from error
        try:
            return cls._of(values)
        except (ValueError, TypeError, KeyError, AttributeError, FlanError) as error:
            # What refuses an objective does not know the file that has it.
            why = str(error).rstrip(".") if isinstance(error, FlanError) else f"{type(error).__name__}: {error}"
            raise FlanError(f"{path} is broken ({why}); {remedy}.") from error

    @classmethod
    def _of(cls, values: Mapping[str, Any]) -> Run:
        """The run that a file's entries make.

        Raises:
          Exception: they make none.
        """
        for name in _LISTS:
            if not isinstance(values[name], list):
                raise TypeError(f"{name} is {shown(values[name])}")
        lists = {name: tuple(values[name]) for name in _LISTS}
        run = cls(**{**values} | lists | {"program": Program.from_dict(values["program"])})
        _check_types(run)
        return run


def _check_types(run: Run) -> None:
    """Raises a TypeError if what was read cannot be a run."""
    _check(vars(run), _OF_RUN)
    _check(vars(run.program), _OF_PROGRAM, "program.")
    _check({name: value for name, value in run.start.items() if value is not None}, _OF_START, "start.", absent=True)
    _check(run.vocabulary, {"fingerprint": str}, "vocabulary.", absent=True)
    for one in run.datasets:
        if not isinstance(one, dict) or not _OF_PART.keys() <= one.keys():
            raise TypeError("datasets are not as they were written")
        _check(one, _OF_PART, "datasets.")
        _check(one, _OF_PART_OR_ABSENT, "datasets.", absent=True)
    for name, kind in {"absent": str, "changes": dict}.items():
        if not all(isinstance(one, kind) for one in getattr(run, name)):
            raise TypeError(f"{name} is {shown(getattr(run, name))}")


def _check(values: Mapping[str, Any], kinds: Mapping[str, type], head: str = "", absent: bool = False) -> None:
    """Raises a TypeError for the first value of another kind; a float may be a whole number.

    Args:
      values: by name.
      kinds: what they have to be, by name.
      head: before a name in the message.
      absent: whether a value may be absent.
    """
    for name, kind in kinds.items():
        if absent and name not in values:
            continue
        value, allowed = values[name], (int, float) if kind is float else (kind,)
        if not isinstance(value, allowed) or isinstance(value, bool):
            raise TypeError(f"{head}{name} is {shown(value)}")


def _digest(values: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
