"""Saves steps to a checkpoint folder, `checkpoints/<step>/`, by Orbax, while the run goes on."""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from collections.abc import Iterator
from typing import Any

import jax
import orbax.checkpoint as ocp

from flan_jax.checkpoint import choosing, digests, keeping, saved_digests, stored
from flan_jax.checkpoint.keeping import Keeping
from flan_jax.errors import FlanError, StorageError, cannot
from flan_jax.files import AnyPath, is_remote, orbax_folder, remove_folder, user_path, written

# Seconds: what was removed is gone if it stays away for the first; it is watched for the second.
_STAYS_AWAY, _PATIENCE = 0.5, 10.0


def manager(model_dir: str | AnyPath, keep: Keeping | None = None) -> ocp.CheckpointManager:
    """Orbax's manager for a folder: to save, if `keep` says which checkpoints stay; otherwise only to read."""
    options = ocp.CheckpointManagerOptions(
        preservation_policy=keep,
        create=keep is not None,
        cleanup_tmp_directories=keep is not None,  # removes what a killed run has left half-saved
        # Does not open each step's metadata, so that a damaged one does not stop the others.
        lightweight_initialize=True,
    )
    folder = orbax_folder(user_path(model_dir) / "checkpoints", to_write=keep is not None)
    return ocp.CheckpointManager(folder, options=options, item_names=(*stored.ITEMS, saved_digests.ITEM))


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """A block that writes. Without it, Orbax would log every failure several times, each with a traceback.

    If one array cannot be written, Orbax closes its event loop. TensorStore then makes Python print a traceback for
    every other write that ends afterwards.
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
    """Saves training states. As a context manager, it waits for the last save at the end.

    Arrays are written while the caller goes on, so a full disk is noticed later: `check` reports it as soon as
    possible. What a failed save has written is removed.
    """

    def __init__(self, model_dir: str | AnyPath, keep: Keeping | int = 2, saved_by: str | None = None) -> None:
        """Opens the folder.

        Args:
          model_dir: a checkpoint folder.
          keep: which checkpoints stay, or how many of the last ones.
          saved_by: which training this is, `training.comparing.identity`, which each step keeps; None if it is none.
        """
        self._folder = user_path(model_dir)
        self._saved_by = saved_by
        self._step: int | None = None
        self._quietly = contextlib.ExitStack()
        self._quietly.enter_context(quietly())
        with self._failing():
            self._manager = manager(model_dir, keeping.policy(keep) if isinstance(keep, int) else keep)

    def save(self, step: int, params: Any, opt_state: Any = None, ema: Any = None, adapters: Any = None) -> None:
        """Starts a save, after waiting for the one before. A step becomes visible when it is complete.

        Args:
          step: the step's number.
          params: the parameters; None if only adapters are saved.
          opt_state: the optimizer's state, if there is one.
          ema: the mean of the trained parameters over steps, if there is one.
          adapters: adapters of the model that `adapters.Base` names.

        Raises:
          FlanError: an array holds NaN or infinity (the message names it, and nothing is saved), or this save or the
            one before it failed.
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
        items[saved_digests.ITEM] = ocp.args.JsonSave(saved_digests.to_dict(step, saved, self._saved_by))
        with self._failing():
            note = saved_digests.note(self._saved_by)
            is_taken = self._manager.save(step, args=ocp.args.Composite(**items), custom_metadata=note)
        if not is_taken:
            there = choosing.steps(self._folder)
            raise FlanError(
                f"step {step} is not saved: {self._folder} already holds step {there[-1] if there else step}, from "
                "which this run did not start; give another folder, or remove the steps that are not wanted."
            )

    def check(self) -> None:
        """Reports a failure of a started save. Returns at once.

        Raises:
          FlanError: a save has failed; the message names the last complete step.
        """
        with self._failing():
            # Orbax gives an error to the first who asks. Were it taken here by `check_for_errors`, Orbax's thread that
            # ends the save would miss it, and remove the older steps as if this one were complete.
            if not self._manager.is_saving_in_progress():
                self._manager.wait_until_finished()

    def wait(self) -> None:
        """Waits until all started saves are complete.

        Raises:
          FlanError: a save failed.
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
            except Exception as error:  # any error, even a timeout, means that the step was not saved
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
            except (OSError, StorageError):  # the first error is reported, not that this cannot be read either
                last = "which checkpoints are there cannot be seen now"
            raise FlanError(f"{str(error).rstrip('.')}; {last}.") from error

    def _whole(self) -> list[int]:
        folder = self._folder / "checkpoints"
        found = folder.glob("[0-9]*")
        if is_remote(folder):  # nothing is renamed there; Orbax marks a complete step instead
            found = (path.parent for path in folder.glob(f"[0-9]*/{choosing.MARK}"))
        return [int(path.name) for path in found if path.name.isdigit()]

    def _abandon(self) -> None:
        """Removes what a failed save has written."""
        if jax.process_count() > 1:
            return  # the other processes may still be writing; Orbax removes it at the next start
        with contextlib.suppress(Exception):
            self._manager.close()  # raises the same error once more
        if is_remote(self._folder):
            return  # nothing has its own name there while it is written; Orbax removes it at the next start
        # If one array could not be written, TensorStore still ends the writes of others, and makes their folders again.
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
                return  # the other processes may be gone, and closing would wait for them
            # The error that ended the run is reported, not that a save failed as well.
            with contextlib.suppress(FlanError) if error[0] is not None else contextlib.nullcontext():
                self.wait()
                with self._failing():
                    self._manager.close()
        finally:
            self._quietly.close()
