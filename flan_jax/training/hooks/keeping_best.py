"""Saves a step when an evaluation finds it among the best, and keeps it besides the last ones.

Choosing a step uses data. If a dataset has chosen the step, a score on that dataset is no longer zero-shot. The paper
chooses no step; others choose by data that they tune on. So a figure of data that the run holds out, or that may or may
not have been seen, can be watched but cannot choose. The hook that writes such a figure says so in `Context.no_choice`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flan_jax import parts
from flan_jax.checkpoint import choosing, keeping
from flan_jax.errors import FlanError, near_names
from flan_jax.training.hooks import earlier
from flan_jax.training.hooks.context import Context


class KeepingBest:
    """Knows the figures of saved steps, also of earlier starts, and asks for a save if a step is among the best.

    Only figures that are written at some steps (`Context.later`), such as those of an evaluation, ask for a save.
    Figures of every step would be the best too often; they count when a step is saved anyway.

    Attributes:
      best: the figure, and how many of the best stay.
    """

    def __init__(self, best: keeping.Best, known: bool = False) -> None:
        """Starts without any figures.

        Args:
          best: the figure, and how many of the best stay.
          known: whether only training itself writes figures, so that any other name is wrong.
        """
        self.best, self._known = best, known
        self._figures: dict[int, float | None] = {}

    def figure_of(self, step: int) -> float | None:
        """The figure of a saved step; None if there is none, or it is not finite."""
        return self._figures.get(step)

    def start(self, context: Context) -> None:
        """Reads the figures of earlier starts.

        Raises:
          FlanError: the figure may not choose, its better end is excluded, or the figures of saved steps are lost, so
            that the best of them would be removed.
        """
        name, outer = self.best.figure, self.best.figure.partition("/")[0]
        of_evaluation = outer in (*keeping.DEV_LOSSES, *keeping.DEV_SCORES)
        if of_evaluation and outer not in context.later:
            raise FlanError(f"KEEP_BEST: {name!r} is a figure of an evaluation, and there is none: give EVAL_PERIOD.")
        if (why := context.no_choice.get(name)) is not None:
            raise FlanError(f"KEEP_BEST: {why}")
        if outer in context.later:
            if earlier.figure(context.later, name) is None:
                near = near_names(name, (one for one in earlier.names(context.later) if one not in context.no_choice))
                writes = "the evaluation writes" if of_evaluation else "HOOKS write"
                raise FlanError(f"KEEP_BEST: {writes} no figure {name!r}: {near}")
            if of_evaluation and self.best.order != keeping.better(name):
                raise FlanError(
                    f"KEEP_BEST: {name!r} is better the other way round: write 'best': {keeping.better(name)!r}, or "
                    "leave it out."
                )
        saved = [step for step in choosing.steps(context.folder) if 0 < step <= context.first_step]
        known = earlier.figures_of(context, saved)
        if lost := [str(step) for step in saved if step not in known]:
            raise FlanError(
                f"KEEP_BEST: {context.folder / 'metrics.jsonl'} has no line of step {', '.join(lost)}, which may be "
                "the best: put the log back, or leave KEEP_BEST out (KEEP_EVERY keeps steps without a figure)."
            )
        self._figures = {step: earlier.figure(figures, name) for step, figures in known.items()}

    def after_step(self, context: Context, step: int, values: Mapping[str, Any]) -> None:
        """Asks for a checkpoint if the step is among the best.

        Raises:
          FlanError: at the first step, if there is no such figure.
        """
        if self._known and step == context.first_step + 1:
            self._refuse_unknown(context, values)
        sometimes = self.best.figure.partition("/")[0] in context.later
        found = earlier.figure(values, self.best.figure)
        if sometimes and context.paused and step in self.best.first(self._figures | {step: found}):
            context.save()

    def before_save(self, context: Context, step: int) -> None:
        """Notes the figure of a step that is saved."""
        self._figures[step] = earlier.figure(context.values, self.best.figure)
        if self._figures[step] is None and context.primary:
            have = "; no step so far had it" if all(x is None for x in self._figures.values()) else ""
            print(
                f"KEEP_BEST: step {step} has no figure {self.best.figure!r}, so that it is none of the best{have}.",
                flush=True,
            )

    def end(self, context: Context) -> None:
        """Reports the best steps; called when all saves are complete."""
        if context.error is not None or not context.primary:
            return
        saved = set(choosing.steps(context.folder))
        there = {step: figure for step, figure in self._figures.items() if step in saved}
        if kept := self.best.first(there):
            found = ", ".join(f"step {step} ({there[step]:.4g})" for step in kept)
            print(f"best by {self.best.figure}, {self.best.order}: {found}; kept in {context.folder}", flush=True)

    def _refuse_unknown(self, context: Context, values: Mapping[str, Any]) -> None:
        figures = dict(values) | context.later  # one step may not have rows of all datasets
        names = context.stream.parts
        figures["dataset_loss"] = {parts.dataset_of(name): 0.0 for name in names}
        figures["cluster_loss"] = {parts.cluster_of(name): 0.0 for name in names}
        if len(figures["dataset_loss"]) < len(names):
            figures["part_loss"] = dict.fromkeys(names, 0.0)
        if earlier.figure(figures, self.best.figure) is None:
            near = near_names(self.best.figure, earlier.names(figures))
            raise FlanError(f"KEEP_BEST: a step has no figure {self.best.figure!r}: {near}")
