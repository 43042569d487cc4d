"""Ends a run that makes no step any more, with the stacks of all its threads: a device, a disk or a neighbour hangs."""

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
_LOOKS = 100  # how often in a limit the thread looks
_WRITING = 10.0  # seconds for writing the stacks to MODEL_DIR, which may be what hangs
_TOGETHER = 3.0  # seconds in which the other processes of a pod write theirs


@dataclasses.dataclass
class _Wait:
    """What is waited for now, how long so far and how long at most; another wait is another object.

    So the thread that looks never compares the time of one with the limit of another.
    """

    limit: float
    doing: str
    seconds: float = 0.0


class Watchdog:
    """Ends the program with status `errors.STALLED` where it has waited for a step for too long.

    A thread looks at the clock. Time in which it could not look does not count: the whole process was stopped then. The
    first of the hooks, so that it knows when the others run.
    """

    def __init__(self, seconds: float) -> None:
        """Args.

        seconds: from the start of a step to its end, at most; more where steps take long. Restoring comes before.
        """
        self._seconds = seconds
        self._taken: deque[float] = deque(maxlen=_REMEMBERED)
        self._first_is_over = False
        self._wait = _Wait(seconds * _LONGER, "compiling and running the first step")
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, context: Context) -> None:
        """Begins to look."""
        self._context = context
        context.alive = lambda doing: self._begin(self._seconds * _LONGER, doing)
        self._thread = threading.Thread(target=self._look, name="watchdog", daemon=True)
        self._thread.start()

    def pauses(self, context: Context, step: int) -> bool:
        """Never; a step has been handed to the devices, unless all of them are accounted for."""
        if self._first_is_over and step > context.step:
            limit = max(self._seconds, _USUAL * statistics.median(self._taken or [0.0]))
            self._begin(limit, f"waiting for step {context.step + 1}")
        return False

    def after_step(self, context: Context, step: int, values: Mapping[str, Any]) -> None:
        """A step is over, and hooks run until the next is handed to the devices."""
        if self._first_is_over:
            self._taken.append(values["seconds"])
        self._first_is_over = True
        self._begin(self._seconds * _LONGER, f"in what happens after step {step}: saving, evaluating, reading rows")

    def end(self, context: Context) -> None:
        """Looks no more; called after the other hooks have ended."""
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
