"""Digests in a step's folder: written with the step, and compared with what is read.

The file is checkpoints/<step>/digests/metadata, and holds
{"params": {path: [dtype, shape, checksum]}, "opt_state", ..., "step", "saved_by", "sha256"}.

Which training saved the step stands there and in the step's own metadata, and both have to say the same: arrays of one
step in the folder of another are no step.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from flan_jax import distributed
from flan_jax.checkpoint.digests import Digest, Sums, difference, of_tree
from flan_jax.errors import FlanError
from flan_jax.files import AnyPath, user_path, write_atomic
from flan_jax.values import shown

ITEM = "digests"  # the name of the item in Orbax, beside "params" and "opt_state"
# There and beside the digests: which training saved the step, `training.comparing.identity`. An earlier version had a
# digest of less as "run" in the metadata alone, and that tells nothing now.
SAVED_BY = "saved_by"
_FILE = "metadata"  # in the item's folder; Orbax calls the file of a JSON item so
_OWN = "sha256"  # the key for the digest of the other entries
_METADATA = "_CHECKPOINT_METADATA"  # Orbax's file of a step's own metadata
_STEP = "step"  # the key for the step, since a folder may be renamed or copied over another; old files lack it


def step_folder(model_dir: str | AnyPath, step: int) -> AnyPath:
    """The folder of a step."""
    return user_path(model_dir) / "checkpoints" / str(step)


def note(saved_by: str | None) -> dict[str, Any]:
    """What a step's own metadata say.

    Args:
      saved_by: which training saves the step; None for what no training saves.
    """
    return {ITEM: True} | ({} if saved_by is None else {SAVED_BY: saved_by})


def to_dict(step: int, digests: Mapping[str, Mapping[str, Digest]], saved_by: str | None = None) -> dict[str, Any]:
    """The content of the file, for Orbax or `write`.

    Args:
      step: the step.
      digests: digests by item ("params", "opt_state") and path.
      saved_by: which training saves the step; None for what no training saves.
    """
    values: dict[str, Any] = {
        item: {path: [d.dtype, list(d.shape), d.checksum] for path, d in sorted(by_path.items())}
        for item, by_path in digests.items()
    }
    values |= {_STEP: int(step)} | ({} if saved_by is None else {SAVED_BY: saved_by})
    return values | {_OWN: _sha256(values)}


def _sha256(values: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def write(model_dir: str | AnyPath, step: int, digests: Mapping[str, Mapping[str, Digest]]) -> None:
    """Writes the file for a step that is not in use yet. With a `Saver`, Orbax writes it."""
    folder = step_folder(model_dir, step) / ITEM
    write_atomic(folder / _FILE, json.dumps(to_dict(step, digests)))


def read(model_dir: str | AnyPath, step: int) -> dict[str, dict[str, Digest]] | None:
    """Reads the digests of a step, by item ("params", "opt_state") and path.

    Returns:
      None for a step of a version that saved none.

    Raises:
      FlanError: they are missing or damaged, or belong to another step or to a step of another training.
    """
    return _read(model_dir, step)[0]


def saved_by(model_dir: str | AnyPath, step: int) -> str | None:
    """Which training saved a step, `training.comparing.identity`; None if no training did, or an earlier version.

    Raises:
      FlanError: see `read`.
    """
    return _read(model_dir, step)[1]


def _read(model_dir: str | AnyPath, step: int) -> tuple[dict[str, dict[str, Digest]] | None, str | None]:
    path = step_folder(model_dir, step) / ITEM / _FILE
    remedy = "the arrays cannot be checked, and may be damaged too; copy the checkpoint anew"
    said, wrong = _noted(path.parents[1])
    try:
        values = json.loads(path.read_bytes())
        own = values.pop(_OWN)
        if own != _sha256(values):
            raise ValueError("it does not fit its own sha256")
        saved_as, told = values.pop(_STEP, step), values.pop(SAVED_BY, None)
        if not isinstance(told, str | None):
            raise ValueError(f"{SAVED_BY} is {shown(told)}")
        found = {
            item: {name: Digest(dtype, tuple(shape), checksum) for name, (dtype, shape, checksum) in by_path.items()}
            for item, by_path in values.items()
        }
    except FileNotFoundError as error:
        if said.get(ITEM) or said.get(SAVED_BY) or path.parent.exists():
            raise FlanError(f"{path} is missing: {remedy}.") from error
        return None, None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise FlanError(f"{path} is damaged ({str(error)[:100].rstrip('.')}): {remedy}.") from error
    if saved_as != step:
        raise FlanError(
            f"{path.parents[1]} holds what was saved as step {saved_as}: it was renamed, or copied over another step; "
            "copy the checkpoint anew."
        )
    if told != said.get(SAVED_BY):
        names, beside = (_named(one) for one in (said.get(SAVED_BY), told))
        raise FlanError(
            f"{path.parents[1] / _METADATA} {wrong or names}, and {ITEM}/{_FILE} beside it {beside}; copy the "
            "checkpoint anew."
        )
    return found, told


def _named(told: Any) -> str:
    return "names no training" if told is None else f"is of training {shown(told)}"


def _noted(folder: AnyPath) -> tuple[Mapping[str, Any], str]:
    """What a step's own metadata say, and what is wrong with them; an old step may have none."""
    try:
        found = json.loads((folder / _METADATA).read_bytes())["custom_metadata"]
    except FileNotFoundError:
        return {}, "is missing"
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        return {}, f"is damaged ({str(error)[:100].rstrip('.')})"
    return (found, "") if isinstance(found, Mapping) else ({}, f"is damaged (custom_metadata is {shown(found)})")


