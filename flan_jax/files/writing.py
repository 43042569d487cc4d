"""Files and folders that are written whole or not at all.

On this machine what is written takes its place by a rename. Object storage has no rename: a file is made here and
uploaded, where it appears with its last byte; of a folder, the file that says it is whole (`last`) goes away first and
comes last, so that whoever reads by it never takes a half-written folder for a whole one.
"""

from __future__ import annotations

import contextlib
import fnmatch
import glob
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from flan_jax.errors import FlanError, StorageError, cannot, system_error_number
from flan_jax.files.paths import AnyPath
from flan_jax.files.remote import RemotePath


@contextlib.contextmanager
def written(path: str | os.PathLike[str] | RemotePath, doing: str = "write") -> Iterator[None]:
    """Around what writes `path`, by us or by a library: what the operating system refuses becomes one line.

    Other exceptions pass as they are.

    Raises:
      FlanError: no room, no permission and the like; it names the path, the reason and the remedy.
    """
    try:
        yield
    except (FlanError, StorageError, BrokenPipeError):
        raise
    except Exception as error:  # TensorStore, TensorFlow, safetensors and tokenizers each raise their own
        if not isinstance(error, OSError) and system_error_number(error) is None:
            raise
        elsewhere = error.filename if isinstance(error, OSError) else None
        if isinstance(elsewhere, str) and (isinstance(path, RemotePath) or not _near(Path(elsewhere), path)):
            raise cannot("read or write", elsewhere, error) from error
        raise cannot(doing, path, error) from error


def _near(named: Path, path: str | os.PathLike[str]) -> bool:
    """Whether an error about one path is about the writing of the other: above it, below it or beside it."""
    named, path = named.absolute(), Path(path).absolute()
    return named in path.parents or path.parent in named.parents


@contextlib.contextmanager
def whole_file(path: AnyPath, mode: str = "w") -> Iterator[IO[Any]]:
    """A file to write, which takes the place of `path` when all is written; folders above are made.

    A device or a pipe, such as /dev/stdout, is written to as it is, and a link keeps pointing where it does.

    Args:
      path: where it will be.
      mode: "w" for UTF-8 text, "wb" for bytes.

    Raises:
      FlanError: it cannot be written; what was there is as it was.
    """
    if isinstance(path, RemotePath):
        with _uploaded(path, mode) as file:
            yield file
        return
    temporary: Path | None = None
    encoding = None if "b" in mode else "utf-8"
    try:
        with written(path):
            if path.is_dir():
                raise FlanError(f"cannot write {path}: it is a folder; give a file name.")
            if path.exists() and not path.is_file():  # /dev/stdout, a pipe: nothing may take its place
                with path.open(mode, encoding=encoding) as file:
                    yield file
                return
            place = path.resolve() if path.is_symlink() else path  # a link stays one
            temporary = place.with_name(f".{place.name[:60]}.{os.getpid()}")  # a name may have 255 bytes
            place.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open(mode, encoding=encoding) as file:
                yield file
            temporary.replace(place)
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)


def write_atomic(path: AnyPath, text: str) -> None:
    """Writes a file whole or not at all.

    Raises:
      FlanError: it cannot be written; what was there is as it was.
    """
    if isinstance(path, RemotePath):
        with written(path):
            path.write_bytes(text.encode())
        return
    with whole_file(path) as file:
        file.write(text)


@contextlib.contextmanager
def _uploaded(path: RemotePath, mode: str) -> Iterator[IO[Any]]:
    """A file of this machine to write, which is uploaded when all is written."""
    with written(path), tempfile.TemporaryDirectory(prefix="flan_jax_") as folder:
        building = Path(folder) / "file"
        with building.open(mode, encoding=None if "b" in mode else "utf-8") as file:
            yield file
        path.upload(building)


@contextlib.contextmanager
def whole_folder(path: AnyPath, last: str = "info.json") -> Iterator[Path]:
    """A folder of this machine to fill, which takes the place of `path` when all is written; folders above are made.

    One process at a time may do so: it removes what a process that was killed has left.

    Args:
      path: where it will be.
      last: the file by which readers know that a folder is whole. On object storage it is removed before anything is
        changed and uploaded at the end: until then there is none.

    Raises:
      FlanError: it cannot be written; what was there is as it was, unless it lies on object storage and its upload had
        begun.
    """
    if isinstance(path, RemotePath):
        with written(path), tempfile.TemporaryDirectory(prefix="flan_jax_") as made:
            building = Path(made) / path.name
            building.mkdir()
            yield building
            copy_folder(building, path, last)
        return
    path = path.resolve() if path.is_symlink() else path  # a link stays one
    building, replaced = (path.with_name(f".{path.name}.{state}") for state in ("building", "replaced"))
    try:
        with written(path):
            for folder in (building, replaced):
                shutil.rmtree(folder, ignore_errors=True)
            building.mkdir(parents=True)
            yield building
            if path.exists():
                path.rename(replaced)
            building.rename(path)
    finally:
        for folder in (building, replaced):
            shutil.rmtree(folder, ignore_errors=True)


