"""Profiles some steps, for TensorBoard and Perfetto."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import jax

from flan_jax.errors import FlanError
from flan_jax.files import Mirror, make_folder, written
from flan_jax.training.hooks.context import Context


class Profiling:
    """Records what the devices and the host do in some steps, in MODEL_DIR/profile. Only one process does."""

    def __init__(self, steps: tuple[int, int]) -> None:
        """Sets the steps.

        Args:
          steps: the first and the last step.
        """
        self._first, self._last = steps
        self._running = False

    def start(self, context: Context) -> None:
        """Begins the profile if the first step of this start belongs to it."""
        self._first = max(self._first, context.first_step + 1)
        self._begin(context, context.first_step)

    def pauses(self, context: Context, step: int) -> bool:
        """Whether the profile begins or ends after this step, so that nothing else should run."""
        return step in (self._first - 1, self._last)

    def after_step(self, context: Context, step: int, values: Mapping[str, Any]) -> None:
        """Begins or ends the profile."""
        if step == self._last:
            self.end(context)
        self._begin(context, step)

    def _begin(self, context: Context, step: int) -> None:
        if context.primary and step == self._first - 1 and self._first <= self._last:
            if "tensorflow" in sys.modules:
                print(
                    f"step {step + 1}: PROFILE: TensorFlow is in this process too, by a hook or what it imports. Its "
                    "profiler and JAX's have ended such processes; if this one ends here, leave one of the two out.",
                    flush=True,
                )
            self._mirror = Mirror(context.folder / "profile")  # JAX can only write to local disks
            with _only(), written(make_folder(self._mirror.folder)):
                jax.profiler.start_trace(self._mirror.folder)
            self._running = True

    def end(self, context: Context) -> None:
        """Ends the profile, also if the run ends before the last of the steps."""
        if self._running:
            self._running = False
            with _only(), written(context.folder / "profile"), contextlib.closing(self._mirror):
                jax.profiler.stop_trace()


@contextlib.contextmanager
def _only() -> Iterator[None]:
    """A block that calls the profiler.

    A process can only have one profile at a time, and a hook may have started one.
    """
    try:
        yield
    except RuntimeError as error:
        said = " ".join(str(error).split())[:200].rstrip(".")
        raise FlanError(f"PROFILE: {said}; does a hook profile too? Leave one of the two out.") from error
