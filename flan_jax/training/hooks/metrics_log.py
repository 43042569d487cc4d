"""Writes a run's figures: one JSON line for each step in `metrics.jsonl`, and TensorBoard."""

from __future__ import annotations

import collections
import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent import futures
from typing import IO, Any

from flan_jax.files import AnyPath, Mirror, make_folder, write_atomic, written
from flan_jax.json_lines import finite, to_json
from flan_jax.training.hooks import earlier
from flan_jax.training.hooks.context import Context


@contextlib.contextmanager
def _as_if_absent(*names: str) -> Iterator[None]:
    """A block in which modules that are not imported yet cannot be imported."""
    absent = [name for name in names if name not in sys.modules]
    sys.modules.update(dict.fromkeys(absent))
    try:
        yield
    finally:
        for name in absent:
            sys.modules.pop(name, None)


# tensorboardX imports all that is installed. That takes seconds, and nothing here uses it.
with _as_if_absent("torch", "google.cloud.storage", "boto3"):
    from tensorboardX.event_file_writer import EventsWriter
    from tensorboardX.proto.event_pb2 import Event, SessionLog
    from tensorboardX.summary import scalar

_FLUSH_SECONDS = 30.0  # how often TensorBoard sees new steps
_MOST_WAITING = 1000  # steps that may wait to be written; if the disk is slow for longer, the run waits


class MetricsLog:
    """Appends steps to MODEL_DIR/metrics.jsonl and MODEL_DIR/tensorboard, in one process.

    A thread writes, so that no step waits for a slow disk. A save and the end of the run wait until everything is
    written. If writing fails, the next call raises the error, and nothing more is written.

    A resumed run removes the lines after its first step, so that every step is there once. We write TensorBoard's file
    ourselves: the thread of `SummaryWriter` dies when the disk is full, and its caller then waits forever.

    If MODEL_DIR is on object storage, both files are written on this machine. A thread uploads them every half minute,
    or less often if that takes long. A checkpoint and the end of the run wait for the upload.

    All methods raise FlanError if a file cannot be written.
    """

    def __init__(self) -> None:
        self._file: IO[str] | None = None
        self._board: EventsWriter | None = None
        self._writer: futures.ThreadPoolExecutor | None = None
        self._waiting: collections.deque[futures.Future[None]] = collections.deque()
        self._failed = False

    def start(self, context: Context) -> None:
        """Opens both files, and removes what an earlier start wrote about the coming steps."""
        if not context.primary:
            return
        self._mirror = Mirror(context.folder, ["metrics.jsonl"])
        self._path = self._mirror.folder / "metrics.jsonl"
        with written(self._path):
            _cut(self._path, context.first_step)
        self._events_dir = make_folder(self._mirror.folder / "tensorboard")
        with written(self._path):
            self._file = self._path.open("a", encoding="utf-8", buffering=1)
        with written(self._events_dir):
            self._board = EventsWriter(str(self._events_dir / "events"))
            # TensorBoard then ignores what an earlier start wrote about these steps.
            log = SessionLog(status=SessionLog.START)
            self._board.write_event(Event(wall_time=time.time(), step=context.first_step + 1, session_log=log))
        self._mirror.wait()  # from now on, the extra lines of a killed run are gone
        self._flushed = time.monotonic()
        self._writer = futures.ThreadPoolExecutor(1, "metrics")

    def after_step(self, context: Context, step: int, values: Mapping[str, Any]) -> None:
        """Has one step written. Nested dicts become `outer/inner` in TensorBoard."""
        context.logged = True
        if self._writer is None:
            return
        if values.get("skipped"):  # the batch was skipped because its figures are not finite
            values = finite(values)
        line = to_json({"step": step, **values}, what=f"step {step}")
        numbers = {}
        for name, value in values.items():
            for inner, number in value.items() if isinstance(value, dict) else [(None, value)]:
                if number is not None:
                    numbers[f"{name}/{inner}" if inner else name] = number
        self._later(self._write, step, line, numbers, time.time())
        self._take(_MOST_WAITING)

    def _later(self, work: Callable[..., None], *arguments: Any) -> None:
        """Hands work to the thread."""

        def unless_failed() -> None:
            if self._failed:  # a line after a half-written one would make both unreadable
                return
            try:
                work(*arguments)
            except BaseException:
                self._failed = True
                raise

        self._waiting.append(self._writer.submit(unless_failed))

    def _take(self, most: int) -> None:
        """Raises any earlier error, and waits until no more than `most` tasks are left."""
        while self._waiting and (len(self._waiting) > most or self._waiting[0].done()):
            self._waiting.popleft().result()

    def _write(self, step: int, line: str, numbers: Mapping[str, float], when: float) -> None:
        with written(self._path):
            self._file.write(line + "\n")
        with written(self._events_dir):
            for name, number in numbers.items():
                self._board.write_event(Event(wall_time=when, step=step, summary=scalar(name, number)))
            if time.monotonic() - self._flushed > _FLUSH_SECONDS:
                self._board.flush()
                self._mirror.begin()
                self._flushed = time.monotonic()

    def _flush(self) -> None:
        with written(self._path):
            self._file.flush()
        with written(self._events_dir):
            self._board.flush()
        self._mirror.wait()

    def before_save(self, context: Context, step: int) -> None:
        """Waits until everything is written.

        Otherwise a run that is killed after the save would never have the lines before it.
        """
        if self._writer is None:
            return
        self._later(self._flush)
        self._take(0)

    def end(self, context: Context) -> None:
        """Closes both files."""
        if self._file is None:
            return
        with contextlib.ExitStack() as all_of_it:
            all_of_it.callback(self._mirror.close)
            for path, opened in ((self._events_dir, self._board), (self._path, self._file)):
                all_of_it.callback(_close, path, opened)
            if self._writer is not None:
                all_of_it.callback(self._writer.shutdown)
                self._take(0)


def _cut(path: AnyPath, step: int) -> None:
    """Removes the lines after a step, starting at the end, so that a long log is not read as a whole."""
    if step == 0 or not path.exists():
        write_atomic(path, "")
        return
    with path.open("r+b") as file:
        for start, line in earlier.lines_from_the_end(file):
            try:
                if json.loads(line)["step"] <= step:
                    file.truncate(start + len(line))
                    if not line.endswith(b"\n"):
                        file.seek(0, os.SEEK_END)
                        file.write(b"\n")
                    return
            except (ValueError, KeyError, TypeError):
                continue  # a killed run may have half-written its last line
        file.truncate(0)


def _close(path: AnyPath, opened: IO[str] | EventsWriter | None) -> None:
    if opened is not None:
        with written(path):
            opened.close()