def copy_folder(building: Path, path: RemotePath, last: str) -> None:
    """Puts a folder of this machine in the place of one on object storage; see `whole_folder`."""
    names = sorted(str(file.relative_to(building)) for file in building.rglob("*") if file.is_file())
    (path / last).unlink(missing_ok=True)
    before = path.all_files()
    for name in names:
        if name != last:
            (path / name).upload(building / name)
    for name in sorted(set(before) - set(names)):
        (path / name).unlink(missing_ok=True)
    if last in names:
        (path / last).upload(building / last)


def remove_folder(path: AnyPath) -> None:
    """Removes a folder with all that is in it, where it is there. What cannot be removed on this machine stays."""
    if isinstance(path, RemotePath):
        path.remove_below()
    else:
        shutil.rmtree(path, ignore_errors=True)


def move_folder(path: AnyPath, to: AnyPath) -> None:
    """Moves a folder to where nothing is. On object storage each object is copied, then removed.

    Raises:
      OSError: it cannot be moved.
    """
    if isinstance(path, RemotePath):
        for name in sorted(path.all_files()):
            (to / name).write_bytes((path / name).read_bytes())
        path.remove_below()
    else:
        to.parent.mkdir(parents=True, exist_ok=True)
        path.rename(to)


def make_folder(path: AnyPath) -> AnyPath:
    """Makes a folder and those above it, unless it is there; returns it.

    Raises:
      FlanError: it cannot be made.
    """
    with written(path, "make the folder"):
        path.mkdir(parents=True, exist_ok=True)
    return path


def ready(path: AnyPath, read: Sequence[str | os.PathLike[str] | RemotePath] = ()) -> AnyPath:
    """A file that can be written, asked before hours of work that end in it; nothing is made or changed.

    Args:
      path: where it will be.
      read: paths and globs of files that are read for it, which it must not replace.

    Raises:
      FlanError: it is a folder, its place takes no file, or it is one of the files that are read.
    """
    if isinstance(path, RemotePath):
        if any(str(one) == str(path) or _means(one, path) for one in read):
            raise FlanError(
                f"cannot write {path}: it is read here, and what it holds would be lost; give another name."
            )
        _probe(path.parent, path)
        return path
    with written(path):
        if path.is_file() and any(found.samefile(path) for one in read for found in _matches(one)):
            raise FlanError(
                f"cannot write {path}: it is read here, and what it holds would be lost; give another name."
            )
        if path.is_dir():
            raise FlanError(f"cannot write {path}: it is a folder; give a file name.")
        if path.exists() and not path.is_file():
            return path  # a device or a pipe
        above = next(folder for folder in path.absolute().parents if os.path.lexists(folder))
        try:
            with tempfile.TemporaryFile(dir=above):
                pass
        except OSError as error:  # it names the probe, of which nobody knows
            raise cannot("write", path, error) from error
    return path


def _means(given: str | os.PathLike[str] | RemotePath, path: RemotePath) -> bool:
    """Whether a path or a glob means this object."""
    return fnmatch.fnmatchcase(str(path), str(given))


def _probe(folder: RemotePath, wanted: RemotePath) -> None:
    """Writes an object below a folder and removes it.

    Raises:
      StorageError: it cannot be written; it names what is wanted, since nobody knows of the probe.
    """
    probe = folder / f".probe.{os.getpid()}"
    try:
        probe.write_bytes(b"\0")
    except StorageError as error:
        raise StorageError(str(error).replace(str(probe), str(wanted), 1)) from error
    with contextlib.suppress(StorageError):  # who may write need not be allowed to remove
        probe.unlink(missing_ok=True)


def _matches(given: str | os.PathLike[str] | RemotePath) -> Iterator[Path]:
    """The files that a path or a glob means."""
    if isinstance(given, RemotePath):
        return iter(())
    names = [os.fspath(given)] if os.path.lexists(given) else glob.iglob(os.fspath(given), recursive=True)
    return (found for found in map(Path, names) if found.is_file())


def writable(path: AnyPath) -> AnyPath:
    """A folder that is made if need be and that takes a file: asked before hours of work that end in it.

    Raises:
      FlanError: it cannot be made or written to.
    """
    if isinstance(path, RemotePath):
        _probe(path, path)
        return path
    make_folder(path)
    probe = path / f".probe.{os.getpid()}"
    with written(path, "write to"):
        try:
            probe.write_bytes(b"\0")
        finally:
            probe.unlink(missing_ok=True)
    return path
