"""Digests as they lie in a step's folder: written with the step, and compared with what is read of it.

The file is checkpoints/<step>/digests/metadata, and holds
{"params": {path: [dtype, shape, checksum]}, "opt_state", ..., "step", "sha256"}.
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

ITEM = "digests"  # Orbax's name for them, beside "params" and "opt_state"
NOTE = {ITEM: True}  # in a step's own metadata: it was saved with digests, so that they must be there
_FILE = "metadata"  # in the item's folder, as Orbax names the file of a JSON item
_OWN = "sha256"  # of the file's other entries
_STEP = "step"  # that was saved: a folder that is renamed, or copied over another, is another step's. Not in old files.


def step_folder(model_dir: str | AnyPath, step: int) -> AnyPath:
    """Where a step of a checkpoint folder lies."""
    return user_path(model_dir) / "checkpoints" / str(step)


def to_dict(step: int, digests: Mapping[str, Mapping[str, Digest]]) -> dict[str, Any]:
    """The content of the file, for Orbax or `write`.

    Args:
      step: that is saved.
      digests: by item ("params", "opt_state") and path.
    """
    values: dict[str, Any] = {
        item: {path: [d.dtype, list(d.shape), d.checksum] for path, d in sorted(by_path.items())}
        for item, by_path in digests.items()
    }
    values[_STEP] = int(step)
    return values | {_OWN: _sha256(values)}


def _sha256(values: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def write(model_dir: str | Path, step: int, digests: Mapping[str, Mapping[str, Digest]]) -> None:
    """Writes the file of a step that is not in use yet; a `Saver` has Orbax write it."""
    folder = step_folder(model_dir, step) / ITEM
    write_atomic(folder / _FILE, json.dumps(to_dict(step, digests)))


def read(model_dir: str | Path, step: int) -> dict[str, dict[str, Digest]] | None:
    """The digests that were saved with a step, by item ("params", "opt_state") and path.

    Returns:
      None for a step of a version that saved none.

    Raises:
      FlanError: they are missing or damaged, or of another step.
    """
    path = step_folder(model_dir, step) / ITEM / _FILE
    remedy = "the arrays cannot be checked, and may be damaged too; copy the checkpoint anew"
    try:
        values = json.loads(path.read_bytes())
        own = values.pop(_OWN)
        if own != _sha256(values):
            raise ValueError("it does not fit its own sha256")
        saved_as = values.pop(_STEP, step)
        found = {
            item: {name: Digest(dtype, tuple(shape), checksum) for name, (dtype, shape, checksum) in by_path.items()}
            for item, by_path in values.items()
        }
    except FileNotFoundError as error:
        if _says_digests(path.parents[1]) or path.parent.exists():
            raise FlanError(f"{path} is missing: {remedy}.") from error
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise FlanError(f"{path} is damaged ({str(error)[:100].rstrip('.')}): {remedy}.") from error
    if saved_as != step:
        raise FlanError(
            f"{path.parents[1]} holds what was saved as step {saved_as}: it was renamed, or copied over another step; "
            "copy the checkpoint anew."
        )
    return found


def _says_digests(folder: Path) -> bool:
    """Whether a step's own metadata says that it was saved with digests."""
    try:
        return bool(json.loads((folder / "_CHECKPOINT_METADATA").read_bytes())["custom_metadata"].get(ITEM))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False  # an old step, or damaged, and then the digests are there


def verify(model_dir: str | Path, step: int, trees: Mapping[str, Any]) -> None:
    """Compares arrays that were read with the digests that were saved with them. In a pod all processes must call it.

    Args:
      model_dir: a checkpoint folder.
      step: the step that was read.
      trees: what was read, by item ("params", "opt_state").

    Raises:
      FlanError: an array differs, by name; or the digests are missing or damaged.
    """
    saved = read(model_dir, step)
    if saved is None:
        say_unchecked(model_dir, step)
        return
    for item, tree in trees.items():
        compare(model_dir, step, saved.get(item, {}), of_tree(tree))


class Reading:
    """Compares arrays that are read a layer at a time with their digests: each when its last layer has come.

    Args:
      model_dir: a checkpoint folder.
      step: of it.
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
        """Takes one layer, or an array that is in no layer; what came before is passed over.

        Args:
          name: the array's path.
          tensor: what was read.
          layer: which of the layers it is, or None.
          num_layers: how many there are, or 0.

        Raises:
          FlanError: the array is whole now, and is not what was saved.
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
    """Says that a step of an earlier version cannot be checked, in one line on standard error."""
    if distributed.is_primary():
        print(
            f"step {step} of {model_dir} was saved without digests, by an earlier version: "
            "damage to its arrays would not be noticed.",
            file=sys.stderr,
        )


def compare(
    model_dir: str | Path, step: int, saved: Mapping[str, Digest], found: Mapping[str, Digest], complete: bool = True
) -> None:
    """Compares the digests of a step, by path: those that were saved, and those of what was read.

    Raises:
      FlanError: they differ, by the name of the first that does and how many do; or, if `complete`, one was not read.
    """
    if what := difference(saved, found, complete):
        raise FlanError(f"step {step} of {model_dir} is damaged: {what}; copy the checkpoint anew.")
