"""Shows progress: a bar in a terminal, elsewhere one line every few steps."""

from __future__ import annotations

import datetime
import time
from collections import deque
from collections.abc import Mapping
from typing import Any

from rich import progress
from rich.text import Text

from flan_jax.training.hooks.context import Context

_REMEMBERED = 50  # the remaining time is estimated from so many steps, with the hooks between them
_UNTIMED = 1  # the first step of a start compiles, and what it is told of ends with the next one
_TIMED = 2  # so many steps are timed before anything is said of the rest
_LONGEST = 9999 * 86400.0  # longest time that is shown, in seconds


class TimeLeft(progress.TimeRemainingColumn):
    """The time that is left, once two steps or units were timed. The first compiles, or was done before."""

    def render(self, task: progress.Task) -> Text:
        """The time, or dashes until it is known."""
        first = task.fields.get("first", 0)
        return super().render(task) if task.completed >= first + _UNTIMED + _TIMED else Text("-:--:--")


class Progress:
    """Shows how far the run is. Only one process does."""

    def __init__(self, log_period: int) -> None:
        """Sets the period.

        Args:
          log_period: steps between printed lines if the output is not a terminal; the first and the last step have a
            line too.
        """
        self._log_period = log_period
        self._bar: progress.Progress | None = None
        self._ends: deque[tuple[int, float]] = deque(maxlen=_REMEMBERED)  # steps and when they ended

    def start(self, context: Context) -> None:
        """Shows the bar."""
        if not context.primary:
            return
        self._bar = progress.Progress(
            progress.TextColumn("training", markup=False),
            progress.BarColumn(),
            progress.MofNCompleteColumn(),
            TimeLeft(),
            progress.TextColumn("{task.fields[figures]}", markup=False),
        )
        self._bar.disable = not self._bar.console.is_terminal  # in a file it would be one line, cut to 80 characters
        total = context.run.train_steps
        self._task = self._bar.add_task(
            "training", total=total, completed=context.first_step, first=context.first_step, figures=""
        )
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
        if step > context.first_step + _UNTIMED:
            self._ends.append((step, time.monotonic()))
        ends = (context.first_step + 1, context.run.train_steps)  # a run that is short, or slow, says something too
        if (step % self._log_period == 0 or step in ends) and not self._bar.console.is_terminal:
            left = self._left(context.run.train_steps)
            print(f"step {step}/{context.run.train_steps}  {figures}{f'  {left} left' if left else ''}", flush=True)

    def _left(self, steps: int) -> str:
        """The estimated time to the last step; empty if it is unknown."""
        if len(self._ends) <= _TIMED:
            return ""
        (first, began), (last, ended) = self._ends[0], self._ends[-1]
        seconds = (steps - last) * (ended - began) / (last - first)
        return str(datetime.timedelta(seconds=round(min(seconds, _LONGEST))))

    def end(self, context: Context) -> None:
        """Leaves the bar as it is."""
        if self._bar is not None:
            self._bar.stop()
