"""Copies of files from object storage on this machine's disk ("staged").

A copy is made once, and reused while the original is the same.

    FLAN_JAX_HOME/staged/<digest of the URL>/...   a file or folder, and where it comes from

A copy is downloaded beside its place and renamed, under a lock. So the processes of a host stage it once, and a
half-finished folder is never used. If the original changes, a new copy replaces the old one. To free the disk space,
remove the folder while no process runs.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from concurrent import futures
from pathlib import Path
from typing import Any

from humanize import naturalsize

from flan_jax.errors import FlanError, StorageError
from flan_jax.files import locks
from flan_jax.files.paths import home, user_path
from flan_jax.files.remote import RemotePath
from flan_jax.files.writing import written

_ABOUT, _CONTENT = "about.json", "content"
_AT_ONCE = 8  # files downloaded at the same time

Progress = Callable[[int, int], None]  # bytes that are there, bytes in all


def staging_home() -> Path:
    """The folder of all staged files."""
    return home() / "staged"


def local(given: str | os.PathLike[str] | RemotePath, progress: Progress | None = None) -> Path:
    """A file or folder on this machine's disk: itself, or a staged copy of it.

    On object storage, its version is asked for each time. That is one request; for a folder, one for a thousand
    objects.

    Args:
      given: a path as `user_path` takes it.
      progress: called during the download.

    Raises:
      FileNotFoundError: there is nothing at that URL.
      FlanError: the download is damaged, or the disk is full.
      StorageError: the storage cannot be reached.
    """
    path = user_path(given)
    if not isinstance(path, RemotePath):
        return path
    info = path.info()
    if info["type"] == "file":
        return _staged(path, path.parent, {path.name: info}, progress) / path.name
    return _staged(path, path, path.all_files(), progress)


def staged_folder(
    path: RemotePath, marker: str, check: Callable[[Path], Any], progress: Progress | None = None
) -> Path:
    """A staged copy of a folder that `whole_folder` wrote. It is reused while the folder's marker file is the same.

    Args:
      path: where the folder is.
      marker: the file that identifies the content by digests, and was written last.
      check: called with the downloaded folder before it is used; raises if something is wrong with it.
      progress: called during the download.

    Raises:
      FileNotFoundError: there is no marker, so nobody has finished writing the folder.
      FlanError: the check fails.
      StorageError: the storage cannot be reached.
    """
    wanted = (path / marker).read_bytes()
    place = _place(path)
    content = place / _CONTENT / path.name

    def is_current() -> bool:
        try:
            return (content / marker).read_bytes() == wanted
        except OSError:
            return False

    if is_current():
        return content
    with locks.alone(place / ".lock"):
        if not is_current():
            with _replacing(place, path, {}) as building:
                folder = building / path.name
                _download(path, path.all_files(), folder, progress)
                if (folder / marker).read_bytes() != wanted:
                    raise StorageError(f"{path} was written again while it was read: run the same command again.")
                check(folder)
    return content


def _place(path: RemotePath) -> Path:
    return staging_home() / hashlib.sha256(str(path).encode()).hexdigest()[:20]


def _staged(
    path: RemotePath, folder: RemotePath, found: Mapping[str, dict[str, Any]], progress: Progress | None
) -> Path:
    """Stages the found files below a folder as `path`, and returns the copy of the folder."""
    versions = {name: _version(info) for name, info in sorted(found.items())}
    place = _place(path)

    def is_current() -> bool:
        try:
            return json.loads((place / _CONTENT / _ABOUT).read_text())["versions"] == versions
        except (OSError, ValueError, KeyError, TypeError):
            return False

    content = place / _CONTENT / folder.name
    if is_current():
        return content
    with locks.alone(place / ".lock"):
        if not is_current():
            with _replacing(place, path, versions) as building:
                _download(folder, found, building / folder.name, progress)
    return content


def _version(info: Mapping[str, Any]) -> list[str]:
    names = ("size", "generation", "ETag", "etag", "md5Hash", "created", "mtime", "LastModified", "last_modified")
    return [str(info[name]) for name in names if name in info]


@contextlib.contextmanager
def _replacing(place: Path, path: RemotePath, versions: Mapping[str, Any]) -> Iterator[Path]:
    """A folder to download into, which then replaces the staged one. Memory maps of the old one stay valid."""
    building, old = place / "building", place / "old"
    try:
        with written(place, "stage in"):
            for folder in (building, old):
                shutil.rmtree(folder, ignore_errors=True)
            building.mkdir(parents=True)
            yield building
            (building / _ABOUT).write_text(json.dumps({"url": str(path), "versions": versions}))
            if (place / _CONTENT).exists():
                (place / _CONTENT).rename(old)
            building.rename(place / _CONTENT)
    finally:
        for folder in (building, old):
            shutil.rmtree(folder, ignore_errors=True)


def _download(path: RemotePath, found: Mapping[str, dict[str, Any]], to: Path, progress: Progress | None) -> None:
    sizes = {name: int(info.get("size") or 0) for name, info in found.items()}
    whole, done = sum(sizes.values()), 0
    free = shutil.disk_usage(to.parent).free
    if whole > free:
        raise FlanError(
            f"cannot stage {path} in {to.parent}: it has {naturalsize(whole)}, and the disk has {naturalsize(free)} "
            "free; make room, or set FLAN_JAX_HOME to a larger disk."
        )

    def one(name: str) -> str:
        place = to / name
        place.parent.mkdir(parents=True, exist_ok=True)
        try:
            (path / name).download(place, sizes[name])
        except FileNotFoundError as error:
            if place.parent.is_dir():
                raise StorageError(
                    f"{path / name} was removed while it was read: run the same command again."
                ) from error
            raise
        if place.stat().st_size != sizes[name] or not _is_same(place, found[name]):
            raise StorageError(f"{path / name} did not come whole: run the same command again.")
        return name

    to.mkdir(parents=True, exist_ok=True)
    if odd := [name for name in sizes if {"..", ""} & set(name.split("/"))]:  # they would be written to another folder
        raise FlanError(f"{path} holds an object {odd[0]!r}, which cannot be a file here: rename it.")
    with futures.ThreadPoolExecutor(_AT_ONCE) as pool:
        for name in pool.map(one, sizes):
            done += sizes[name]
            if progress is not None:
                progress(done, whole)


def _is_same(file: Path, info: Mapping[str, Any]) -> bool:
    """Whether a file has the MD5 that the storage reports, if it reports one."""
    if not isinstance(wanted := info.get("md5Hash"), str):
        return True
    with file.open("rb") as opened:
        return base64.b64encode(hashlib.file_digest(opened, "md5").digest()).decode() == wanted
