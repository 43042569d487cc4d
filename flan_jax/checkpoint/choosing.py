"""Chooses which step of a checkpoint folder is read: the last complete one, or the one before a damaged one."""

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
START = "python -m flan_jax.convert --step={step} makes a folder to start from"  # how a new run takes another step
TRAIN = "ON_DAMAGE='previous' goes on from it"  # how a run that continues takes another step
MARK = "commit_success.txt"  # on object storage, marks a step that is complete
DAMAGED = "damaged"  # beside checkpoints/: steps that a run has skipped because they were damaged


def steps(model_dir: str | AnyPath) -> list[int]:
    """The steps that are completely saved, in order. Any process may call this alone, unlike Orbax's function.

    Raises:
      FlanError: the folder cannot be read.
    """
    folder = user_path(model_dir) / "checkpoints"
    try:
        named = [path for path in folder.iterdir() if path.name.isascii() and path.name.isdecimal()]

        # Orbax renames a step when it is complete. Where nothing can be renamed, it writes this file last.
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
    """Steps on object storage that were complete once but have no `commit_success.txt`, in order.

    Their copy was not finished or came from elsewhere, or the run was killed just before it wrote the mark. Orbax would
    take them for half-saved, and remove them.
    """
    folder = user_path(model_dir) / "checkpoints"
    if not is_remote(folder):
        return []

    def was_whole(path: AnyPath) -> bool:  # Orbax writes the time after everything else, and then the mark
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
    """The last step that is completely saved, or None."""
    found = steps(model_dir)
    return found[-1] if found else None


def choose_step(model_dir: str | AnyPath, on_damage: str = STOP) -> int | None:
    """The step from which a run continues; None if there is none. In a pod, process 0 decides and tells the others.

    Args:
      model_dir: a checkpoint folder.
      on_damage: what to do if the newest step is damaged. "stop" only checks the step's metadata; whoever restores the
        step checks its numbers. "previous" reads the whole step, once more than needed, and each process reads its
        share. If it is damaged, the last complete step before it is taken. Damaged steps are moved to
        MODEL_DIR/damaged, because the run could not save those steps again otherwise.

    Raises:
      FlanError: the newest step is damaged (the message says which step could be taken), no step is complete, or the
        hosts of the pod do not see the same folder.
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
    """Reads the whole of a step that nobody will restore. In a pod all processes call it, and each reads its share.

    Raises:
      FlanError: it is damaged.
    """
    if what := stored.fault(model_dir, step, together=True):
        raise FlanError(distributed.decided(lambda: _damage(model_dir, step, what, stored.ITEMS, TRAIN)))


def _mark_whole(folder: AnyPath, on_damage: str) -> list[tuple[int, str]]:
    """Marks complete steps without a mark, because Orbax would remove them; returns what is wrong with the others.

    Raises:
      FlanError: a step is not complete, and `on_damage` is "stop".
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
    """The step that is read; None stands for the last. In a pod, process 0 decides and tells the others.

    Raises:
      FlanError: the step is not there, none is complete, or the hosts of the pod do not see the same folder.
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
    """A block that reads a step. If the step is damaged, the error says which earlier step could be taken.

    Args:
      model_dir: a checkpoint folder.
      step: the step.
      items: the items that are read.
      how: how the user can take another step, with {step} in it.
      wanted: trees of shapes, by item. A step that was saved with exactly these and cannot be read is damaged.
    """
    try:
        yield
    except FlanError as error:
        # In a pod the others may be waiting, so one process alone does not read everything.
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
