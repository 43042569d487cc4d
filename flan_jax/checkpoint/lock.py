"""A lock on a folder that only one run may write. Files in the folder with a heartbeat hold it.

A process that wants the folder writes `lock-<name>.json` into it, and then looks at the files of others. If there are
none, it holds the folder. If two come at the same instant, the one that looks last sees the other's file. A process
that sees another one still trying steps back for a random moment. So the storage only needs to list files that were
written: no exclusive creation, no rename, no lock of the operating system. Local disks, network disks and object
storage can all do that.

The holder writes its file again every `BEAT` seconds. The folder of a dead holder is taken over: on the same machine if
its process is gone; on another one if its file has not changed for `SILENCE` seconds. At least `WATCHED` of these
seconds are measured with this machine's own clock, because the other clock may be wrong.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import functools
import itertools
import json
import os
import random
import re
import socket
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from flan_jax import distributed
from flan_jax.errors import FlanError, StorageError
from flan_jax.files import AnyPath, is_remote, make_folder, write_atomic

BEAT = 10.0  # seconds between two signs of life
SILENCE = 60.0  # after so many seconds without one, a holder on another machine counts as dead
WATCHED = 25.0  # of these, seconds that are watched here even if its last sign is older
_LOOK = 0.5  # seconds between two looks at a watched file
_AT_ONCE = 0.2  # most seconds for which one of two steps back if they try at the same time; more with every try
_TRYING, _HOLDING = "trying", "holding"


@dataclasses.dataclass(frozen=True)
class _Record:
    """What a lock file says about the process that wrote it.

    Attributes:
      what: what it does with the folder, for example "training".
      host: the name of its machine.
      machine: identifies one start of one machine, and one container on it.
      pid: the number of its process.
      started: when that process started, as the system counts; None if unknown.
      since: when it came, for people.
      state: "trying" or "holding".
      beat: its last sign of life, in seconds of its own clock.
    """

    what: str
    host: str
    machine: str
    pid: int
    started: int | None
    since: str
    state: str
    beat: float

    @classmethod
    def own(cls, what: str) -> _Record:
        """The record of this process."""
        pid = os.getpid()
        started = (_process(pid) or (None, None))[1]
        now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        return cls(what, socket.gethostname(), _machine(), pid, started, now, _TRYING, time.time())

    @classmethod
    def parse(cls, text: str) -> _Record | None:
        """Reads a file's text; None if it is no record."""
        try:
            record = cls(**json.loads(text))
        except (ValueError, TypeError, RecursionError):
            return None
        numbers = (record.pid, record.beat, record.started or 0)
        is_sound = all(isinstance(x, int | float) and not isinstance(x, bool) for x in numbers)
        is_sound = is_sound and isinstance(record.pid, int) and 0 < record.pid < 2**31
        texts = (record.what, record.host, record.machine, record.since)
        is_sound = is_sound and all(isinstance(x, str) for x in texts) and record.state in (_TRYING, _HOLDING)
        return record if is_sound else None

    def __str__(self) -> str:
        return f"{self.what[:60]} (process {self.pid} on {self.host[:80]}, since {self.since[:40]})"


