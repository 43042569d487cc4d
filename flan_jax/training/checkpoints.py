"""A checkpoint folder and its manifest, which says what a model has ever been tuned on.

    MODEL_DIR/{config.gin, manifest.json, checkpoints/<step>/, vocabulary/, metrics.jsonl, tensorboard/}

Arrays are read and written by Orbax.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from flan_jax import models, partitioning
from flan_jax.data import vocabularies
from flan_jax.errors import FlanError

UNTUNED = "declared untuned"  # its importer says that it never saw an instruction-tuning mixture
DECLARED = "declared"  # its importer lists the clusters
TUNED = "tuned"  # tuned here, from a known start
UNKNOWN = "unknown"


@dataclasses.dataclass(frozen=True)
class Manifest:
    """What a checkpoint is and where it comes from.

    Attributes:
      model: the fields of `DecoderConfig`.
      vocabulary: kind and fingerprint.
      tuning: {"status", "datasets", "clusters"}: all that was ever in its tuning mixture, inherited.
      separator: what stood between input and target in tuning: "eos", or None for a model never tuned here.
      history: one entry for each import, conversion and tuning.
    """

    model: dict[str, Any]
    vocabulary: dict[str, Any]
    tuning: dict[str, Any]
    separator: str | None = None
    history: tuple[dict[str, Any], ...] = ()

    @classmethod
    def create(
        cls,
        config: models.DecoderConfig,
        tokenizer: vocabularies.Tokenizer,
        status: str,
        clusters: Sequence[str] = (),
        record: dict[str, Any] | None = None,
    ) -> Manifest:
        """The manifest of a new checkpoint.

        Args:
          config: its shape.
          tokenizer: its vocabulary.
          status: "declared untuned", "declared" or "unknown".
          clusters: with "declared", the clusters of its tuning mixture.
          record: what was done, for the history.
        """
        return cls(
            model=config.to_dict(),
            vocabulary={"kind": tokenizer.kind, "fingerprint": tokenizer.fingerprint},
            tuning={"status": status, "datasets": [], "clusters": sorted(clusters)},
            history=(_dated(record or {}),),
        )

    @classmethod
    def load(cls, model_dir: str | Path) -> Manifest:
        """Reads MODEL_DIR/manifest.json.

        Raises:
          FlanError: it is missing or broken.
        """
        path = Path(model_dir) / "manifest.json"
        try:
            values = json.loads(path.read_text())
            return cls(**(values | {"history": tuple(values["history"])}))
        except FileNotFoundError as error:
            raise FlanError(
                f"no checkpoint at {model_dir}: manifest.json is missing; "
                "make one with python -m flan_jax.convert or python -m flan_jax.train."
            ) from error
        except (json.JSONDecodeError, TypeError, KeyError) as error:
            raise FlanError(f"{path} is broken ({error}); restore it or convert the checkpoint again.") from error

    def save(self, model_dir: str | Path) -> None:
        """Writes MODEL_DIR/manifest.json, whole or not at all."""
        path = Path(model_dir) / "manifest.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".manifest.{os.getpid()}")
        temporary.write_text(json.dumps(dataclasses.asdict(self), indent=1) + "\n")
        temporary.replace(path)

    @property
    def trained_clusters(self) -> frozenset[str] | None:
        """The clusters it was ever tuned on; None where nobody knows."""
        return None if self.tuning["status"] == UNKNOWN else frozenset(self.tuning["clusters"])

    def inherit(
        self, datasets: Sequence[str], clusters: Sequence[str], separator: str, record: dict[str, Any]
    ) -> Manifest:
        """The manifest after tuning on `datasets` of `clusters`. What was unknown stays unknown."""
        status = UNKNOWN if self.tuning["status"] == UNKNOWN else TUNED
        tuning = {
            "status": status,
            "datasets": sorted({*self.tuning["datasets"], *datasets}),
            "clusters": sorted({*self.tuning["clusters"], *clusters}),
        }
        return dataclasses.replace(
            self, tuning=tuning, separator=separator, history=(*self.history, _dated(record | {"clusters": clusters}))
        )

    def recorded(self, record: dict[str, Any]) -> Manifest:
        """The manifest after a conversion, which changes nothing but its history."""
        return dataclasses.replace(self, history=(*self.history, _dated(record)))

    def digest(self) -> str:
        """Identifies the checkpoint: its history with dates, its shape and its vocabulary."""
        text = json.dumps(dataclasses.asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


def _dated(record: dict[str, Any]) -> dict[str, Any]:
    return {"when": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"), **record}


# -------------------------------------------------------------------------------------------------------- arrays


def _manager(model_dir: str | Path, keep: int | None = None) -> ocp.CheckpointManager:
    options = ocp.CheckpointManagerOptions(max_to_keep=keep, create=keep is not None)
    return ocp.CheckpointManager(
        (Path(model_dir) / "checkpoints").absolute(), options=options, item_names=("params", "opt_state")
    )


def steps(model_dir: str | Path) -> list[int]:
    """The steps that are saved whole, in order."""
    folder = Path(model_dir) / "checkpoints"
    if not folder.is_dir():
        return []
    with contextlib.closing(_manager(model_dir)) as manager:
        return sorted(manager.all_steps())


def latest_step(model_dir: str | Path) -> int | None:
    """The last step that is saved whole, or None."""
    found = steps(model_dir)
    return found[-1] if found else None


class Saver:
    """Saves training states; a context manager that waits for the last one at the end."""

    def __init__(self, model_dir: str | Path, keep: int = 2) -> None:
        self._manager = _manager(model_dir, keep)

    def save(self, step: int, params: Any, opt_state: Any = None) -> None:
        """Starts saving; a step becomes visible when it is whole. Waits for the save before it."""
        items = {"params": ocp.args.StandardSave(params)}
        if opt_state is not None:
            items["opt_state"] = ocp.args.StandardSave(opt_state)
        self._manager.save(step, args=ocp.args.Composite(**items))

    def wait(self) -> None:
        """Returns when all that was started is saved."""
        self._manager.wait_until_finished()

    def __enter__(self) -> Saver:
        return self

    def __exit__(self, *error: Any) -> None:
        if error[0] is not None and jax.process_count() > 1:
            return  # the other processes may be gone, and what is closed here would wait for them
        self.wait()
        self._manager.close()


def _with_shardings(abstract: Any, shardings: Any) -> Any:
    return jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), abstract, shardings)


def _chosen_step(model_dir: str | Path, step: int | None) -> int:
    found = steps(model_dir)
    if not found:
        raise FlanError(f"no checkpoint in {model_dir}: checkpoints/ holds no step; convert or train one first.")
    if step is not None and step not in found:
        raise FlanError(f"no step {step} in {model_dir}: there are {', '.join(map(str, found))}.")
    return found[-1] if step is None else step


def restore_params(model_dir: str | Path, abstract_params: Any, shardings: Any, step: int | None = None) -> Any:
    """Reads the parameters, each leaf onto the devices that its sharding names.

    Args:
      model_dir: a checkpoint folder.
      abstract_params: shapes and dtypes.
      shardings: a tree of shardings like it.
      step: None takes the last.

    Raises:
      FlanError: there is no such checkpoint, or it does not fit.
    """
    chosen = _chosen_step(model_dir, step)
    with contextlib.closing(_manager(model_dir)) as manager, _readable(model_dir, chosen):
        items = ocp.args.Composite(params=ocp.args.StandardRestore(_with_shardings(abstract_params, shardings)))
        return manager.restore(chosen, args=items)["params"]


def restore_training(
    model_dir: str | Path, abstract: tuple[Any, Any], shardings: tuple[Any, Any]
) -> tuple[int, Any, Any]:
    """Reads (step, params, opt_state) of the last step.

    Raises:
      FlanError: there is no checkpoint, or it does not fit.
    """
    chosen = _chosen_step(model_dir, None)
    remedy = "give another folder, or start a new run from its parameters with INITIAL_CHECKPOINT_PATH"
    with contextlib.closing(_manager(model_dir)) as manager, _readable(model_dir, chosen, remedy):
        params, opt_state = (
            ocp.args.StandardRestore(_with_shardings(a, s)) for a, s in zip(abstract, shardings, strict=True)
        )
        items = manager.restore(chosen, args=ocp.args.Composite(params=params, opt_state=opt_state))
        return chosen, items["params"], items["opt_state"]


@contextlib.contextmanager
def _readable(model_dir: str | Path, step: int, remedy: str = "give another folder") -> Iterator[None]:
    try:
        yield
    except (ValueError, KeyError, OSError) as error:
        first, *more = str(error).strip().splitlines() or [type(error).__name__]
        reason = f"{first} {more[0]}" if first.endswith(":") and more else first
        raise FlanError(
            f"step {step} of {model_dir} cannot be read ({reason[:200].rstrip(':.')}): it is damaged, or was made with "
            f"another model or optimizer; {remedy}."
        ) from error


def load_model(
    model_dir: str | Path,
    step: int | None = None,
    mesh: jax.sharding.Mesh | None = None,
    computation: Mapping[str, Any] | None = None,
) -> tuple[models.Model, Any, vocabularies.Tokenizer, Manifest]:
    """Reads a checkpoint for use: model, parameters, vocabulary and manifest.

    Args:
      model_dir: a checkpoint folder.
      step: which of its checkpoints; None takes the last.
      mesh: where the parameters are laid out; None takes all devices.
      computation: fields of `models.config.COMPUTATION` that differ from the model's own.

    Raises:
      FlanError: the folder is no checkpoint or lacks the step, or the model cannot be computed so here.
    """
    manifest = Manifest.load(model_dir)
    tokenizer = vocabularies.load(Path(model_dir) / "vocabulary")
    model = models.build(models.DecoderConfig.from_dict(manifest.model).computed(**(computation or {})))
    mesh = partitioning.make_mesh() if mesh is None else mesh
    models.refuse_attention(model.config.attention, mesh.devices.flat[0].platform)
    abstract = model.abstract_params()
    shardings = partitioning.parameter_shardings(mesh, model.logical_axes(), abstract)
    return model, restore_params(model_dir, abstract, shardings, step), tokenizer, manifest
