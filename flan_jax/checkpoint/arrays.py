"""The arrays of a checkpoint folder, `checkpoints/<step>/`, read and written by Orbax."""

from __future__ import annotations

import contextlib
import json
import logging
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import orbax.checkpoint as ocp

from flan_jax import distributed, models, partitioning
from flan_jax.checkpoint import adapters, digests, keeping, place, stored
from flan_jax.checkpoint.keeping import Keeping
from flan_jax.checkpoint.manifest import Manifest
from flan_jax.data import vocabularies
from flan_jax.errors import FlanError, StorageError, cannot
from flan_jax.files import (
    AnyPath,
    is_remote,
    move_folder,
    orbax_folder,
    remove_folder,
    user_path,
    write_atomic,
    written,
)
from flan_jax.models import lora, nested, prompt

STOP, PREVIOUS = ON_DAMAGE = ("stop", "previous")  # what `choose_step` does about a damaged newest step
STEP = "give --step={step}, or STEP={step} in gin"  # how the commands that read a checkpoint take another step
START = "python -m flan_jax.convert --step={step} makes a folder to start from"  # how a new run does
TRAIN = "ON_DAMAGE='previous' goes on from it"  # and how a run that goes on
_MARK = "commit_success.txt"  # of a step on object storage that is whole
DAMAGED = "damaged"  # beside checkpoints/: steps that a run has gone on without
_STAYS_AWAY, _PATIENCE = 0.5, 10.0  # seconds: what was removed is gone when it stays away so long; looked at so long


def _manager(model_dir: str | AnyPath, keep: Keeping | None = None) -> ocp.CheckpointManager:
    options = ocp.CheckpointManagerOptions(
        preservation_policy=keep,
        create=keep is not None,
        cleanup_tmp_directories=keep is not None,  # what a killed run has left half-saved
        lightweight_initialize=True,  # no look into what each step says of itself: damage must not stop the others
    )
    folder = orbax_folder(user_path(model_dir) / "checkpoints")
    return ocp.CheckpointManager(folder, options=options, item_names=(*stored.ITEMS, digests.ITEM))


def steps(model_dir: str | AnyPath) -> list[int]:
    """The steps that are saved whole, in order. Any process may ask by itself, which it may not of Orbax.

    Raises:
      FlanError: the folder cannot be read.
    """
    folder = user_path(model_dir) / "checkpoints"
    try:
        named = [path for path in folder.iterdir() if path.name.isascii() and path.name.isdecimal()]

        # Orbax renames a step when it is whole, and where nothing can be renamed it writes this file last.
        def is_whole(path: AnyPath) -> bool:
            return (path / _MARK).exists() if is_remote(path) else path.is_dir()

        return sorted(int(path.name) for path in named if str(int(path.name)) == path.name and is_whole(path))
    except FileNotFoundError:
        return []
    except OSError as error:
        if isinstance(error, NotADirectoryError) and not user_path(model_dir).is_dir():
            return []
        raise cannot("read the steps of", folder, error) from error


def _unmarked(model_dir: str | AnyPath) -> list[int]:
    """Steps on object storage that were whole once and have no `commit_success.txt`, in order.

    Their copy was not finished or came from elsewhere, or the run was killed just before it wrote the mark. Orbax would
    take them for half-saved, and remove them.
    """
    folder = user_path(model_dir) / "checkpoints"
    if not is_remote(folder):
        return []

    def was_whole(path: AnyPath) -> bool:  # Orbax writes the time after all else, and then the mark
        try:
            told = json.loads((path / "_CHECKPOINT_METADATA").read_text())
            return bool(told.get("commit_timestamp_nsecs"))
        except (FileNotFoundError, NotADirectoryError, ValueError, AttributeError):
            return False

    try:
        named = [path for path in folder.iterdir() if path.name.isascii() and path.name.isdecimal()]
    except (FileNotFoundError, NotADirectoryError):
        return []
    whole = steps(model_dir)
    return sorted(int(path.name) for path in named if int(path.name) not in whole and was_whole(path))


def _unfinished(folder: AnyPath, step: int) -> str:
    return (
        f"step {step} of {folder} has no {_MARK}, which comes last: its copy was not finished; copy it anew, or "
        f"remove {digests.step_folder(folder, step)}"
    )


