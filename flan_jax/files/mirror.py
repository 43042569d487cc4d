"""Files that grow, such as logs. Object storage cannot append, so they grow on this machine's disk and are uploaded."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from concurrent import futures
from pathlib import Path

from flan_jax.files.paths import AnyPath, home
from flan_jax.files.remote import RemotePath
from flan_jax.files.writing import make_folder, remove_folder

_SHARE = 0.05  # uploads take at most this share of the time, since they grow with the files


class Mirror:
    """A folder on this machine whose files a thread uploads now and then, each as a whole.

    For a folder that is on this machine anyway, it is that folder, and its methods do nothing. Only one process may
    write it.

    Attributes:
      folder: where to write.
    """

    def __init__(self, there: AnyPath, names: Sequence[str] = ()) -> None:
        """Makes the folder.

        Args:
          there: where the files belong.
          names: existing files that go on; they are downloaded.

        Raises:
          StorageError: the storage cannot be reached.
        """
        self._there = there
        if not isinstance(there, RemotePath):
            self.folder: Path = there
            return
        self.folder = home() / "mirrors" / hashlib.sha256(str(there).encode()).hexdigest()[:20]
        remove_folder(self.folder)  # from a killed process
        make_folder(self.folder)
        self._pool = futures.ThreadPoolExecutor(1, "mirror")
        self._running: futures.Future[None] | None = None
        self._rests_until = 0.0
        self._sizes: dict[Path, int] = {}
        for name in names:
            try:
                (self.folder / name).write_bytes((there / name).read_bytes())
            except FileNotFoundError:
                continue

    def begin(self) -> None:
        """Uploads new content in the background, unless an upload is running or has just ended."""
        if not isinstance(self._there, RemotePath) or (self._running is not None and not self._running.done()):
            return
        if time.monotonic() >= self._rests_until:
            self._running = self._pool.submit(self._upload)  # if it fails, `wait` tries again and reports it

    def wait(self) -> None:
        """Uploads new content, and returns when everything is there.

        Raises:
          StorageError: it cannot be written.
        """
        if isinstance(self._there, RemotePath):
            futures.wait([self._running] if self._running is not None else [])
            self._upload()

    def close(self) -> None:
        """Uploads new content, ends the thread and removes the folder.

        Raises:
          StorageError: it cannot be written.
        """
        if isinstance(self._there, RemotePath):
            try:
                self.wait()
            finally:
                self._pool.shutdown()
                remove_folder(self.folder)

    def _upload(self) -> None:
        began = time.monotonic()
        for file in sorted(path for path in self.folder.rglob("*") if path.is_file()):
            size = file.stat().st_size
            if self._sizes.get(file) != size:
                with file.open("rb") as opened:
                    content = opened.read(size)  # more may be added meanwhile
                (self._there / str(file.relative_to(self.folder))).write_bytes(content)
                self._sizes[file] = size
        now = time.monotonic()
        self._rests_until = now + (now - began) / _SHARE
