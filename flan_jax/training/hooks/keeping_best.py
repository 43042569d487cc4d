"""The best step by a figure: it is saved when an evaluation finds it, and stays beside the last ones.

Choosing a step is looking at data. A step that is chosen by a dataset is chosen on it, so a score of that dataset is no
zero-shot result any more: the paper chooses none, and others choose by what they tune on. So a figure of data that the
run holds out, or of which nobody knows whether it was seen, can be watched and cannot be chosen by. Who writes such a
figure says so in `Context.no_choice`.
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
    """Knows the figures of saved steps, of earlier starts too, and asks for a save where one is among the best.

    Only figures that are written at some steps (`Context.later`), as those of an evaluation are, ask for one; those of
    every step would be the best too often, and count where a step is saved anyhow.

    Attributes:
      best: the figure, and how many of the best stay.
    """

    def __init__(self, best: keeping.Best, known: bool = False) -> None:
        """Args.

        best: the figure, and how many of the best stay.
        known: whether nobody writes figures but training itself, so that a name which is none of them is wrong.
        """
        self.best, self._known = best, known
        self._figures: dict[int, float | None] = {}

    def figure_of(self, step: int) -> float | None:
        """The figure of a saved step; None where it has none, or it is not finite."""
        return self._figures.get(step)

    def start(self, context: Context) -> None:
        """Reads what earlier starts have found.

        Raises:
          FlanError: the figure is none to choose by, or its better end is kept out, or nobody knows the figures of
            saved steps any more, of which the best would be removed.
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
        """Asks for a checkpoint of a step that is among the best.

        Raises:
          FlanError: at the first step, that there is no such figure.
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
        """Says which steps are the best; called when all saves are whole."""
        if context.error is not None or not context.primary:
            return
        saved = set(choosing.steps(context.folder))
        there = {step: figure for step, figure in self._figures.items() if step in saved}
        if kept := self.best.first(there):
            found = ", ".join(f"step {step} ({there[step]:.4g})" for step in kept)
            print(f"best by {self.best.figure}, {self.best.order}: {found}; kept in {context.folder}", flush=True)

    def _refuse_unknown(self, context: Context, values: Mapping[str, Any]) -> None:
        figures = dict(values) | context.later  # a step need not have rows of all datasets
        names = context.stream.parts
        figures["dataset_loss"] = {parts.dataset_of(name): 0.0 for name in names}
        figures["cluster_loss"] = {parts.cluster_of(name): 0.0 for name in names}
        if len(figures["dataset_loss"]) < len(names):
            figures["part_loss"] = dict.fromkeys(names, 0.0)
        if earlier.figure(figures, self.best.figure) is None:
            near = near_names(self.best.figure, earlier.names(figures))
            raise FlanError(f"KEEP_BEST: a step has no figure {self.best.figure!r}: {near}")