class Lock:
    """A folder that this process holds.

    Attributes:
      folder: the folder.
    """

    def __init__(self, folder: AnyPath, path: AnyPath, record: _Record, dead: set[str]) -> None:
        self.folder = folder
        self._path, self._record, self._dead = path, record, dead
        self._lost: str | None = None
        self._guard = threading.Lock()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._live, name=f"lock of {folder}", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Checks that the folder is still held. Called before every save.

        Raises:
          FlanError: another process has taken it, because this one was suspended for too long.
        """
        with self._guard:
            if self._lost is None:
                with contextlib.suppress(OSError, StorageError):  # a file that cannot be read now proves nothing
                    self._lost = self._rival()
        if self._lost is not None:
            raise FlanError(
                f"{self.folder} is no longer held by this process, which was silent for too long: {self._lost}; "
                "nothing more is saved. Start again when nobody else writes there."
            )

    def release(self) -> None:
        """Releases the folder. A process that was forked from the holder cannot."""
        if os.getpid() != self._record.pid:
            return
        self._end.set()
        # From here on, no sign of life is written.
        with self._guard, contextlib.suppress(OSError, StorageError):
            self._path.unlink(missing_ok=True)
        self._thread.join(timeout=1.0)

    def _rival(self) -> str | None:
        """Why the folder is no longer held, or None."""
        there = _there(self.folder)
        for name in self._dead & there.keys():  # they were suspended, and wrote when they woke
            _remove(self.folder / name)
        others = (_Record.parse(text) for name, text in there.items() if name not in (self._path.name, *self._dead))
        rival = next((record for record in others if record is not None and record.state == _HOLDING), None)
        if rival is not None:
            return f"it was taken over by {rival}"
        return (
            None if self._path.name in there else f"its file {self._path.name} was removed, by another run or by hand"
        )

    def _live(self) -> None:
        while not self._end.wait(BEAT):
            # A full disk, or an outage of the storage: try again next time.
            with self._guard, contextlib.suppress(OSError, FlanError, StorageError):
                if self._end.is_set() or self._lost is not None:
                    return
                with _Awake() as awake:
                    self._lost = self._rival()
                    if self._lost is None:
                        _write(self._path, self._record)
                if self._lost is None and awake.asleep > SILENCE / 2:
                    # After the look, because another process may have come, removed the file that was written here
                    # again, and gone.
                    self._lost = "it was suspended while it gave a sign of life"
                # On a slow disk, another process may have come meanwhile.
                if self._lost is None and awake.took > SILENCE / 2:
                    self._lost = self._rival()


class _Awake:
    """Measures how long something took, and how long this whole process was stopped meanwhile.

    Attributes:
      took: seconds.
      asleep: seconds in one piece in which the process did not run. Waiting for a disk or network does not count,
        because the thread here still runs then.
    """

    def __enter__(self) -> _Awake:
        self.asleep, self._began = 0.0, _seconds()
        self._last, self._over = self._began, threading.Event()
        self._thread = threading.Thread(target=self._tick, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join()
        self._look()
        self.took = _seconds() - self._began

    def _tick(self) -> None:
        while not self._over.wait(SILENCE / 20):
            self._look()

    def _look(self) -> None:
        now = _seconds()
        self.asleep, self._last = max(self.asleep, now - self._last), now


class _HeldElsewhere(Lock):
    """The lock of the other processes of a pod. Process 0 holds the folder for them."""

    def __init__(self, folder: AnyPath) -> None:
        self.folder = folder

    def check(self) -> None:
        """Does nothing; process 0 checks."""

    def release(self) -> None:
        """Does nothing."""


@contextlib.contextmanager
def held(folder: AnyPath, what: str) -> Iterator[Lock]:
    """Holds a folder during the block, and makes it if needed.

    In a pod all processes must call it; process 0 holds the lock.

    Args:
      folder: the folder.
      what: what is done with it, for the message to another process: "training".

    Raises:
      FlanError: another process holds it (the message names it), or the folder cannot be written to.
    """
    made = False
    lock: Lock | None = None

    def take() -> str:
        nonlocal made, lock
        made = not folder.exists()
        lock = _take(folder, what)
        return ""

    try:
        distributed.decided(take)
        lock = lock if lock is not None else _HeldElsewhere(folder)
        yield lock
    finally:
        if lock is not None:
            lock.release()
        if made and not is_remote(folder):
            with contextlib.suppress(OSError):  # if the block wrote nothing, the empty folder is removed
                folder.rmdir()


def _take(folder: AnyPath, what: str) -> Lock:
    make_folder(folder)
    record = _Record.own(what)
    path = folder / f"lock-{uuid.uuid4().hex[:12]}.json"
    dead: set[str] = set()
    is_held = False
    try:
        for attempt in itertools.count():
            _wait_for_others(folder, dead)
            _write(path, record)
            if not (_there(folder).keys() - dead - {path.name}):
                record = dataclasses.replace(record, state=_HOLDING)
                _write(path, record)
                # Check once more: a process that was suspended since the look may be taken for dead.
                if _there(folder).keys() - dead == {path.name}:
                    break
                record = dataclasses.replace(record, state=_TRYING)
            _remove(path)
            time.sleep(random.uniform(0, _AT_ONCE * min(attempt + 1, 10)))
        for name in dead:
            _remove(folder / name)
        is_held = True
        return Lock(folder, path, record, dead)
    finally:
        if not is_held:
            _remove(path)


def _wait_for_others(folder: AnyPath, dead: set[str]) -> None:
    """Returns when all processes with files there are dead, and adds the files' names to `dead`.

    Raises:
      FlanError: one is alive and holds the folder.
    """
    began = _seconds()
    while unknown := {name: text for name, text in _there(folder).items() if name not in dead}:
        for name, text in unknown.items():
            record = _Record.parse(text)
            alive = None if record is None else _is_alive(record)
            if alive is None:
                alive = _gives_sign(folder / name, text, record)
            if alive is False:
                dead.add(name)
            elif alive and (record is None or record.state == _HOLDING or _seconds() - began > SILENCE):
                raise _refused(folder, record)
            else:
                time.sleep(random.uniform(0, _AT_ONCE))


def _refused(folder: AnyPath, record: _Record | None) -> FlanError:
    who = "another process, whose lock file cannot be read" if record is None else str(record)
    state = ""
    if record is not None and record.machine == _machine():
        if record.pid == os.getpid():
            state = ", which is this very process"
        elif (_process(record.pid) or ("", 0))[0] in ("T", "t"):
            state = f", which is stopped: kill -CONT {record.pid} lets it go on"
    return FlanError(f"{folder} is in use by {who}{state}; wait for its end, end it, or give another folder.")


def _gives_sign(path: AnyPath, text: str, record: _Record | None) -> bool | None:
    """Whether the process that wrote a file is alive, if only the file can tell; None if it is gone or was replaced.

    It waits for the rest of the silence that a dead process must show.
    """
    age = 0.0 if record is None else max(0.0, time.time() - record.beat)  # a clock in the future tells nothing
    wait = max(min(WATCHED, SILENCE), SILENCE - age)
    who = f"the lock file {path.name}, which cannot be read" if record is None else str(record)
    began, is_said = _seconds(), False
    while (waited := _seconds() - began) < wait:
        if not is_said and waited > 4 * _LOOK:  # a process that only tries is gone by then
            print(
                f"{path.parent} was in use by {who}; waiting for a sign of life, up to {wait:.0f} s.",
                file=sys.stderr,
                flush=True,
            )
            is_said = True
        time.sleep(_LOOK)
        with contextlib.suppress(OSError):
            now = _there(path.parent).get(path.name)
            if now is None:
                return None
            if now != text:
                return True
    return False


def _is_alive(record: _Record) -> bool | None:
    """Whether the process of a record is alive; None if this machine cannot tell."""
    if record.machine != _machine():
        return None
    try:
        os.kill(record.pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # it belongs to another user
    found = _process(record.pid)
    if found is None:
        return True
    state, started = found
    return state not in ("Z", "X") and record.started in (None, started)


def _process(pid: int) -> tuple[str, int] | None:
    """A process's state and when it started, in ticks since the start of the machine; None if unknown."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        fields = text[text.rindex(")") + 2 :].split()  # a program's name may hold spaces and parentheses
        return fields[0], int(fields[19])
    except (OSError, ValueError, IndexError):
        return None