def latest_step(model_dir: str | AnyPath) -> int | None:
    """The last step that is saved whole, or None."""
    found = steps(model_dir)
    return found[-1] if found else None


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Around writing: Orbax logs every failure that it raises, with its traceback, several times.

    Where one array's write fails, Orbax closes its event loop, and TensorStore has Python print a traceback for each
    other write that ends afterwards and finds nobody to tell.
    """
    log = logging.getLogger("absl")
    level = log.level
    told = sys.unraisablehook

    def tell(what: Any) -> None:
        if what.object is not None or str(what.exc_value) != "Event loop is closed":
            told(what)

    log.setLevel(logging.CRITICAL)
    sys.unraisablehook = tell
    try:
        yield
    finally:
        log.setLevel(level)
        if sys.unraisablehook is tell:
            sys.unraisablehook = told


class Saver:
    """Saves training states; a context manager that waits for the last one at the end.

    Arrays are written while the caller goes on, so that a full disk shows later: `check` says so as soon as it does.
    What a save that failed has written is removed.
    """

    def __init__(self, model_dir: str | AnyPath, keep: Keeping | int = 2) -> None:
        """Args.

        model_dir: a checkpoint folder.
        keep: which checkpoints stay, or how many of the last ones.
        """
        self._folder = user_path(model_dir)
        self._step: int | None = None
        self._quietly = contextlib.ExitStack()
        self._quietly.enter_context(quietly())
        with self._failing():
            self._manager = _manager(model_dir, keeping.policy(keep) if isinstance(keep, int) else keep)

    def save(self, step: int, params: Any, opt_state: Any = None, ema: Any = None, adapters: Any = None) -> None:
        """Starts saving; a step becomes visible when it is whole. Waits for the save before it.

        Args:
          step: its number.
          params: the parameters; None where adapters alone are saved.
          opt_state: the optimizer's state, if there is one.
          ema: the mean of the trained parameters over steps, if there is one.
          adapters: of a model that `adapters.Base` names.

        Raises:
          FlanError: an array holds numbers that are not finite: it is named, and nothing is saved. Or this save, or
            the one before it, failed.
        """
        given = {stored.PARAMS: params, stored.ADAPTERS: adapters, stored.OPT_STATE: opt_state, stored.EMA: ema}
        trees = {name: tree for name, tree in given.items() if tree is not None}
        self.wait()
        self._step = step
        with self._failing():
            found = {name: digests.measure(tree) for name, tree in trees.items()}
        for name, by_path in found.items():
            digests.refuse_not_finite(
                by_path, f"step {step} is not saved: {name}", "lower the learning rate and run again"
            )
        items: dict[str, Any] = {
            name: ocp.args.StandardSave(tree, save_args=stored.chunked(tree)) for name, tree in trees.items()
        }
        saved = {name: {path: x.digest for path, x in by_path.items()} for name, by_path in found.items()}
        items[digests.ITEM] = ocp.args.JsonSave(digests.to_dict(step, saved))
        with self._failing():
            is_taken = self._manager.save(step, args=ocp.args.Composite(**items), custom_metadata=digests.NOTE)
        if not is_taken:
            there = steps(self._folder)
            raise FlanError(
                f"step {step} is not saved: {self._folder} already holds step {there[-1] if there else step}, from "
                "which this run did not start; give another folder, or remove the steps that are not wanted."
            )

    def check(self) -> None:
        """Returns at once.

        Raises:
          FlanError: what was started has failed in the meantime; it names the last step that is whole.
        """
        with self._failing():
            self._manager.check_for_errors()
            # Orbax's own thread may have taken the error first; it is told where one waits for that thread.
            if not self._manager.is_saving_in_progress():
                self._manager.wait_until_finished()

    def wait(self) -> None:
        """Returns when all that was started is saved.

        Raises:
          FlanError: it failed.
        """
        with self._failing():
            self._manager.wait_until_finished()

    @contextlib.contextmanager
    def _failing(self) -> Iterator[None]:
        doing = "make checkpoints in" if self._step is None else f"save step {self._step} in"
        try:
            try:
                with written(self._folder, doing):
                    yield
            except FlanError:
                raise
            except Exception as error:  # whatever it is, a timeout for one: what was to be saved is not there
                raise cannot(doing, self._folder, error) from error
        except FlanError as error:
            self._abandon()
            try:
                whole = self._whole()
                last = (
                    f"the last whole checkpoint there is of step {max(whole)}"
                    if whole
                    else "no checkpoint is there yet"
                )
            except (OSError, StorageError):  # what ended the run is said, and not that this cannot be seen either
                last = "which checkpoints are there cannot be seen now"
            raise FlanError(f"{str(error).rstrip('.')}; {last}.") from error

    def _whole(self) -> list[int]:
        folder = self._folder / "checkpoints"
        found = folder.glob("[0-9]*")
        if is_remote(folder):  # where nothing is renamed when it is whole, and Orbax marks it
            found = (path.parent for path in folder.glob(f"[0-9]*/{_MARK}"))
        return [int(path.name) for path in found if path.name.isdigit()]

    def _abandon(self) -> None:
        """Removes what a save that failed has written."""
        if jax.process_count() > 1:
            return  # the other processes may still be writing; Orbax removes it at the next start
        with contextlib.suppress(Exception):
            self._manager.close()  # which raises the same error once more
        if is_remote(self._folder):
            return  # nothing has a name of its own there while it is written; Orbax removes it at the next start
        # Where one array could not be written, TensorStore still ends writes of others, and makes their folders anew.
        gone_since, deadline = time.monotonic(), time.monotonic() + _PATIENCE
        while gone_since + _STAYS_AWAY > time.monotonic() and time.monotonic() < deadline:
            for left in (self._folder / "checkpoints").glob("*.orbax-checkpoint-tmp*"):
                remove_folder(left)
                gone_since = time.monotonic()
            time.sleep(0.02)

    def __enter__(self) -> Saver:
        return self

    def __exit__(self, *error: Any) -> None:
        try:
            if error[0] is not None and jax.process_count() > 1:
                return  # the other processes may be gone, and what is closed here would wait for them
            # What ended the run is said, and not that a save failed as well.
            with contextlib.suppress(FlanError) if error[0] is not None else contextlib.nullcontext():
                self.wait()
                with self._failing():
                    self._manager.close()
        finally:
            self._quietly.close()


def _with_shardings(abstract: Any, shardings: Any) -> Any:
    return jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), abstract, shardings)


def choose_step(model_dir: str | AnyPath, on_damage: str = STOP) -> int | None:
    """The step from which a run goes on, or None where there is none. In a pod process 0 decides, and tells the others.

    Args:
      model_dir: a checkpoint folder.
      on_damage: what to do where the newest step is damaged. "stop" looks at what it says of itself, and leaves its
        numbers to whoever restores them. "previous" reads all of it, once more than otherwise, each process its share;
        where it is damaged, the one before that is whole is taken, and the damaged ones are moved to
        MODEL_DIR/damaged, for else the run could not save those steps again.

    Raises:
      FlanError: the newest step is damaged, and which could be taken; or none is whole; or the hosts of the pod do not
        see the same folder.
    """
    if on_damage not in ON_DAMAGE:
        raise FlanError(f"ON_DAMAGE is {on_damage!r}: it has to be 'stop' or 'previous'.")
    folder = user_path(model_dir)
    damaged = _mark_whole(folder, on_damage)
    found = distributed.decided(lambda: steps(folder))
    for step in reversed(found):
        place.check_step(folder, step)
        if on_damage == STOP:
            if what := distributed.decided(lambda s=step: stored.unreadable(folder, s)):
                raise FlanError(distributed.decided(lambda s=step, w=what: _damage(folder, s, w, stored.ITEMS, TRAIN)))
        elif what := stored.fault(folder, step, together=True):
            damaged.append((step, what))
            continue
        distributed.decided(lambda s=step: _move_aside(folder, damaged, s))
        return step
    if damaged:
        step, what = damaged[0]
        raise FlanError(
            f"step {step} of {folder} is damaged: {what}; none of the steps there is whole: copy them "
            "anew, or start a new run in another folder."
        )
    place.check_step(folder, None)
    return None


def refuse_damaged(model_dir: str | AnyPath, step: int) -> None:
    """Reads all of a step that nobody is going to restore. In a pod all processes call it, and each reads its share.

    Raises:
      FlanError: it is damaged.
    """
    if what := stored.fault(model_dir, step, together=True):
        raise FlanError(distributed.decided(lambda: _damage(model_dir, step, what, stored.ITEMS, TRAIN)))


def _mark_whole(folder: AnyPath, on_damage: str) -> list[tuple[int, str]]:
    """Marks steps that are whole and have no mark, for else they would be removed; what is wrong with the others.

    Raises:
      FlanError: one is not whole, and `on_damage` is "stop".
    """
    damaged = []
    for step in reversed(distributed.decided(lambda: _unmarked(folder))):
        if not (what := stored.fault(folder, step, together=True)):
            distributed.decided(lambda s=step: _mark(folder, s))
        elif on_damage == STOP:
            raise FlanError(f"{_unfinished(folder, step)} ({what}).")
        else:
            damaged.append((step, what))
    return damaged


def _mark(folder: AnyPath, step: int) -> None:
    where = digests.step_folder(folder, step)
    for item in (*stored.ITEMS, digests.ITEM):
        if (where / item).is_dir():
            write_atomic(where / item / _MARK, "")
    write_atomic(where / _MARK, "")
    print(f"step {step} of {folder} is whole and had no {_MARK}: it has one now.", flush=True)


def _move_aside(folder: AnyPath, damaged: Sequence[tuple[int, str]], step: int) -> None:
    for number, what in damaged:
        place = folder / DAMAGED / str(number)
        with written(place, "move a damaged step to"):
            while place.exists():
                place = place.with_name(f"{place.name}_again")
            move_folder(digests.step_folder(folder, number), place)
        print(f"step {number} of {folder} is damaged: {what}; moved to {place}, going on from step {step}.", flush=True)


def _chosen_step(model_dir: str | AnyPath, step: int | None) -> int:
    def choose() -> int:
        found = steps(model_dir)
        if not found:
            if unmarked := _unmarked(model_dir):
                raise FlanError(f"no checkpoint in {model_dir} is whole: {_unfinished(model_dir, unmarked[-1])}.")
            raise FlanError(f"no checkpoint in {model_dir}: checkpoints/ holds no step; convert or train one first.")
        if step is not None and step not in found:
            raise FlanError(f"no step {step} in {model_dir}: there are {', '.join(map(str, found))}.")
        return found[-1] if step is None else step

    chosen = distributed.decided(choose)
    place.check_step(user_path(model_dir), chosen)
    return chosen


def restore_params(
    model_dir: str | AnyPath,
    abstract_params: Any,
    shardings: Any,
    step: int | None = None,
    how: str = STEP,
    which: str = stored.PARAMS,
) -> Any:
    """Reads the parameters, each leaf onto the devices that its sharding names.

    Args:
      model_dir: a checkpoint folder.
      abstract_params: shapes and dtypes.
      shardings: a tree of shardings like it.
      step: None takes the last.
      how: another step is taken, for the error: `STEP` or `START`.
      which: the last parameters or their mean, one of `values.WEIGHTS`.

    Raises:
      FlanError: there is no such checkpoint, it does not fit, or an array is not what was saved.
    """
    chosen = _chosen_step(model_dir, step)
    if (base := adapters.load(model_dir)) is not None:
        return _adapted(model_dir, base, abstract_params, shardings, chosen, how, which)
    wanted = {stored.PARAMS: (abstract_params, shardings)}
    if which != stored.PARAMS:
        averaged = distributed.decided(lambda: sorted(stored.averaged(model_dir, chosen)))
        part = {tuple(name.split("/")) for name in averaged}
        mean = tuple(nested.part(tree, part) for tree in (abstract_params, shardings))
        wanted = {stored.EMA: mean} if part == {*nested.paths(abstract_params)} else wanted | {stored.EMA: mean}
    items = {item: abstract for item, (abstract, _) in wanted.items()}
    with (
        explained(model_dir, chosen, tuple(wanted), how=how, wanted=items),
        contextlib.closing(_manager(model_dir)) as manager,
    ):
        with _readable(model_dir, chosen):
            asked = {item: ocp.args.StandardRestore(_with_shardings(*pair)) for item, pair in wanted.items()}
            found = manager.restore(chosen, args=ocp.args.Composite(**asked))
            trees = {item: found[item] for item in wanted}
        digests.verify(model_dir, chosen, trees)
    return next(iter(trees.values())) if len(trees) == 1 else nested.merged(*trees.values())


def _adapted(
    model_dir: str | AnyPath, base: adapters.Base, abstract: Any, shardings: Any, step: int, how: str, which: str
) -> Any:
    """The parameters of a model with its adapters taken in."""
    where = distributed.decided(lambda: str(base.check()))
    with explained(model_dir, step, (stored.ADAPTERS,), how):
        saved = digests.read(model_dir, step) or {}
    items = (stored.ADAPTERS,)
    if which == stored.EMA:
        stored.averaged(model_dir, step)  # or it is said that there is none
        items += (stored.EMA,)
    own = [path for path in nested.paths(abstract) if not lora.is_adapter(path)]
    params = restore_params(where, nested.part(abstract, own), nested.part(shardings, own), base.step, how)
    whole = jax.sharding.NamedSharding(jax.tree.leaves(shardings)[0].mesh, jax.sharding.PartitionSpec())
    wanted = {}
    for item in items:
        shapes: dict[str, Any] = {}
        for name, one in saved.get(item, {}).items():
            shapes = nested.merged(shapes, nested.at(name.split("/"), jax.ShapeDtypeStruct(one.shape, one.dtype)))
        wanted[item] = shapes, jax.tree.map(lambda _: whole, shapes)
    if any(prompt.SOFT in path for path in nested.paths(wanted[stored.ADAPTERS][0])) != (own != nested.paths(abstract)):
        raise FlanError(
            f"{model_dir} holds a soft prompt, which is no part of a model's own parameters: give {where}, to which it "
            "belongs."
        )
    found = restore_items(model_dir, wanted, step)

    def taken_in(params: Any, *beside: Any) -> Any:
        return lora.merged(nested.merged(params, *beside))

    return jax.jit(taken_in, out_shardings=shardings, donate_argnums=0)(params, *found.values())


def restore_training(
    model_dir: str | AnyPath, abstract: tuple[Any, Any], shardings: tuple[Any, Any], step: int | None = None
) -> tuple[int, Any, Any]:
    """Reads (step, params, opt_state).

    Args:
      model_dir: a checkpoint folder.
      abstract: shapes and dtypes of the two.
      shardings: trees of shardings like them.
      step: what `choose_step` chose; None takes the last.

    Raises:
      FlanError: there is no checkpoint, it does not fit, or an array is not what was saved.
    """
    both = dict(zip((stored.PARAMS, stored.OPT_STATE), zip(abstract, shardings, strict=True), strict=True))
    chosen = _chosen_step(model_dir, step)
    items = restore_items(model_dir, both, chosen)
    return chosen, items[stored.PARAMS], items[stored.OPT_STATE]


def restore_items(model_dir: str | AnyPath, wanted: Mapping[str, tuple[Any, Any]], step: int | None) -> dict[str, Any]:
    """Reads items of a training run's step.

    Args:
      model_dir: a checkpoint folder.
      wanted: by item (`stored.ITEMS`), shapes and dtypes, and shardings.
      step: what `choose_step` chose; None takes the last.

    Raises:
      FlanError: there is no checkpoint, it does not fit, or an array is not what was saved.
    """
    chosen = _chosen_step(model_dir, step)
    remedy = "give another folder, or start a new run from its parameters with INITIAL_CHECKPOINT_PATH"
    empty = {item: one for item, (one, _) in wanted.items() if not jax.tree.leaves(one)}  # an optimizer without a state
    wanted = {item: pair for item, pair in wanted.items() if item not in empty}
    abstract = {item: one for item, (one, _) in wanted.items()}
    with (
        explained(model_dir, chosen, tuple(wanted), TRAIN, abstract),
        contextlib.closing(_manager(model_dir)) as manager,
    ):
        with _readable(model_dir, chosen, remedy):
            asked = {item: ocp.args.StandardRestore(_with_shardings(*pair)) for item, pair in wanted.items()}
            found = manager.restore(chosen, args=ocp.args.Composite(**asked))
            items = {item: found[item] for item in wanted}
        digests.verify(model_dir, chosen, items)
    return items | empty


@contextlib.contextmanager
def explained(
    model_dir: str | AnyPath,
    step: int,
    items: Sequence[str] = (stored.PARAMS,),
    how: str = STEP,
    wanted: Mapping[str, Any] | None = None,
) -> Iterator[None]:
    """Around reading a step: an error of damage says which step before it could be taken.

    Args:
      model_dir: a checkpoint folder.
      step: that is read.
      items: of it that are read.
      how: to take another, with {step} in it.
      wanted: trees of shapes, by item: what was saved with just these and cannot be read, is damaged.
    """
    try:
        yield
    except FlanError as error:
        # In a pod the others may be waiting: one process alone does not read all that there is.
        look = stored.fault if jax.process_count() == 1 else stored.unreadable
        what = look(model_dir, step, items)
        if what is None and wanted is not None and stored.has_shapes(model_dir, step, wanted):
            what = stored.reason(error.__cause__ or error, model_dir)
        if what is None:
            raise
        raise FlanError(_damage(model_dir, step, what, items, how)) from error


def _damage(model_dir: str | AnyPath, step: int, what: str, items: Sequence[str], how: str) -> str:
    alone = jax.process_count() == 1
    look, known = (stored.fault, "is whole") if alone else (stored.unreadable, "can be opened")
    for before in (s for s in reversed(steps(model_dir)) if s < step):
        if look(model_dir, before, items) is None:
            remedy = f"copy the checkpoint anew, or take step {before}, which {known}: {how.format(step=before)}"
            break
    else:
        remedy = "copy the checkpoint anew; there is no step before it that is whole"
    return f"step {step} of {model_dir} is damaged: {what}; {remedy}."


@contextlib.contextmanager
def _readable(model_dir: str | AnyPath, step: int, remedy: str = "give another folder") -> Iterator[None]:
    try:
        yield
    except StorageError:
        raise
    except Exception as error:  # tensorstore and Orbax raise whatever they like
        raise FlanError(
            f"step {step} of {model_dir} cannot be read ({stored.reason(error)}): it is damaged, or was made with "
            f"another model or optimizer; {remedy}."
        ) from error


def load_model(
    model_dir: str | AnyPath,
    step: int | None = None,
    mesh: jax.sharding.Mesh | None = None,
    computation: Mapping[str, Any] | None = None,
    which: str = stored.PARAMS,
) -> tuple[models.Model, Any, vocabularies.Tokenizer, Manifest]:
    """Reads a checkpoint for use: model, parameters, vocabulary and manifest.

    Args:
      model_dir: a checkpoint folder.
      step: which of its checkpoints; None takes the last.
      mesh: where the parameters are laid out; None takes all devices.
      computation: fields of `models.config.COMPUTATION` that differ from the model's own.
      which: the last parameters or their mean, one of `values.WEIGHTS`.

    Raises:
      FlanError: the folder is no checkpoint, lacks the step or is damaged, or the model cannot be computed so here.
    """
    manifest = Manifest.load(model_dir)
    tokenizer = manifest.load_vocabulary(model_dir)
    model = models.build(models.DecoderConfig.from_dict(manifest.model).computed(**(computation or {})))
    mesh = partitioning.make_mesh() if mesh is None else mesh
    models.refuse_attention(model.config.attention, mesh.devices.flat[0].platform)
    if adapters.load(model_dir) is not None:
        step = _chosen_step(model_dir, step)
        with explained(model_dir, step, (stored.ADAPTERS,)):
            saved = digests.read(model_dir, step) or {}
        if (soft := saved.get(stored.ADAPTERS, {}).get("/".join(prompt.PATH))) is not None:
            model = prompt.prompted(model, soft.shape[0])
    abstract = model.abstract_params()
    shardings = partitioning.parameter_shardings(mesh, model.logical_axes(), abstract)
    return model, restore_params(model_dir, abstract, shardings, step, which=which), tokenizer, manifest
