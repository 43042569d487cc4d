"""Where a run's figures go: one JSON line a step in `metrics.jsonl`, and TensorBoard."""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from concurrent import futures
from pathlib import Path
from types import TracebackType
from typing import Any

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.summary import scalar

from flan_jax.files import AnyPath, RemotePath, home, make_folder, remove_folder, write_atomic, written
from flan_jax.json_lines import to_json

_FLUSH_SECONDS = 30.0  # TensorBoard sees new steps after so long
_UPLOAD_SHARE = 0.05  # of the time is the most that uploads take: they grow with the run


class MetricsLog:
    """Appends steps to MODEL_DIR/metrics.jsonl and MODEL_DIR/tensorboard; a context manager.

    A resumed run drops the lines at or after its first step, so that every step stands once. TensorBoard's file is
    written here and not by `SummaryWriter`, whose thread dies of a full disk and leaves its caller waiting for ever.

    To an object of object storage nothing can be appended: both files are written here on a disk of this machine, and
    uploaded whole every half a minute, more rarely where that takes long, by a thread of their own. `flush` and the end
    wait for it, so that a checkpoint never has steps which the log lacks.

    Raises, also from its methods: FlanError where a file cannot be written.
    """

    def __init__(self, model_dir: AnyPath, first_step: int) -> None:
        self._path = model_dir / "metrics.jsonl"
        kept = _kept(self._path, first_step)
        self._uploads: _Uploads | None = None
        here, there = self._path, model_dir / "tensorboard"
        if isinstance(model_dir, RemotePath):
            self._uploads = _Uploads(model_dir)
            here = self._uploads.folder / self._path.name
        write_atomic(here, kept)
        self._events_dir = there
        if self._uploads is not None:
            self._uploads.start()  # what a killed run had more is gone from now on
            there = self._uploads.folder / there.name
        make_folder(there)
        with written(self._path):
            self._file = here.open("a", buffering=1, encoding="utf-8")
        with written(self._events_dir):
            self._board = EventsWriter(str(there / "events"))
            # TensorBoard leaves out what an earlier start wrote of these steps.
            start = Event(wall_time=time.time(), step=first_step + 1, session_log=SessionLog(status=SessionLog.START))
            self._board.write_event(start)
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
                self._flushed = time.monotonic()
                if self._uploads is not None:
                    self._uploads.begin()

    def flush(self) -> None:
        """Returns when all that was written is where it belongs: before a checkpoint that has these steps."""
        with written(self._path):
            self._file.flush()
        with written(self._events_dir):
            self._board.flush()
        if self._uploads is not None:
            self._uploads.wait()

    def __enter__(self) -> MetricsLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.ExitStack() as stack:
            if self._uploads is not None:
                stack.callback(self._uploads.close)
            if kind is not None:
                stack.enter_context(contextlib.suppress(Exception))  # what ended the run is said
            with written(self._path):
                self._file.close()
            with written(self._events_dir):
                self._board.close()
            if self._uploads is not None:
                self._uploads.wait()


def _kept(path: AnyPath, first_step: int) -> str:
    """The lines of an earlier start up to a step."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""
    kept = []
    for line in text.splitlines():
        try:
            if json.loads(line)["step"] <= first_step:
                kept.append(line + "\n")
        except (json.JSONDecodeError, KeyError):
            continue  # the last line of a killed run may be half-written
    return "".join(kept)


class _Uploads:
    """Uploads a folder of this machine, file by file, each whole, in a thread."""

    def __init__(self, to: RemotePath) -> None:
        self.folder = home() / "metrics" / hashlib.sha256(str(to).encode()).hexdigest()[:20]
        remove_folder(self.folder)  # of a killed run
        self._to = to
        self._pool = futures.ThreadPoolExecutor(1, "metrics")
        self._running: futures.Future[None] | None = None
        self._rests_until = 0.0
        self._sizes: dict[Path, int] = {}

    def start(self) -> None:
        """Uploads what is there."""
        self._upload()

    def begin(self) -> None:
        """Uploads in the background, unless that still goes on or went on lately."""
        if self._running is not None:
            if not self._running.done():
                return
            self._running = None  # whether it failed is said by `wait`, unless a later one mends it
        if time.monotonic() >= self._rests_until:
            self._running = self._pool.submit(self._upload)

    def wait(self) -> None:
        """Uploads, and returns when all is there.

        Raises:
          FlanError: it failed.
        """
        if self._running is not None:
            futures.wait([self._running])  # if it failed, the next may not
            self._running = None
        self._upload()

    def _upload(self) -> None:
        began = time.monotonic()
        for file in sorted(path for path in self.folder.rglob("*") if path.is_file()):
            size = file.stat().st_size
            if self._sizes.get(file) != size:
                with file.open("rb") as opened:
                    content = opened.read(size)  # lines may be added meanwhile
                (self._to / str(file.relative_to(self.folder))).write_bytes(content)
                self._sizes[file] = size
        now = time.monotonic()
        self._rests_until = now + (now - began) / _UPLOAD_SHARE

    def close(self) -> None:
        """Ends the thread and removes the folder."""
        self._pool.shutdown()
        remove_folder(self.folder)
