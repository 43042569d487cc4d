"""Saves checkpoints: at regular steps, at the last step, and when a hook asks; and decides which ones stay."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from flan_jax.checkpoint import keeping, saving
from flan_jax.training import comparing
from flan_jax.training.hooks.context import Context
from flan_jax.training.hooks.keeping_best import KeepingBest
from flan_jax.training.state import saved_parts


class Saving:
    """Saves the state; each process saves its own shards. It is the last hook, after all that may ask for a save."""

    def __init__(
        self,
        period: int,
        keep: int,
        every: int | None = None,
        best: KeepingBest | None = None,
        allowed: Callable[[], None] = lambda: None,
    ) -> None:
        """Sets when checkpoints are saved and which stay.

        Args:
          period: steps between checkpoints; the last step is always saved.
          keep: how many of the last checkpoints stay.
          every: checkpoints at multiples of so many steps stay for good.
          best: keeps the checkpoints with the best figure.
          allowed: called before a save; raises if this process may no longer write to the folder.
        """
        self._period, self._keep, self._every, self._best = period, keep, every, best
        self._allowed = allowed
        self._saver: saving.Saver | None = None

    def start(self, context: Context) -> None:
        """Opens the folder of checkpoints."""
        of_best = () if self._best is None else (self._best.best, self._best.figure_of)
        policy = keeping.policy(self._keep, self._every, *of_best)
        self._saver = saving.Saver(context.folder, policy, comparing.identity(context.run))
        context.wait_for_saves = self._saver.wait

    def pauses(self, context: Context, step: int) -> bool:
        """Whether this step is saved."""
        return context.save_wanted or step % self._period == 0 or step == context.run.train_steps

    def after_step(self, context: Context, step: int, values: Mapping[str, Any]) -> None:
        """Saves if it is time, and checks whether an earlier save has failed."""
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
        """Waits until everything is saved; but not after an error in a pod, because other processes may be gone."""
        if self._saver is not None:
            error = context.error
            self._saver.__exit__(type(error) if error else None, error, error.__traceback__ if error else None)
