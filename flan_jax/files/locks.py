"""Locks that keep other processes out of a folder, on disks and on object storage.

On this machine, and on network disks with locks, the system frees a lock when its process dies. Object storage has no
locks. There a lock is an object that is only created if none exists (see `RemotePath.create`), and that its holder
writes again now and then. A waiting process takes it over if it has not changed for `STALE_SECONDS` by that process's
own clock, and removes it only in the version that it saw. A holder that was cut off for longer finds another object in
its place, and ends with an error.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator

import filelock

from flan_jax.errors import FlanError, StorageError
from flan_jax.files.paths import AnyPath
from flan_jax.files.remote import RemotePath
from flan_jax.files.writing import make_folder, written

BEAT_SECONDS = 20.0  # seconds between two writings of a lock on object storage
STALE_SECONDS = 120.0  # a lock that has not changed for so long belongs to a dead process
_LOOK_SECONDS = 2.0  # seconds between two looks while waiting


@dataclasses.dataclass(frozen=True)
class Held:
    """The holder of a lock, as far as known. On this machine's disks nothing is known.

    Attributes:
      host: its host.
      pid: its process on that host.
    """

    host: str = ""
    pid: int = 0

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}" if self.host else "another process"


def create(path: AnyPath, text: str) -> bool:
    """Writes a file if there is none, and says whether it did. If several try at once, only one succeeds."""
    if isinstance(path, RemotePath):
        return path.create(text.encode())
    make_folder(path.parent)
    aside = path.with_name(f".{path.name[:60]}.{os.getpid()}.{secrets.token_hex(4)}")
    with written(path):
        try:
            aside.write_text(text, encoding="utf-8")
            os.link(aside, path)
        except FileExistsError:
            return False
        finally:
            aside.unlink(missing_ok=True)
    return True


@contextlib.contextmanager
def alone(path: AnyPath, waiting: Callable[[Held], None] = lambda holder: None) -> Iterator[None]:
    """A block that holds a lock.

    Args:
      path: the lock's file; folders above it are made.
      waiting: called once, with the holder, if another process holds it.

    Raises:
      FlanError: the file cannot be written; or, at the end, another process has taken the lock.
    """
    if isinstance(path, RemotePath):
        with _alone_remotely(path, waiting):
            yield
        return
    make_folder(path.parent)
    lock = filelock.FileLock(path)
    with written(path.parent, "write to"):
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            waiting(Held())
            lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def _alone_remotely(path: RemotePath, waiting: Callable[[Held], None]) -> Iterator[None]:
    own = {"host": socket.gethostname(), "pid": os.getpid(), "token": secrets.token_hex(8)}
    _acquire(path, own, waiting)
    ended, lost = threading.Event(), threading.Event()

    def beat() -> None:
        beats = 0
        while not ended.wait(BEAT_SECONDS):
            beats += 1
            try:
                if _token(path) != own["token"]:
                    lost.set()
                    return
                path.write_bytes(json.dumps(own | {"beats": beats}).encode())
            except StorageError:
                continue  # the network may come back; if not, other processes see a lock that does not change

    thread = threading.Thread(target=beat, name="lock", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        with contextlib.suppress(StorageError):  # if it stays, it is taken over
            if _token(path) == own["token"]:
                path.unlink(missing_ok=True)
    if lost.is_set():
        raise FlanError(f"{path} was lost to another process, since this one was cut off: run the same command again.")


def _acquire(path: RemotePath, own: dict[str, object], waiting: Callable[[Held], None]) -> None:
    seen, since, said = "", time.monotonic(), False
    while not path.create(json.dumps(own).encode()):
        try:
            version = path.version()
        except FileNotFoundError:
            continue
        if version != seen:
            seen, since = version, time.monotonic()
        if not said:
            waiting(_holder(path))
            said = True
        if time.monotonic() - since > STALE_SECONDS:
            path.remove_version(version)
            continue
        time.sleep(_LOOK_SECONDS)


def _holder(path: RemotePath) -> Held:
    try:
        values = json.loads(path.read_bytes())
        return Held(str(values["host"]), int(values["pid"]))
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return Held()


def _token(path: RemotePath) -> str | None:
    try:
        return json.loads(path.read_bytes()).get("token")
    except (FileNotFoundError, ValueError, AttributeError):
        return None
