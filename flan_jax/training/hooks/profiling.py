"""A profile of some steps, for TensorBoard and Perfetto."""

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
    """Writes what the devices and the host do in some steps to MODEL_DIR/profile, in one process."""

    def __init__(self, steps: tuple[int, int]) -> None:
        """Args.

        steps: the first and the last.
        """
        self._first, self._last = steps
        self._running = False

    def start(self, context: Context) -> None:
        """Starts where the first step of this start is one of them."""
        self._first = max(self._first, context.first_step + 1)
        self._begin(context, context.first_step)

    def pauses(self, context: Context, step: int) -> bool:
        """Whether the profile begins or ends after this step: nothing else runs then."""
        return step in (self._first - 1, self._last)

    def after_step(self, context: Context, step: int, values: Mapping[str, Any]) -> None:
        """Begins or ends."""
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
            self._mirror = Mirror(context.folder / "profile")  # JAX writes to disks alone
            with _only(), written(make_folder(self._mirror.folder)):
                jax.profiler.start_trace(self._mirror.folder)
            self._running = True

    def end(self, context: Context) -> None:
        """Ends, also where the run ends before the last of the steps."""
        if self._running:
            self._running = False
            with _only(), written(context.folder / "profile"), contextlib.closing(self._mirror):
                jax.profiler.stop_trace()


@contextlib.contextmanager
def _only() -> Iterator[None]:
    """Around calls of the profiler, of which a process has one: a hook may have it."""
    try:
        yield
    except RuntimeError as error:
        said = " ".join(str(error).split())[:200].rstrip(".")
        raise FlanError(f"PROFILE: {said}; does a hook profile too? Leave one of the two out.") from error
