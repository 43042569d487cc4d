"""Checkpoints: every so many steps, at the last, and where a hook asks for one; and which of them stay."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from flan_jax import parts
from flan_jax.checkpoint import arrays, keeping
from flan_jax.errors import FlanError, near_names
from flan_jax.training.hooks import earlier
from flan_jax.training.hooks.context import Context
from flan_jax.training.state import saved_parts


class Saving:
    """Saves the state, each process its own shards. The last of the hooks: whatever asks for a save comes before."""

    def __init__(
        self,
        period: int,
        keep: int,
        every: int | None = None,
        best: keeping.Best | None = None,
        known: bool = False,
        allowed: Callable[[], None] = lambda: None,
    ) -> None:
        """Args.

        period: steps between checkpoints; the last step is always saved.
        keep: how many of the last ones stay.
        every: those of all multiples of so many steps stay for good.
        best: which stay for a figure of their step.
        known: whether nobody writes figures but training itself, so that a name which is none of them is wrong.
        allowed: called before a save; raises where this process may not write to the folder any more.
        """
        self._period, self._keep, self._every, self._best, self._known = period, keep, every, best, known
        self._allowed = allowed
        self._figures: dict[int, float | None] = {}
        self._saver: arrays.Saver | None = None

    def start(self, context: Context) -> None:
        """Opens the folder."""
        if self._best is not None:
            known = earlier.figures_of(context, arrays.steps(context.folder))
            self._figures = {step: earlier.figure(figures, self._best.figure) for step, figures in known.items()}
        policy = keeping.policy(self._keep, self._every, self._best, self._figures.get)
        self._saver = arrays.Saver(context.folder, keep=policy)
        context.wait_for_saves = self._saver.wait

    def pauses(self, context: Context, step: int) -> bool:
        """Whether this step is saved."""
        return context.save_wanted or step % self._period == 0 or step == context.run.train_steps

    def after_step(self, context: Context, step: int, values: Mapping[str, Any]) -> None:
        """Saves, where it is time, and looks whether an earlier save has failed."""
        self._saver.check()
        if self._known and self._best is not None and step == context.first_step + 1:
            self._refuse_unknown(context, values)
        if context.paused and self.pauses(context, step):
            context.tell("before_save", step)
            self._allowed()
            state = context.state()
            self._look(context, step, values)
            params, adapters = saved_parts(context.network, state.params)
            self._saver.save(step, params, state.opt_state, state.ema, adapters)
            context.save_wanted = False
            context.tell("after_save", step)

    def _refuse_unknown(self, context: Context, values: Mapping[str, Any]) -> None:
        figures = dict(values) | context.later  # a step need not have rows of all datasets
        names = context.stream.parts
        figures["dataset_loss"] = {parts.dataset_of(name): 0.0 for name in names}
        figures["cluster_loss"] = {parts.cluster_of(name): 0.0 for name in names}
        if len(figures["dataset_loss"]) < len(names):
            figures["part_loss"] = dict.fromkeys(names, 0.0)
        if earlier.figure(figures, self._best.figure) is None:
            near = near_names(self._best.figure, earlier.names(figures))
            raise FlanError(f"KEEP_BEST: a step has no figure {self._best.figure!r}: {near}")

    def _look(self, context: Context, step: int, values: Mapping[str, Any]) -> None:
        if self._best is None:
            return
        self._figures[step] = earlier.figure(values, self._best.figure)
        if self._figures[step] is None and context.primary:
            have = "; no step so far had it" if all(x is None for x in self._figures.values()) else ""
            print(
                f"KEEP_BEST: step {step} has no figure {self._best.figure!r}, so that it is none of the best{have}.",
                flush=True,
            )

    def end(self, context: Context) -> None:
        """Waits until all is saved; not after an error in a pod, whose other processes may be gone."""
        if self._saver is not None:
            error = context.error
            self._saver.__exit__(type(error) if error else None, error, error.__traceback__ if error else None)
