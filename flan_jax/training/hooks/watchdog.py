"""Ends a run that makes no more steps, because a device, a disk or another process hangs.

The stacks of all its threads are written before.
"""

from __future__ import annotations

import dataclasses
import faulthandler
import os
import statistics
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Mapping
from typing import Any

import jax

from flan_jax.errors import STALLED
from flan_jax.files import write_atomic
from flan_jax.training.hooks.context import Context

_USUAL = 20  # a step may take so many times as long as steps usually do, whatever the limit
_LONGER = 4  # the first step, which compiles, and hooks, which save and evaluate, may take so many times the limit
_REMEMBERED = 101  # steps from which the usual time is taken
_LOOKS = 100  # how many times the thread looks in the time of the limit
_WRITING = 10.0  # seconds to write the stacks to MODEL_DIR, which may be what hangs
_TOGETHER = 3.0  # seconds for the other processes of a pod to write theirs


@dataclasses.dataclass
class _Wait:
    """What the run waits for now, for how long already, and for how long at most. Each wait is a new object.

    So the thread never compares the time of one wait with the limit of another.
    """

    limit: float
    doing: str
    seconds: float = 0.0


class Watchdog:
    """Ends the program with status `errors.STALLED` if it has waited too long for a step.

    A thread looks at the clock. Time in which the thread could not look does not count, because then the whole process
    was stopped. This is the first hook, so it knows when the others run.
    """

    def __init__(self, seconds: float) -> None:
        """Sets the limit.

        Args:
          seconds: the most time from the start of a step to its end; more is allowed if steps take long. Restoring is
            not timed.
        """
        self._seconds = seconds
        self._taken: deque[float] = deque(maxlen=_REMEMBERED)
        self._first_is_over = False
        self._wait = _Wait(seconds * _LONGER, "compiling and running the first step")
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, context: Context) -> None:
        """Starts to look."""
        self._context = context
        context.alive = lambda doing: self._begin(self._seconds * _LONGER, doing)
        self._thread = threading.Thread(target=self._look, name="watchdog", daemon=True)
        self._thread.start()

    def pauses(self, context: Context, step: int) -> bool:
        """Always False. The call shows that the devices have got a step, unless no step is left."""
        if self._first_is_over and step > context.step:
            limit = max(self._seconds, _USUAL * statistics.median(self._taken or [0.0]))
            self._begin(limit, f"waiting for step {context.step + 1}")
        return False

    def after_step(self, context: Context, step: int, values: Mapping[str, Any]) -> None:
        """A step is over; hooks run until the devices get the next one."""
        if self._first_is_over:
            self._taken.append(values["seconds"])
        self._first_is_over = True
        self._begin(self._seconds * _LONGER, f"in what happens after step {step}: saving, evaluating, reading rows")

    def end(self, context: Context) -> None:
        """Stops looking; called after the other hooks have ended."""
        self._over.set()
        if self._thread is not None:
            self._thread.join()

    def _begin(self, limit: float, doing: str) -> None:
        self._wait = _Wait(limit, doing)

    def _look(self) -> None:
        every = min(self._seconds / _LOOKS, 5.0)
        before = time.monotonic()
        while not self._over.wait(every):
            now = time.monotonic()
            wait = self._wait
            wait.seconds += min(now - before, 2 * every)
            before = now
            if wait.seconds > wait.limit and wait is self._wait:
                self._end_the_run(wait)

    def _end_the_run(self, wait: _Wait) -> None:
        name = f"stacks.{jax.process_index()}.txt"
        line = f"no step for {wait.limit:g} s (NO_STEP_SECONDS {self._seconds:g}), {wait.doing}"
        print(f"flan_jax: {line}; the stacks of all threads:", file=sys.stderr, flush=True)
        faulthandler.dump_traceback(all_threads=True)
        writing = threading.Thread(target=self._write, args=(name, line), daemon=True)
        writing.start()
        writing.join(_WRITING)
        where = f"they are in {self._context.folder / name} too; " if not writing.is_alive() else ""
        last = "the same command goes on from the last checkpoint"
        print(f"flan_jax: {line}: stopped. The stacks stand above; {where}{last}.", file=sys.stderr, flush=True)
        if jax.process_count() > 1:
            time.sleep(_TOGETHER)
        os._exit(STALLED)

    def _write(self, name: str, line: str) -> None:
        with tempfile.TemporaryFile("w+") as file:
            print(f"{line}, {time.strftime('%Y-%m-%d %H:%M:%S')}", file=file, flush=True)
            faulthandler.dump_traceback(file, all_threads=True)
            file.seek(0)
            text = file.read()
        write_atomic(self._context.folder / name, text)
