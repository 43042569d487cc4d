"""Files and folders that are written whole or not at all.

On this machine, new content takes its place by a rename. Object storage has no rename. A file is made here and
uploaded, and appears there with its last byte. Of a folder, the file that marks it as complete (`last`) is removed
first and written last. Readers wait for it, so they never take a half-written folder for a complete one.
"""

from __future__ import annotations

import contextlib
import fnmatch
import glob
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from flan_jax.errors import FlanError, StorageError, cannot, system_error_number
from flan_jax.files.paths import AnyPath, home
from flan_jax.files.remote import RemotePath


@contextlib.contextmanager
def written(path: str | os.PathLike[str] | RemotePath, doing: str = "write") -> Iterator[None]:
    """A block that writes `path`, by our code or a library. If the operating system refuses, the error is one line.

    Other exceptions pass unchanged.

    Raises:
      FlanError: no room, no permission and the like; the message has the path, the reason and the remedy.
    """
    try:
        yield
    except (FlanError, StorageError, BrokenPipeError):
        raise
    except Exception as error:  # TensorStore, TensorFlow, safetensors and tokenizers each raise their own errors
        if not isinstance(error, OSError) and system_error_number(error) is None:
            raise
        elsewhere = error.filename if isinstance(error, OSError) else None
        if isinstance(elsewhere, str) and (isinstance(path, RemotePath) or not _near(Path(elsewhere), path)):
            raise cannot("read or write", elsewhere, error) from error
        raise _with_home(cannot(doing, path, error), path) from error


def _with_home(error: FlanError, path: str | os.PathLike[str] | RemotePath) -> FlanError:
    """Names the setting that says where this program keeps its own files, if one of those is meant."""
    if isinstance(path, RemotePath) or home() not in (Path(path), *Path(path).parents):
        return error
    return FlanError(f"{str(error).rstrip('.')}, or set FLAN_JAX_HOME to another folder.")


def _near(named: Path, path: str | os.PathLike[str]) -> bool:
    """Whether an error about one path belongs to writing the other: the path is above it, below it or beside it."""
    named, path = named.absolute(), Path(path).absolute()
    return named in path.parents or path.parent in named.parents


