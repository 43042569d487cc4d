"""What a new run takes from its initial checkpoint: a step, parameters by a map, and the optimizer's state."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import optax

from flan_jax import models
from flan_jax.checkpoint import adapters, arrays, choosing, digests, saved_digests, stored
from flan_jax.checkpoint.manifest import Manifest
from flan_jax.errors import FlanError, StorageError, near_names
from flan_jax.files import AnyPath
from flan_jax.models import nested
from flan_jax.training.optimizers import patterns

_ANEW = "leave INITIAL_OPTIMIZER_STATE at False, and the state begins anew"


@functools.cache
def _counters() -> tuple[type, ...]:
    """The classes of states that count steps for schedules, which begin anew. The second one has no public name.

    This is called only when needed: making such a state starts JAX's devices, and a pod must be joined before.
    """
    return optax.ScaleByScheduleState, type(optax.add_decayed_weights(lambda count: count).init({}))


@dataclasses.dataclass(frozen=True)
class Start:
    """What is taken from INITIAL_CHECKPOINT_PATH.

    Attributes:
      step: the step of the checkpoint; None takes the last.
      optimizer_state: whether the optimizer's state is taken too.
      map: from patterns of this model's parameters to their place in the checkpoint: a path in place of a path, or None
        to start at random. Parameters that fit no pattern have the same path. None if the model is the checkpoint's.
    """

    step: int | None = None
    optimizer_state: bool = False
    map: Mapping[str, str | None] | None = None

    def described(self) -> dict[str, Any]:
        """What run.json records about it besides the step; empty if all parameters are taken as they are."""
        found: dict[str, Any] = {"optimizer_state": True} if self.optimizer_state else {}
        return found | ({} if self.map is None else {"map": dict(self.map)})


def refuse(start: Start, checkpoint: str | None, model: models.DecoderConfig | None) -> None:
    """Refuses settings that need a checkpoint or a model that is not given.

    Raises:
      FlanError: for the first such setting.
    """
    if checkpoint is None and start != Start():
        raise FlanError(
            "INITIAL_STEP, INITIAL_OPTIMIZER_STATE and INITIAL_MAP say what is taken from INITIAL_CHECKPOINT_PATH: "
            "give it too."
        )
    if start.map is not None and model is None:
        raise FlanError("INITIAL_MAP takes parameters into another model: give it as MODEL.")


def base_of(checkpoint: str | None, start: Mapping[str, Any], begun: AnyPath | None) -> adapters.Base:
    """The model that a run's adapters or soft prompt change.

    Args:
      checkpoint: where it is.
      start: how the run starts.
      begun: the folder of a run that continues, or None.

    Raises:
      FlanError: there is none, or it has changed.
    """
    if not checkpoint:
        raise FlanError(
            "LORA and PROMPT_LENGTH change a model that is there: give its folder as INITIAL_CHECKPOINT_PATH."
        )
    if start.get("step") is None:
        raise FlanError(f"no checkpoint in {checkpoint}: checkpoints/ holds no step; convert or train one first.")
    if begun is not None and (base := adapters.load(begun)) is not None:
        return base.at(checkpoint)
    return adapters.Base.of(checkpoint, start["step"])


def step_of(checkpoint: str, start: Start) -> int | None:
    """The step that is taken; None if the checkpoint has none, which is reported when it is read.

    Raises:
      FlanError: the checkpoint does not have this step.
    """
    if start.step is None:
        return choosing.latest_step(checkpoint)
    if start.step not in (found := choosing.steps(checkpoint)):
        there = ", ".join(map(str, found)) or "none"
        raise FlanError(f"INITIAL_STEP {start.step} is not in {checkpoint}: there are {there}.")
    return start.step


def of_checkpoint(checkpoint: str, start: Start, manifest: Manifest) -> dict[str, Any]:
    """What `Run.start` has of a run that starts from a checkpoint.

    Args:
      checkpoint: its folder.
      start: what is taken from it.
      manifest: its manifest.

    Raises:
      FlanError: the checkpoint does not have this step, or what tells its weights is damaged.
    """
    step = step_of(checkpoint, start)
    found = {"checkpoint": str(checkpoint), "step": step, "manifest": manifest.digest()}
    if weights := adapters.weights(checkpoint, step):
        found |= {"weights": weights, "tuning": manifest.tuning_digest()}
    return found | start.described()


def sources(
    abstract: Any, checkpoint: str, step: int, mapping: Mapping[str, str | None]
) -> dict[nested.Path, str | None]:
    """Which array of a checkpoint each parameter is taken from; None for parameters that start at random.

    Args:
      abstract: the parameters, as shapes.
      checkpoint: the checkpoint folder.
      step: the step of the checkpoint.
      mapping: see `Start.map`.

    Raises:
      FlanError: a pattern fits nothing, an array is missing or has another shape, or nothing is taken.
    """
    saved = (saved_digests.read(checkpoint, step) or {}).get(stored.PARAMS)
    if saved is None:
        what = "adapters" if adapters.load(checkpoint) is not None else "no digests"
        raise FlanError(
            f"INITIAL_MAP: step {step} of {checkpoint} has {what}: python -m flan_jax.convert makes a folder of it "
            "whose arrays have names."
        )
    known = nested.paths(abstract)
    found: dict[nested.Path, str | None] = {path: "/".join(path) for path in known}
    for pattern, other in mapping.items():
        for path in patterns.chosen("INITIAL_MAP", (pattern,), known):
            name, plain = "/".join(path), pattern.strip("/")
            if other is None:
                found[path] = None
            elif f"/{plain}/" in f"/{name}/":
                found[path] = f"/{name}/".replace(f"/{plain}/", f"/{other.strip('/')}/", 1).strip("/")
            else:
                raise FlanError(
                    f"INITIAL_MAP: {pattern!r} -> {other!r}: a pattern with * has no other place; write names."
                )
    leaves = {"/".join(path): _at(abstract, path) for path in known}
    for path, name in found.items():
        ours = "/".join(path)
        remedy = f"map {ours!r} to where it is, or to None to start it at random"
        if name is not None and name not in saved:
            raise FlanError(
                f"INITIAL_MAP: {checkpoint} has no {name}, from which {ours} would be taken: {near_names(name, saved)} "
                f"Or {remedy}."
            )
        if name is not None and saved[name].shape != tuple(leaves[ours].shape):
            raise FlanError(
                f"INITIAL_MAP: {name} of {checkpoint} has shape {saved[name].shape}, and {ours} "
                f"{tuple(leaves[ours].shape)}: {remedy}."
            )
    if not any(found.values()):
        raise FlanError(f"INITIAL_MAP takes nothing from {checkpoint}: leave INITIAL_CHECKPOINT_PATH out.")
    return found


def restored(
    checkpoint: str, step: int, taken: Mapping[nested.Path, str | None], params: Any, shardings: Any
) -> dict[str, Any]:
    """The parameters, with those that come from the checkpoint in place. Each process reads its own shards.

    Args:
      checkpoint: the checkpoint folder.
      step: the step of the checkpoint.
      taken: the result of `sources`.
      params: random parameters.
      shardings: their shardings.

    Raises:
      FlanError: an array cannot be read, or has changed since it was saved.
    """
    folder = saved_digests.step_folder(checkpoint, step) / stored.PARAMS
    saved = (saved_digests.read(checkpoint, step) or {})[stored.PARAMS]
    found: dict[str, Any] = {}
    with choosing.explained(checkpoint, step):
        for path, name in taken.items():
            if name is not None:
                x = _read(folder, name, _at(shardings, path), f"step {step} of {checkpoint}")
                saved_digests.compare(
                    checkpoint, step, {name: saved[name]}, digests.of_tree(nested.at(name.split("/"), x))
                )
                found = nested.merged(found, nested.at(path, x))
    return nested.merged(params, found)


def _read(folder: AnyPath, name: str, sharding: Any, where: str) -> jax.Array:
    try:
        store = stored.opened(folder, name)
        return jax.make_array_from_callback(store.shape, sharding, lambda index: store[index].read().result())
    except StorageError:
        raise
    except Exception as error:  # tensorstore can raise anything
        raise FlanError(f"{where} cannot be read ({stored.reason(error)}): copy it anew.") from error


def optimizer_state(checkpoint: str, step: int, fresh: Any, abstract: Any, shardings: Any) -> Any:
    """The optimizer's state from a checkpoint. Counters of schedules are those of a new run.

    Args:
      checkpoint: the checkpoint folder.
      step: the step of the checkpoint.
      fresh: the state of a new run.
      abstract: its shapes and dtypes.
      shardings: its shardings.

    Raises:
      FlanError: there is none, or it does not fit.
    """
    refuse_unfit(checkpoint, step, abstract)
    try:
        items = arrays.restore_items(checkpoint, {stored.OPT_STATE: (abstract, shardings)}, step)
    except FlanError as error:  # the parts without arrays may be in other places
        if "structures do not match" not in str(error):
            raise
        raise FlanError(
            f"the optimizer's state of step {step} of {checkpoint} is of another optimizer, or of one with other "
            f"arguments: {_ANEW}."
        ) from error

    def kept(new: Any, old: Any) -> Any:
        return new if isinstance(new, _counters()) else old

    return jax.tree.map(kept, fresh, items[stored.OPT_STATE], is_leaf=lambda x: isinstance(x, _counters()))


def refuse_unfit(checkpoint: str, step: int, abstract: Any) -> None:
    """Refuses an optimizer's state that is missing, or belongs to another optimizer or model.

    Raises:
      FlanError: if so.
    """
    saved = (saved_digests.read(checkpoint, step) or {}).get(stored.OPT_STATE)
    if saved is None:
        raise FlanError(f"step {step} of {checkpoint} has no optimizer's state: {_ANEW}.")
    leaves = jax.tree_util.tree_leaves_with_path(abstract)
    wanted = {jax.tree_util.keystr(path, simple=True, separator="/"): tuple(x.shape) for path, x in leaves}
    there = {name: one.shape for name, one in saved.items()}
    if wanted != there:
        name = min(name for name in {*wanted, *there} if wanted.get(name) != there.get(name))
        raise FlanError(
            f"the optimizer's state of step {step} of {checkpoint} is of another optimizer or model ({name} is "
            f"{there.get(name, 'absent')} there, and {wanted.get(name, 'absent')} here): {_ANEW}."
        )


def refuse_another(checkpoint: str, saved: Any, wanted: Any) -> None:
    """Refuses the state of an optimizer with another name. Its arrays may fit and yet mean something else.

    Args:
      checkpoint: the checkpoint folder.
      saved: the optimizer in the checkpoint's run.json; None if there is none.
      wanted: the optimizer of this run.

    Raises:
      FlanError: if so.
    """
    both = [one.get("name") if isinstance(one, Mapping) else None for one in (saved, wanted)]
    if None not in both and both[0] != both[1]:
        raise FlanError(
            f"the optimizer's state of {checkpoint} is {both[0]}'s, and OPTIMIZER is {both[1]}: {_ANEW}, or take "
            f"OPTIMIZER={both[0]!r}."
        )


def refuse_offset(optimizer: Any, start: Start) -> None:
    """Refuses an offset of Adafactor's step if its average has counted no steps, because it would be NaN.

    Raises:
      FlanError: if so.
    """
    offset = getattr(optimizer, "description", {}).get("step_offset", 0)
    if offset and not start.optimizer_state:
        raise FlanError(
            f"adafactor.step_offset is {offset}, and the average of a new run begins at 0: leave step_offset out, or "
            "take the state that has counted these steps by INITIAL_OPTIMIZER_STATE=True."
        )


def _at(tree: Any, path: nested.Path) -> Any:
    for name in path:
        tree = tree[name]
    return tree
