"""Where a run's figures go: one JSON line a step in `metrics.jsonl`, and TensorBoard."""

from __future__ import annotations

import contextlib
import json
import time
from types import TracebackType
from typing import Any

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.summary import scalar

from flan_jax.files import AnyPath, Mirror, make_folder, write_atomic, written
from flan_jax.json_lines import to_json

_FLUSH_SECONDS = 30.0  # TensorBoard sees new steps after so long


class MetricsLog:
    """Appends steps to MODEL_DIR/metrics.jsonl and MODEL_DIR/tensorboard; a context manager.

    A resumed run drops the lines at or after its first step, so that every step stands once. TensorBoard's file is
    written here and not by `SummaryWriter`, whose thread dies of a full disk and leaves its caller waiting for ever.

    Where MODEL_DIR lies on object storage both are written on this machine and uploaded whole every half a minute, more
    rarely where that takes long, by a thread. `flush` and the end wait for that.

    Raises, also from its methods: FlanError where a file cannot be written.
    """

    def __init__(self, model_dir: AnyPath, first_step: int) -> None:
        self._mirror = Mirror(model_dir, ["metrics.jsonl"])
        self._path = self._mirror.folder / "metrics.jsonl"
        kept = []
        if self._path.exists():
            for line in self._path.read_text().splitlines():
                try:
                    if json.loads(line)["step"] <= first_step:
                        kept.append(line)
                except (json.JSONDecodeError, KeyError):
                    continue  # the last line of a killed run may be half-written
        write_atomic(self._path, "".join(line + "\n" for line in kept))
        self._events_dir = make_folder(self._mirror.folder / "tensorboard")
        with written(self._path):
            self._file = self._path.open("a", buffering=1)
        with written(self._events_dir):
            self._board = EventsWriter(str(self._events_dir / "events"))
            # TensorBoard leaves out what an earlier start wrote of these steps.
            start = Event(wall_time=time.time(), step=first_step + 1, session_log=SessionLog(status=SessionLog.START))
            self._board.write_event(start)
        self._mirror.wait()  # what a killed run had more is gone from now on
        self._flushed = time.monotonic()

    def write(self, step: int, values: dict[str, Any]) -> None:
        """Writes one step; nested dicts become `outer/inner` in TensorBoard."""
        with written(self._path):
            self._file.write(to_json({"step": step, **values}, what=f"step {step}") + "\n")
        with written(self._events_dir):
            for name, value in values.items():
                for inner, number in value.items() if isinstance(value, dict) else [(None, value)]:
                    summary = scalar(f"{name}/{inner}" if inner else name, number)
                    self._board.write_event(Event(wall_time=time.time(), step=step, summary=summary))
            if time.monotonic() - self._flushed > _FLUSH_SECONDS:
                self._board.flush()
                self._mirror.begin()
                self._flushed = time.monotonic()

    def flush(self) -> None:
        """Returns when all that was written is where it belongs: before a checkpoint that has these steps.

        A run that is killed after its save would otherwise never have the lines before it.
        """
        with written(self._path):
            self._file.flush()
        with written(self._events_dir):
            self._board.flush()
        self._mirror.wait()

    def __enter__(self) -> MetricsLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.ExitStack() as stack:
            if kind is not None:
                stack.enter_context(contextlib.suppress(Exception))  # what ended the run is said
            stack.callback(self._mirror.close)
            with written(self._path):
                self._file.close()
            with written(self._events_dir):
                self._board.close()
