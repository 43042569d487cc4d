"""Paths on object storage (gs://, s3:// and all other schemes of fsspec), with pathlib's interface.

A `RemotePath` is not an `os.PathLike`. Code that takes it for a path on this machine (`open`, `Path`, `os`) gets a
TypeError, and does not make a folder called `gs:`. Failures of the storage raise a `StorageError` with one line. Only a
missing object is a FileNotFoundError, as on a disk. The client library retries by itself: gcsfs tries six times, which
takes about half a minute.

Object storage only has whole objects. Nothing is appended, renamed or locked. A folder exists if an object is below it,
and an object exists when all of it has arrived. `writing` and `locks` work within these limits.
"""

from __future__ import annotations

import errno
import functools
import io
import logging
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Any

from flan_jax.errors import FlanError, StorageError, storage_reason

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

# Orbax reaches storage through etils, which would import TensorFlow for it if installed: seven seconds.
os.environ.setdefault("EPATH_USE_TF", "false")
# gcsfs would first ask each bucket for its layout, by another protocol; that only helps for single-zone buckets.
os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")

MEMORY = "memory"
_AT_ONCE = 1 << 25  # bytes that one request reads
_NO_FOLDERS = ("gs", "s3", MEMORY, "az", "abfs", "abfss")  # on these schemes, writing needs no folder


_NUMBERS = {
    FileNotFoundError: errno.ENOENT,
    FileExistsError: errno.EEXIST,
    IsADirectoryError: errno.EISDIR,
    NotADirectoryError: errno.ENOTDIR,
}


