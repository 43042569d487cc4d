"""A progress bar in a terminal, a line every so many steps elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich import progress

from flan_jax.training.hooks.context import Context


class Progress:
    """Shows how far the run is, in one process."""

    def __init__(self, log_period: int) -> None:
        """Args.

        log_period: steps between printed lines where the output is no terminal.
        """
        self._log_period = log_period
        self._bar: progress.Progress | None = None

    def start(self, context: Context) -> None:
        """Shows the bar."""
        if not context.primary:
            return
        self._bar = progress.Progress(
            progress.TextColumn("training"),
            progress.BarColumn(),
            progress.MofNCompleteColumn(),
            progress.TimeRemainingColumn(),
            progress.TextColumn("{task.fields[figures]}"),
        )
        total = context.run.train_steps
        self._task = self._bar.add_task("training", total=total, completed=context.first_step, figures="")
        self._bar.start()

    def after_step(self, context: Context, step: int, values: Mapping[str, Any]) -> None:
        """Moves the bar."""
        if self._bar is None:
            return
        figures = (
            f"loss {values['loss']:.3f}  accuracy {values['accuracy']:.3f}  "
            f"{values['tokens_per_second']:.0f} tokens/s  filled {values['slots_filled']:.3f}"
        )
        self._bar.update(self._task, completed=step, figures=figures)
        if step % self._log_period == 0 and not self._bar.console.is_terminal:
            print(f"step {step}/{context.run.train_steps}  {figures}", flush=True)

    def end(self, context: Context) -> None:
        """Leaves the bar as it is."""
        if self._bar is not None:
            self._bar.stop()
