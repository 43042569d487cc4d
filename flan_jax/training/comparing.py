"""Compares two runs: what makes them different runs, and what may differ between two starts of one run."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from flan_jax.models.config import COMPUTATION
from flan_jax.parts import kinds
from flan_jax.protocol import EOS
from flan_jax.training.described import flat
from flan_jax.training.run import Program, Run
from flan_jax.values import shown

_DIGITS = 16  # of an identity
_RULE = 2  # the number of the rule of `identity`; whoever changes the rule takes the next one

# Names in comparisons: of a run's start, of the order of parts, and before the names of parts and of recipes' entries.
_START, _ORDER, _COMPOSITION, _RECIPE = "start", "order of datasets", "composition.", "recipe."
_BY_WEIGHTS = "tuning"  # in `Run.start`, where it tells the weights; earlier versions had the manifest alone

# What a program has where its record does not say it, by dotted name.
_USUAL = flat(
    {
        "program": {
            field.name: dataclasses.asdict(field.default) if dataclasses.is_dataclass(field.default) else field.default
            for field in dataclasses.fields(Program)
            if field.default is not dataclasses.MISSING
        }
    }
)

# What may differ between two starts, by name or by the first part of one. Another way to compute the same numbers (up
# to rounding) may differ, such as the mesh; another dtype may not.
MAY_CHANGE = ("train_steps", "mesh", "hosts", "hooks", "code", "changes", "format")
MAY_CHANGE += tuple(f"program.computation.{name}" for name in COMPUTATION if name != "dtype")

# What a user calls a field, if it is called otherwise.
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


def differences(old: Run, new: Run) -> list[tuple[str, Any, Any]]:
    """What makes the runs different runs: (name, old value, new value), with the names that a user knows."""
    return [(_called(name), *pair) for name, pair in _compared(old, new).items() if not _may_change(name)]


def changed(old: Run, new: Run) -> list[tuple[str, Any, Any]]:
    """What differs and is allowed to; in the form of `differences`."""
    return [(_called(name), *pair) for name, pair in _compared(old, new).items() if _may_change(name)]


def identity(run: Run) -> str:
    """A digest that tells a training from others, which its saved steps keep: the same for all starts of a run.

    It is of all that `differences` compares, after the number of the rule by which it is made.
    """
    # Later versions read an old record with the usual values of what it lacks, and give it the same digest.
    told = {
        name: _plain(value)
        for name, value in _told(run, _BY_WEIGHTS in run.start).items()
        if _decides(name) and value is not None and value != _USUAL.get(name)
    }
    return f"{_RULE}:{hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:_DIGITS]}"


def is_of_another(saved_by: str | None, run: Run) -> bool:
    """Whether a step was saved by another training than this.

    Args:
      saved_by: the step's digest of its training, `saved_digests.saved_by`. None, or one by another rule than that of
        `identity`, tells nothing.
      run: the training.
    """
    return saved_by is not None and saved_by.startswith(f"{_RULE}:") and saved_by != identity(run)


def _plain(value: Any) -> Any:
    """The same for all values that Python takes for equal, such as 8 and 8.0."""
    if isinstance(value, Mapping):
        return {name: _plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return int(value) if isinstance(value, bool) or (isinstance(value, float) and value.is_integer()) else value


def _decides(name: str) -> bool:
    """Whether runs that differ in a field are different runs."""
    return not _may_change(name) and not name.startswith(_RECIPE)


def _may_change(name: str) -> bool:
    return any(name == free or name.startswith(f"{free}.") for free in MAY_CHANGE)


def _called(name: str) -> str:
    """The name of a field as a user knows it."""
    for known in sorted(_NAMES, key=len, reverse=True):
        if name == known or name.startswith(f"{known}."):
            return _NAMES[known] + name[len(known) :]
    return name


def _compared(old: Run, new: Run) -> dict[str, tuple[Any, Any]]:
    """The fields in which two runs differ, by dotted name; a part counts as one field.

    Two recipes that give the same parts are the same.
    """
    by_weights = _BY_WEIGHTS in old.start and _BY_WEIGHTS in new.start
    before, after = _told(old, by_weights), _told(new, by_weights)
    names = dict.fromkeys([*before, *after])
    found = {name: (before.get(name), after.get(name)) for name in names if before.get(name) != after.get(name)}
    if _START in found:
        found[_START] = _named_start(old.start), _named_start(new.start)
    if _ORDER in found and set(before[_ORDER]) != set(after[_ORDER]):
        del found[_ORDER]  # the parts themselves differ
    if not any(name == "mixture" or name.startswith(_COMPOSITION) for name in found):
        found = {name: pair for name, pair in found.items() if not name.startswith(_RECIPE)}
    elif any(name.startswith(_RECIPE) for name in found):  # a recipe explains why parts are drawn differently
        data = [{part_of(one): (one["examples"], one["digest"]) for one in run.datasets} for run in (old, new)]
        same = {f"{_COMPOSITION}{part}" for part, one in data[0].items() if data[1].get(part) == one}
        found = {name: pair for name, pair in found.items() if name not in same}
    return found


def part_of(entry: Mapping[str, Any]) -> str:
    """The part that an entry of `Run.datasets` is about."""
    return entry.get("part", entry["dataset"])


def drawn(entry: Mapping[str, Any]) -> str:
    """How a part is drawn and weighted, as a text to compare.

    Takes entries of `Run.datasets` or of a composition's members.
    """
    weight, joint = entry.get("loss_weight", 1.0), entry.get("joint", EOS)
    said = f"{entry['examples']} examples at rate {entry['rate']}"
    return said + (f", loss weight {weight}" if weight != 1 else "") + (f", joint {joint}" if joint != EOS else "")


def _told(run: Run, by_weights: bool) -> dict[str, Any]:
    """All by which runs are compared, by dotted name. What is absent and what is None count as the same.

    Args:
      run: the run.
      by_weights: whether starts are told by their weights; otherwise by their manifest, as in an earlier version.
    """
    values = run.to_dict()
    for name in ("datasets", "absent", "start", "changes", "format", "hooks", *([] if run.recipe else ["recipe"])):
        del values[name]
    by_part = {f"{_COMPOSITION}{part_of(one)}": f"{drawn(one)}, data {one['digest'][:12]}" for one in run.datasets}
    told = flat(values) | by_part | {"hooks": [*map(str, run.hooks)], _START: _start(run.start, by_weights)}
    return told | {_ORDER: [part_of(one) for one in run.datasets]}


def _start(start: Mapping[str, Any], by_weights: bool) -> dict[str, Any]:
    """What decides the parameters that a run starts from, wherever these are stored.

    Random parameters differ if their seeds differ, which is another field.
    """
    if "random" in start:
        return {"random": True}
    names = ["optimizer_state", "map"]
    if by_weights:
        # Not the manifest: it has dates, and is another one where the same model is converted again.
        names += ["weights", "tuning"] + (["step"] if start.get("optimizer_state") else [])
    else:
        names += ["manifest", "step"]
    return {name: start[name] for name in names if start.get(name) is not None}


def _named_start(start: Mapping[str, Any]) -> str | None:
    if "random" in start:
        return None
    more = ", with the optimizer's state" if start.get("optimizer_state") else ""
    more += f", by INITIAL_MAP {shown(start['map'])}" if "map" in start else ""
    more = f", weights {start['weights'][:12]}{more}" if start.get("weights") else more
    return f"{start.get('checkpoint')} (step {start.get('step')}, manifest {str(start.get('manifest'))[:12]}{more})"