class RemotePath:
    """A path on object storage, made by `files.user_path`.

    Paths compare and sort by their text. `str` gives the URL.
    """

    __slots__ = ("_key", "scheme")

    def __init__(self, scheme: str, key: str) -> None:
        self.scheme, self._key = scheme, key

    # ------------------------------------------------------------------------------------------------ names

    def __str__(self) -> str:
        return f"{self.scheme}://{self._key}"

    def __repr__(self) -> str:
        return f"RemotePath({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RemotePath) and str(self) == str(other)

    def __hash__(self) -> int:
        return hash(str(self))

    def __lt__(self, other: RemotePath) -> bool:
        return self.parts < other.parts

    def __truediv__(self, name: str | os.PathLike[str]) -> RemotePath:
        text = os.fspath(name).strip("/")
        return self if text in ("", ".") else RemotePath(self.scheme, f"{self._key}/{text}")

    def joinpath(self, *names: str) -> RemotePath:
        """See pathlib."""
        return functools.reduce(lambda path, name: path / name, names, self)

    def __reduce__(self) -> Any:
        return RemotePath, (self.scheme, self._key)

    @property
    def parts(self) -> tuple[str, ...]:
        """The scheme, the bucket and the names."""
        return (f"{self.scheme}://", *self._key.split("/"))

    @property
    def name(self) -> str:
        """See pathlib."""
        return self._key.rpartition("/")[2]

    @property
    def suffix(self) -> str:
        """See pathlib."""
        return os.path.splitext(self.name)[1]

    @property
    def suffixes(self) -> list[str]:
        """See pathlib."""
        return PurePosixPath(self.name).suffixes

    @property
    def stem(self) -> str:
        """See pathlib."""
        return os.path.splitext(self.name)[0]

    @property
    def parent(self) -> RemotePath:
        """See pathlib; the parent of a bucket is the bucket."""
        return RemotePath(self.scheme, self._key.rpartition("/")[0] or self._key)

    @property
    def parents(self) -> tuple[RemotePath, ...]:
        """See pathlib."""
        found, path = [], self
        while (above := path.parent) != path:
            found.append(above)
            path = above
        return tuple(found)

    def with_name(self, name: str) -> RemotePath:
        """See pathlib."""
        return self.parent / name

    def with_suffix(self, suffix: str) -> RemotePath:
        """See pathlib."""
        return self.with_name(self.stem + suffix)

    def relative_to(self, other: RemotePath) -> str:
        """The part after `other`, as text.

        Raises:
          ValueError: it is not below `other`.
        """
        if self == other:
            return "."
        if not str(self).startswith(f"{other}/"):
            raise ValueError(f"{self} is not below {other}")
        return str(self)[len(str(other)) + 1 :]

    def absolute(self) -> RemotePath:
        """The path itself; so do `resolve` and `expanduser`."""
        return self

    resolve = expanduser = absolute

    def is_symlink(self) -> bool:
        """False; there are no links."""
        return False

    def samefile(self, other: Any) -> bool:
        """See pathlib."""
        return self == other

    # ---------------------------------------------------------------------------------------------- reading

    @property
    def fs(self) -> AbstractFileSystem:
        """The client of its storage.

        Raises:
          StorageError: it is not installed, or finds no credentials.
        """
        with self._asked("open"):
            return _client(self.scheme)

    @property
    def key(self) -> str:
        """Bucket and names, in the form that the client takes."""
        return f"/{self._key}" if self.scheme == MEMORY else self._key

    def info(self) -> dict[str, Any]:
        """What the storage reports about it: "type", "size" and more.

        Raises:
          FileNotFoundError: there is nothing.
        """
        with self._asked("look at"):
            return self.fs.info(self.key)

    def _type(self) -> str | None:
        try:
            return self.info()["type"]
        except (FileNotFoundError, NotADirectoryError):
            return None

    def exists(self) -> bool:
        """See pathlib. One or two requests; so do `is_file` and `is_dir`."""
        return self._type() is not None

    def is_file(self) -> bool:
        """See pathlib."""
        return self._type() == "file"

    def is_dir(self) -> bool:
        """See pathlib."""
        return self._type() == "directory"

    def stat(self) -> os.stat_result:
        """Its size. Other values are not known on every storage."""
        return os.stat_result((0, 0, 0, 0, 0, 0, int(self.info().get("size") or 0), 0, 0, 0))

    def open(self, mode: str = "r", encoding: str | None = None, **_: Any) -> IO[Any]:
        """Opens it for reading: text by one request, bytes block by block.

        To write, use `writing`, which writes whole objects.

        Raises:
          FileNotFoundError: there is nothing.
        """
        if mode not in ("r", "rb"):
            raise ValueError(f"{self}: object storage takes whole objects; use files.whole_file, not mode {mode!r}")
        if mode == "r":
            return io.TextIOWrapper(io.BytesIO(self.read_bytes()), encoding=encoding or "utf-8")
        with self._asked("read"):
            return self.fs.open(self.key, "rb")

    def read_bytes(self) -> bytes:
        """See pathlib; one request."""
        with self._asked("read"):
            return self.fs.cat_file(self.key)

    def read_text(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """See pathlib."""
        return io.TextIOWrapper(io.BytesIO(self.read_bytes()), encoding=encoding, errors=errors).read()

    def iterdir(self) -> Iterator[RemotePath]:
        """See pathlib; one request for a thousand objects."""
        with self._asked("list"):
            found = self.fs.ls(self.key, detail=False)
        names = (path.rstrip("/").rpartition("/")[2] for path in found if path.strip("/") != self._key.strip("/"))
        return (self / name for name in names if name)  # web consoles make folders as objects with an empty name

    def glob(self, pattern: str) -> Iterator[RemotePath]:
        """See pathlib."""
        with self._asked("list"):
            found = self.fs.glob(f"{self.key}/{pattern}")
        return (RemotePath(self.scheme, path.strip("/")) for path in found if path.strip("/") != self._key)

    def rglob(self, pattern: str) -> Iterator[RemotePath]:
        """See pathlib."""
        return self.glob(f"**/{pattern}")

    def all_files(self) -> dict[str, dict[str, Any]]:
        """All objects below it by their relative names, with what the storage reports about each.

        That takes one request for a thousand objects.
        """
        with self._asked("list"):
            found = self.fs.find(self.key, detail=True)
        start = len(self.key.strip("/")) + 1
        files = {path.lstrip("/")[start:]: info for path, info in found.items() if info["type"] == "file"}
        # Folders made by web consoles.
        return {name: info for name, info in files.items() if name and not name.endswith("/")}

    # ---------------------------------------------------------------------------------------------- writing

    def mkdir(self, mode: int = 0o777, parents: bool = False, exist_ok: bool = False) -> None:
        """Does nothing on storage that needs no folders."""
        if self.scheme not in _NO_FOLDERS:
            with self._asked("make the folder"):
                self.fs.makedirs(self.key, exist_ok=exist_ok)

    def write_bytes(self, content: bytes) -> int:
        """Writes the object as a whole."""
        with self._asked("write"):
            self.parent.mkdir(parents=True, exist_ok=True)
            self.fs.pipe_file(self.key, content)
        return len(content)

    def write_text(self, text: str, encoding: str = "utf-8") -> int:
        """Writes the object as a whole."""
        return self.write_bytes(text.encode(encoding))

    def upload(self, path: os.PathLike[str]) -> None:
        """Uploads a file of this machine as this object."""
        with self._asked("write"):
            self.parent.mkdir(parents=True, exist_ok=True)
            self.fs.put_file(os.fspath(path), self.key)

    def download(self, path: os.PathLike[str], size: int) -> None:
        """Downloads the object to a file of this machine. The file is complete only when this returns.

        Args:
          path: the file.
          size: the object's size in bytes. For small ones, two extra requests of the client are avoided.
        """
        if size <= _AT_ONCE:
            Path(path).write_bytes(self.read_bytes())
            return
        with self._asked("read"):
            self.fs.get_file(self.key, os.fspath(path))

    def unlink(self, missing_ok: bool = False) -> None:
        """See pathlib."""
        try:
            with self._asked("remove"):
                self.fs.rm_file(self.key)
        except FileNotFoundError:
            if not missing_ok:
                raise

    def remove_below(self) -> None:
        """Removes the object and all objects below it, if there are any."""
        if "/" not in self._key:
            raise FlanError(f"{self} is a whole bucket, which is never removed.")
        try:
            with self._asked("remove"):
                self.fs.rm(self.key, recursive=True)
        except FileNotFoundError:
            pass

    def create(self, content: bytes) -> bool:
        """Writes the object if there is none, and says whether it did. If several try at once, only one succeeds.

        gs:// and s3:// have a precondition for that (if_generation_match=0, If-None-Match).
        """
        try:
            with self._asked("write"):
                self.parent.mkdir(parents=True, exist_ok=True)
                self.fs.pipe_file(self.key, content, mode="create")
        except FileExistsError:
            return False
        return True

    def version(self) -> str:
        """Identifies the object's content: it changes with every write.

        Raises:
          FileNotFoundError: there is nothing.
        """
        info = self.info()
        names = ("generation", "ETag", "etag", "created", "mtime", "LastModified", "last_modified", "md5Hash")
        return "|".join([str(info.get("size")), *(str(info[name]) for name in names if name in info)])

    def remove_version(self, version: str) -> bool:
        """Removes the object if it still has that version, and says whether it did.

        On gs:// the storage compares (ifGenerationMatch). On others we compare just before; two that do so at the same
        moment may both succeed.
        """
        try:
            if self.scheme == "gs":
                info = self.info()
                if self.version() != version:
                    return False
                bucket, _, name = self._key.partition("/")
                with self._asked("remove"):
                    self.fs.call("DELETE", "b/{}/o/{}", bucket, name, ifGenerationMatch=info["generation"])
                return True
            if self.version() != version:
                return False
            self.unlink()
        except (FileNotFoundError, FileExistsError):  # gcsfs raises the latter for any failed precondition
            return False
        return True

    def _asked(self, doing: str) -> _Asked:
        return _Asked(self, doing)


class _Asked:
    """A block that makes a request.

    What the client raises becomes a StorageError, unless pathlib would raise the same.
    """

    def __init__(self, path: RemotePath, doing: str) -> None:
        self._path, self._doing = path, doing

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if error is None or not isinstance(error, Exception) or isinstance(error, FlanError | StorageError):
            return
        if isinstance(error, FileNotFoundError | FileExistsError | IsADirectoryError | NotADirectoryError):
            if isinstance(error, FileNotFoundError) and self._doing in ("write", "make the folder"):
                bucket = "/".join(str(self._path).split("/")[:3])
                raise StorageError(
                    f"cannot {self._doing} {self._path}: there is no bucket {bucket}; make it, or check its name."
                ) from error
            number = _NUMBERS[type(error)]
            raise type(error)(number, os.strerror(number), str(self._path)) from error
        raise StorageError(f"cannot {self._doing} {self._path}: {storage_reason(error)}.") from error


@functools.cache
def _client(scheme: str) -> AbstractFileSystem:
    import fsspec

    configure()
    return fsspec.filesystem(scheme)


@functools.cache
def configure() -> None:
    """Tells every client of this process, also those of Orbax and TFDS, to cache no listings and to log nothing.

    We must see what other processes have written since. gcsfs logs each error that it raises with its traceback.
    """
    from fsspec.config import conf

    logging.getLogger("gcsfs").setLevel(logging.CRITICAL)
    for scheme in ("gs", "gcs", "s3", "s3a", "abfs", "az"):
        conf.setdefault(scheme, {}).setdefault("use_listings_cache", False)