@functools.cache
def _machine() -> str:
    """Identifies one start of one machine, and one container on it. Inside, a pid means one process."""
    try:
        started = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
        return f"{started} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return f"{uuid.getnode():x} {socket.gethostname()}"


def _there(folder: AnyPath) -> dict[str, str]:
    """The lock files in a folder and their contents, by name."""
    found: dict[str, str] = {}
    try:
        listed: list[Any] = list(folder.iterdir())
    except FileNotFoundError:
        return found
    for path in listed:
        if re.fullmatch(r"lock-[^/]*\.json", path.name):
            try:
                found[path.name] = path.read_bytes()[:65536].decode(errors="replace")
            except FileNotFoundError:
                continue  # removed in the meantime
            except OSError as error:  # we may not read it, or it is not a file
                found[path.name] = f"cannot be read: {error.strerror}"
    return found


def _write(path: AnyPath, record: _Record) -> None:
    write_atomic(path, json.dumps(dataclasses.asdict(dataclasses.replace(record, beat=time.time()))) + "\n")


def _remove(path: AnyPath) -> None:
    """Removes a lock file, and what a process that was killed while writing it has left."""
    with contextlib.suppress(OSError, StorageError):
        for left in (path, *(x for x in path.parent.iterdir() if x.name.startswith(f".{path.name}."))):
            left.unlink(missing_ok=True)


def _seconds() -> float:
    """A clock that nobody can set, and that goes on while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()