def verify(model_dir: str | Path, step: int, trees: Mapping[str, Any]) -> None:
    """Compares arrays that were read with the digests saved with them. In a pod all processes must call it.

    Args:
      model_dir: a checkpoint folder.
      step: the step that was read.
      trees: what was read, by item ("params", "opt_state").

    Raises:
      FlanError: an array differs (the message names it), or the digests are missing or damaged.
    """
    saved = read(model_dir, step)
    if saved is None:
        say_unchecked(model_dir, step)
        return
    for item, tree in trees.items():
        compare(model_dir, step, saved.get(item, {}), of_tree(tree))


class Reading:
    """Compares arrays that are read one layer at a time with their digests, each after its last layer.

    Args:
      model_dir: a checkpoint folder.
      step: the step.
      item: "params" or "opt_state".

    Raises:
      FlanError: the digests are missing or damaged.
    """

    def __init__(self, model_dir: str | Path, step: int, item: str = "params") -> None:
        self._where = model_dir, step
        saved = read(model_dir, step)
        self._saved = None if saved is None else saved.get(item, {})
        self._sums: dict[str, Sums] = {}
        self._came: dict[str, set[int | None]] = {}
        if saved is None:
            say_unchecked(model_dir, step)

    def add(self, name: str, tensor: np.ndarray, layer: int | None, num_layers: int) -> None:
        """Takes one layer, or an array without layers. A layer that came before is skipped.

        Args:
          name: the array's path.
          tensor: what was read.
          layer: the number of the layer, or None.
          num_layers: how many layers there are, or 0.

        Raises:
          FlanError: the array is complete now, and differs from what was saved.
        """
        came = self._came.setdefault(name, set())
        if self._saved is None or layer in came:
            return
        came.add(layer)
        sums = self._sums.setdefault(name, Sums())
        sums.add_layer(tensor, layer)
        if len(came) == max(num_layers, 1):
            shape = ((num_layers,) if num_layers else ()) + tensor.shape
            found = Digest(tensor.dtype.name, shape, self._sums.pop(name).checksum)
            compare(*self._where, self._saved, {name: found}, complete=False)


def say_unchecked(model_dir: str | Path, step: int) -> None:
    """Prints one line on standard error: this step of an earlier version cannot be checked."""
    if distributed.is_primary():
        print(
            f"step {step} of {model_dir} was saved without digests, by an earlier version: "
            "damage to its arrays would not be noticed.",
            file=sys.stderr,
        )


def compare(
    model_dir: str | Path, step: int, saved: Mapping[str, Digest], found: Mapping[str, Digest], complete: bool = True
) -> None:
    """Compares two sets of digests of a step, by path: those that were saved, and those of what was read.

    Raises:
      FlanError: they differ (the message names the first difference and counts the others); or, if `complete`, an array
        was not read.
    """
    if what := difference(saved, found, complete):
        raise FlanError(f"step {step} of {model_dir} is damaged: {what}; copy the checkpoint anew.")