@contextlib.contextmanager
def whole_file(path: AnyPath, mode: str = "w") -> Iterator[IO[Any]]:
    """A file to write, which replaces `path` when everything is written. Folders above are made.

    A device or a pipe, such as /dev/stdout, is written directly. A link keeps pointing to its target.

    Args:
      path: the file.
      mode: "w" for UTF-8 text, "wb" for bytes.

    Raises:
      FlanError: it cannot be written; an earlier file is then unchanged.
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
            if path.exists() and not path.is_file():  # /dev/stdout or a pipe cannot be replaced
                with path.open(mode, encoding=encoding) as file:
                    yield file
                return
            place = _target(path)
            temporary = place.with_name(f".{place.name[:60]}.{os.getpid()}")  # a name may have 255 bytes
            place.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open(mode, encoding=encoding) as file:
                yield file
            temporary.replace(place)
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)


def _target(path: Path) -> Path:
    """What is replaced: a link stays a link.

    Raises:
      FlanError: a link that leads to itself.
    """
    try:
        return path.resolve() if path.is_symlink() else path
    except RuntimeError as error:  # Python 3.12 and earlier; later ones resolve to the link itself
        raise FlanError(f"cannot write {path}: it is a link that leads to itself; remove it.") from error


def write_atomic(path: AnyPath, text: str) -> None:
    """Writes a text file whole or not at all.

    Raises:
      FlanError: it cannot be written; an earlier file is then unchanged.
    """
    if isinstance(path, RemotePath):
        with written(path):
            path.write_bytes(text.encode())
        return
    with whole_file(path) as file:
        file.write(text)


def write_together(contents: Mapping[AnyPath, str]) -> None:
    """Writes text files that belong together: where one cannot be written, the others stay as they are.

    Raises:
      FlanError: one of them cannot be written.
    """
    with contextlib.ExitStack() as files:
        for path, text in contents.items():
            file = files.enter_context(whole_file(path))
            file.write(text)
            file.flush()  # here an error is still one of all files


@contextlib.contextmanager
def _uploaded(path: RemotePath, mode: str) -> Iterator[IO[Any]]:
    """A file on this machine to write, which is uploaded when everything is written."""
    with written(path), tempfile.TemporaryDirectory(prefix="flan_jax_") as folder:
        building = Path(folder) / "file"
        with building.open(mode, encoding=None if "b" in mode else "utf-8") as file:
            yield file
        path.upload(building)


@contextlib.contextmanager
def whole_folder(path: AnyPath, last: str = "info.json") -> Iterator[Path]:
    """A folder on this machine to fill, which replaces `path` when everything is written. Folders above are made.

    Only one process at a time may do this, because it removes what a killed process has left.

    Args:
      path: the folder.
      last: the file by which readers know that the folder is complete. On object storage it is removed before anything
        is changed, and uploaded at the end.

    Raises:
      FlanError: it cannot be written. An earlier folder is then unchanged, unless it is on object storage and the
        upload had begun.
    """
    if isinstance(path, RemotePath):
        with written(path), tempfile.TemporaryDirectory(prefix="flan_jax_") as made:
            building = Path(made) / path.name
            building.mkdir()
            yield building
            copy_folder(building, path, last)
        return
    path = path.resolve() if path.is_symlink() else path  # a link stays a link
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
    """Replaces a folder on object storage by one of this machine; see `whole_folder`."""
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
    """Removes a folder with its content, if it exists. What cannot be removed on this machine stays."""
    if isinstance(path, RemotePath):
        path.remove_below()
    else:
        shutil.rmtree(path, ignore_errors=True)


def move_folder(path: AnyPath, to: AnyPath) -> None:
    """Moves a folder to a new place. On object storage each object is copied, then removed.

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
    """Makes a folder and those above it, unless they exist, and returns it.

    Raises:
      FlanError: it cannot be made.
    """
    with written(path, "make the folder"):
        path.mkdir(parents=True, exist_ok=True)
    return path


def ready(path: AnyPath, read: Sequence[str | os.PathLike[str] | RemotePath] = ()) -> AnyPath:
    """Checks that a file can be written, before hours of work whose result it takes. Nothing is made or changed.

    Args:
      path: the file.
      read: paths and globs of files that the work reads; the file may not replace one of them.

    Raises:
      FlanError: it is a folder, cannot be written, or is one of the files that are read.
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
        except OSError as error:  # the exception names our probe, which the user does not know
            raise cannot("write", path, error) from error
    return path


def _means(given: str | os.PathLike[str] | RemotePath, path: RemotePath) -> bool:
    """Whether a path or a glob means this object."""
    return fnmatch.fnmatchcase(str(path), str(given))


def _probe(folder: RemotePath, wanted: RemotePath) -> None:
    """Writes an object below a folder and removes it.

    Raises:
      StorageError: it cannot be written. The message names the wanted path, because the user does not know the probe.
    """
    probe = folder / f".probe.{os.getpid()}"
    try:
        probe.write_bytes(b"\0")
    except StorageError as error:
        raise StorageError(str(error).replace(str(probe), str(wanted), 1)) from error
    with contextlib.suppress(StorageError):  # a user may be allowed to write but not to remove
        probe.unlink(missing_ok=True)


def _matches(given: str | os.PathLike[str] | RemotePath) -> Iterator[Path]:
    """The files that a path or a glob means."""
    if isinstance(given, RemotePath):
        return iter(())
    names = [os.fspath(given)] if os.path.lexists(given) else glob.iglob(os.fspath(given), recursive=True)
    return (found for found in map(Path, names) if found.is_file())


def writable(path: AnyPath) -> AnyPath:
    """Makes a folder if needed and checks that files can be written there, before hours of work whose result it takes.

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
