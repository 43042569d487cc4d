"""Checkpoints: every so many steps, at the last, and where a hook asks for one; and which of them stay."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from flan_jax.checkpoint import keeping, saving
from flan_jax.training.hooks.context import Context
from flan_jax.training.hooks.keeping_best import KeepingBest
from flan_jax.training.state import saved_parts


class Saving:
    """Saves the state, each process its own shards. The last of the hooks: whatever asks for a save comes before."""

    def __init__(
        self,
        period: int,
        keep: int,
        every: int | None = None,
        best: KeepingBest | None = None,
        allowed: Callable[[], None] = lambda: None,
    ) -> None:
        """Args.

        period: steps between checkpoints; the last step is always saved.
        keep: how many of the last ones stay.
        every: those of all multiples of so many steps stay for good.
        best: which stay for a figure of their step.
        allowed: called before a save; raises where this process may not write to the folder any more.
        """
        self._period, self._keep, self._every, self._best = period, keep, every, best
        self._allowed = allowed
        self._saver: saving.Saver | None = None

    def start(self, context: Context) -> None:
        """Opens the folder."""
        of_best = () if self._best is None else (self._best.best, self._best.figure_of)
        policy = keeping.policy(self._keep, self._every, *of_best)
        self._saver = saving.Saver(context.folder, keep=policy)
        context.wait_for_saves = self._saver.wait

    def pauses(self, context: Context, step: int) -> bool:
        """Whether this step is saved."""
        return context.save_wanted or step % self._period == 0 or step == context.run.train_steps

    def after_step(self, context: Context, step: int, values: Mapping[str, Any]) -> None:
        """Saves, where it is time, and looks whether an earlier save has failed."""
        self._saver.check()
        if context.paused and self.pauses(context, step):
            context.tell("before_save", step)
            self._allowed()
            state = context.state()
            params, adapters = saved_parts(context.network, state.params)
            self._saver.save(step, params, state.opt_state, state.ema, adapters)
            context.save_wanted = False
            context.tell("after_save", step)

    def end(self, context: Context) -> None:
        """Waits until all is saved; not after an error in a pod, whose other processes may be gone."""
        if self._saver is not None:
            error = context.error
            self._saver.__exit__(type(error) if error else None, error, error.__traceback__ if error else None)
