"""Checkpoints that hold only adapters. MODEL_DIR/adapters.json names the model that they change.

{"format": 1, "checkpoint": the folder of that model, "step", "weights": one digest of its weights}
"""

from __future__ import annotations

import dataclasses
import json

from flan_jax.checkpoint import digests, saved_digests, stored
from flan_jax.errors import FlanError, cannot
from flan_jax.files import AnyPath, is_remote, user_path, write_atomic
from flan_jax.values import shown

FILE = "adapters.json"
FORMAT = 1  # version of the file


@dataclasses.dataclass(frozen=True)
class Base:
    """The model that adapters change.

    Attributes:
      checkpoint: its folder.
      step: its step.
      weights: one digest of its weights, from `weights`.
    """

    checkpoint: str
    step: int
    weights: str

    @classmethod
    def of(cls, checkpoint: str | AnyPath, step: int) -> Base:
        """Describes a checkpoint as it is now. A folder on this machine is named by its full path.

        Raises:
          FlanError: it was saved without digests.
        """
        path = user_path(checkpoint)
        found = weights(path, step)
        if found is None:
            raise FlanError(
                f"step {step} of {checkpoint} was saved without digests, by which adapters know the model that they "
                "change: python -m flan_jax.convert makes a folder with them."
            )
        return cls(_whole(path), step, found)

    def save(self, model_dir: AnyPath) -> None:
        """Writes MODEL_DIR/adapters.json, whole or not at all."""
        values = {"format": FORMAT, **dataclasses.asdict(self)}
        write_atomic(user_path(model_dir) / FILE, json.dumps(values, indent=1) + "\n")

    def check(self, checkpoint: str | AnyPath | None = None) -> AnyPath:
        """The folder of the model, after checking that it is there and holds the same weights.

        Args:
          checkpoint: where it is now; None for the place where it was.

        Raises:
          FlanError: it is not there, or holds other weights.
        """
        path = user_path(self.checkpoint if checkpoint is None else checkpoint)
        if not (path / "manifest.json").is_file():
            raise FlanError(
                f"no checkpoint at {path}, whose parameters these adapters change: put it there, or, where it lies "
                f"elsewhere now, write its place into {FILE}."
            )
        if not saved_digests.step_folder(path, self.step).is_dir():
            raise FlanError(
                f"step {self.step} of {path}, whose parameters these adapters change, is not there any more: copy it "
                "back. A run that goes on removes its older steps; KEEP_EVERY has it keep some."
            )
        if (found := weights(path, self.step)) != self.weights:
            raise FlanError(
                f"step {self.step} of {path} holds other weights ({shown(found)}) than the adapters were trained with "
                f"({self.weights}): give the checkpoint of then."
            )
        return path

    def at(self, checkpoint: str | AnyPath) -> Base:
        """The same model at its new place.

        Raises:
          FlanError: see `check`.
        """
        return dataclasses.replace(self, checkpoint=_whole(self.check(checkpoint)))


def _whole(path: AnyPath) -> str:
    return str(path if is_remote(path) else path.absolute())


def load(model_dir: str | AnyPath) -> Base | None:
    """Reads MODEL_DIR/adapters.json; None if there is none, so that the checkpoint has no adapters.

    Raises:
      FlanError: it is broken, or of a newer version.
    """
    path = user_path(model_dir) / FILE
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        version = values.pop("format")
        found = Base(**values) if version == FORMAT else None
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise cannot("read", path, error) from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise FlanError(f"{path} is broken ({type(error).__name__}: {error}); copy the checkpoint anew.") from error
    if found is None:
        raise FlanError(f"{path} is of another version of FLAN-JAX (format {shown(version)}): use that version.")
    return found


def weights(model_dir: str | AnyPath, step: int, which: str = stored.PARAMS) -> str | None:
    """One digest of the weights of a step; None if an earlier version saved no digests.

    Raises:
      FlanError: there are no such weights.
    """
    mean = stored.averaged(model_dir, step) if which == stored.EMA else {}
    saved = saved_digests.read(model_dir, step)
    if saved is None:
        return None
    if stored.ADAPTERS in saved and (base := load(model_dir)) is not None:
        named = {f"{base.weights}/{name}": one for name, one in (saved[stored.ADAPTERS] | mean).items()}
        return digests.combined(named)
    return digests.combined(saved[stored.PARAMS] | mean) if stored.PARAMS in saved else None
