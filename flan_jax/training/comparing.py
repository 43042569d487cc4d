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
from flan_jax.training.loss import CROSS_ENTROPY
from flan_jax.training.run import Run
from flan_jax.values import shown

_DIGITS = 16  # of an identity
_COMPOSITION = "composition."  # before the name of a part in comparisons

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

    It is of what every version records and no start may change, so a later version gives an old run the same one.
    """
    program, usual = run.program, dataclasses.asdict(CROSS_ENTROPY)
    objective = {name: value for name, value in dataclasses.asdict(program.objective).items() if value != usual[name]}
    told = {
        "mixture": run.mixture,
        "data": {part_of(one): [one["digest"], one["rate"], one.get("loss_weight", 1.0)] for one in run.datasets},
        "vocabulary": run.vocabulary.get("fingerprint"),
        "start": run.start.get("weights"),
        "seed": run.seed,
        "rows": [program.rows, program.inputs, program.targets, program.microbatches],
        "optimizer": [program.optimizer, program.clip_norm, program.frozen, program.ema_decay],
        "added": [program.lora, program.prompt_length],
        "objective": objective,
        "dtype": program.computation.get("dtype"),
    }
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:_DIGITS]


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
    elif any(name.startswith("recipe.") for name in found):  # a recipe explains why parts are drawn differently
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


def _fields(run: Run) -> dict[str, Any]:
    values = run.to_dict()
    for name in ("datasets", "absent", "start", "changes", "format", "hooks", *([] if run.recipe else ["recipe"])):
        del values[name]
    by_part = {f"{_COMPOSITION}{part_of(one)}": f"{drawn(one)}, data {one['digest'][:12]}" for one in run.datasets}
    return flat(values) | by_part | {"hooks": [*map(str, run.hooks)]}


def _same_start(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    """Whether both start from the same parameters, wherever these are stored.

    Random parameters differ if their seeds differ.
    """
    if "random" in old and "random" in new:
        return True
    names = ["optimizer_state", "map"]
    if "tuning" in old and "tuning" in new:
        # Not the manifest: it has dates, and is another one where the same model is converted again.
        names += ["weights", "tuning"] + (["step"] if old.get("optimizer_state") else [])
    elif old.get("manifest") is None:
        return False
    else:  # a run of an earlier version
        names += ["manifest", "step"]
    return all(old.get(name) == new.get(name) for name in names)


def _named_start(start: Mapping[str, Any]) -> str | None:
    if "random" in start:
        return None
    more = ", with the optimizer's state" if start.get("optimizer_state") else ""
    more += f", by INITIAL_MAP {shown(start['map'])}" if "map" in start else ""
    more = f", weights {start['weights'][:12]}{more}" if start.get("weights") else more
    return f"{start.get('checkpoint')} (step {start.get('step')}, manifest {str(start.get('manifest'))[:12]}{more})"
