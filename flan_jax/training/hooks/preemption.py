"""Saves and ends the run when it is told to end: by SIGTERM (which announces a preemption), SIGHUP or Ctrl-C."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Mapping
from typing import Any

import jax
from jax.experimental import multihost_utils

from flan_jax.checkpoint import choosing
from flan_jax.errors import PREEMPTED
from flan_jax.training import notices
from flan_jax.training.hooks.context import Context


class Preemption:
    """Ends the run with a checkpoint, after a step that all processes of the pod agree on.

    `notices` listens to the signals. In our own programs it does so from before the pod is joined.
    """

    def __init__(self, grace: float) -> None:
        """Sets the grace period.

        Args:
          grace: seconds from a notice to the end of the program.
        """
        self._grace = grace
        self._ends = contextlib.ExitStack()
        self._listener: notices.Listener | None = None

    def start(self, context: Context) -> None:
        """Starts to listen, if nobody does yet."""
        self._listener = self._ends.enter_context(notices.listening_if_nobody_does())
        context.ending = lambda: self._listener is not None and self._listener.asked is not None
        if jax.process_count() > 1:  # so that the pod does not agree on a step before the first one
            multihost_utils.reached_preemption_sync_point(context.first_step)

    def pauses(self, context: Context, step: int) -> bool:
        """Whether the run ends after this step."""
        if self._listener is None:
            return False
        if jax.process_count() > 1:
            if multihost_utils.reached_preemption_sync_point(step):
                self._listener.asks()
                return True
            return False
        return self._listener.asked is not None

    def after_step(self, context: Context, step: int, values: Mapping[str, Any]) -> None:
        """Ends the run, if it is time."""
        if self._listener is None:
            return
        if step == context.first_step + 1:
            self._listener.train(self._grace, lambda: choosing.latest_step(context.folder))
        if step == context.run.train_steps:
            return  # the run ends here anyway
        if context.paused and self.pauses(context, step):
            if self._listener.asked == signal.SIGINT:
                context.stop("Ctrl-C", notices.BROKEN_OFF)
            else:
                context.stop(f"{self._listener.asked.name}; the same command goes on from there", PREEMPTED)

    def end(self, context: Context) -> None:
        """Restores the usual handling of signals."""
        self._ends.close()
