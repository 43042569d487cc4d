"""Checkpoints: every so many steps, at the last, and where a hook asks for one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flan_jax.checkpoint import arrays
from flan_jax.training.hooks.context import Context


class Saving:
    """Saves the state, each process its own shards. The last of the hooks: whatever asks for a save comes before."""

    def __init__(self, period: int, keep: int) -> None:
        """Args.

        period: steps between checkpoints; the last step is always saved.
        keep: how many of them stay.
        """
        self._period, self._keep = period, keep
        self._saver: arrays.Saver | None = None

    def start(self, context: Context) -> None:
        """Opens the folder."""
        self._saver = arrays.Saver(context.folder, keep=self._keep)
        context.wait_for_saves = self._saver.wait

    def pauses(self, context: Context, step: int) -> bool:
        """Whether this step is saved."""
        return context.save_wanted or step % self._period == 0 or step == context.run.train_steps

    def after_step(self, context: Context, step: int, values: Mapping[str, Any]) -> None:
        """Saves, where it is time, and looks whether an earlier save has failed."""
        self._saver.check()
        if context.paused and self.pauses(context, step):
            context.tell("before_save", step)
            state = context.state()
            self._saver.save(step, state.params, state.opt_state)
            context.save_wanted = False
            context.tell("after_save", step)

    def end(self, context: Context) -> None:
        """Waits until all is saved; not after an error in a pod, whose other processes may be gone."""
        if self._saver is not None:
            error = context.error
            self._saver.__exit__(type(error) if error else None, error, error.__traceback__ if error else None)
