"""Which step of a checkpoint folder is read: the last that is whole, or the one before a damaged one."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax

from flan_jax import distributed
from flan_jax.checkpoint import place, saved_digests, stored
from flan_jax.errors import FlanError, cannot
from flan_jax.files import AnyPath, is_remote, move_folder, user_path, write_atomic, written

STOP, PREVIOUS = ON_DAMAGE = ("stop", "previous")  # what `choose_step` does about a damaged newest step
STEP = "give --step={step}, or STEP={step} in gin"  # how the commands that read a checkpoint take another step
START = "python -m flan_jax.convert --step={step} makes a folder to start from"  # how a new run does
TRAIN = "ON_DAMAGE='previous' goes on from it"  # and how a run that goes on
MARK = "commit_success.txt"  # of a step on object storage that is whole
DAMAGED = "damaged"  # beside checkpoints/: steps that a run has gone on without


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
            return (path / MARK).exists() if is_remote(path) else path.is_dir()

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
        f"step {step} of {folder} has no {MARK}, which comes last: its copy was not finished; copy it anew, or "
        f"remove {saved_digests.step_folder(folder, step)}"
    )


def latest_step(model_dir: str | AnyPath) -> int | None:
    """The last step that is saved whole, or None."""
    found = steps(model_dir)
    return found[-1] if found else None


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
    where = saved_digests.step_folder(folder, step)
    for item in (*stored.ITEMS, saved_digests.ITEM):
        if (where / item).is_dir():
            write_atomic(where / item / MARK, "")
    write_atomic(where / MARK, "")
    print(f"step {step} of {folder} is whole and had no {MARK}: it has one now.", flush=True)


def _move_aside(folder: AnyPath, damaged: Sequence[tuple[int, str]], step: int) -> None:
    for number, what in damaged:
        place = folder / DAMAGED / str(number)
        with written(place, "move a damaged step to"):
            while place.exists():
                place = place.with_name(f"{place.name}_again")
            move_folder(saved_digests.step_folder(folder, number), place)
        print(f"step {number} of {folder} is damaged: {what}; moved to {place}, going on from step {step}.", flush=True)


def chosen_step(model_dir: str | AnyPath, step: int | None) -> int:
    """The step that is read, None for the last. In a pod process 0 decides, and tells the others.

    Raises:
      FlanError: it is not there, or none is whole; or the hosts of the pod do not see the same folder.
    """

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
