"""Paths that a user gives, files and folders that are written whole or not at all, and our own folder.

Whatever the operating system refuses ends in one line, which `errors.cannot` words.
"""

from __future__ import annotations

import contextlib
import glob
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from flan_jax.errors import FlanError, cannot, system_error_number

_DRIVE = re.compile(r"[A-Za-z]:([\\/]|$)")  # Path has already taken the slash of C:/
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:/")  # Path has already made one slash of two


def home() -> Path:
    """Where FLAN-JAX keeps what it makes for itself: $FLAN_JAX_HOME, or ~/.cache/flan_jax."""
    return user_path(os.environ.get("FLAN_JAX_HOME") or Path.home() / ".cache" / "flan_jax", "FLAN_JAX_HOME")


def user_path(given: str | os.PathLike[str], name: str = "") -> Path:
    """A path that a user gives, with `~` for the home folder. Every such path goes through here.

    Args:
      given: the path.
      name: what it is called where it was given, for the error.

    Raises:
      FlanError: it is empty, a URL, or nothing that a path can be.
    """
    text = os.fspath(given) if isinstance(given, str | os.PathLike) else given
    start = f"{name}: " if name else ""
    if not isinstance(text, str):
        raise FlanError(f"{start}{given!r} is no path: give the path of a file or folder as text.")
    if not text.strip():
        raise FlanError(f"{start}the path is empty: give the path of a file or folder.")
    if "\0" in text:
        raise FlanError(f"{start}{text!r} is no path: it holds a zero byte.")
    if os.name == "posix" and _DRIVE.match(text):
        raise FlanError(
            f"{start}{text} is a path of Windows: give it as this machine has it, for example /mnt/"
            f"{text[0].lower()}/{text[3:].replace(chr(92), '/')}."
        )
    if _URL.match(text):
        raise FlanError(
            f"{start}{text} is a URL, and only paths of this machine work here: mount the bucket as a folder, or copy "
            "what is there."
        )
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise FlanError(f"{start}{text}: {text.partition('/')[0]} is the home folder of nobody here.") from error


# --------------------------------------------------------------------------------------------- whole or not at all


@contextlib.contextmanager
def written(path: str | os.PathLike[str], doing: str = "write") -> Iterator[None]:
    """Around what writes `path`, by us or by a library: what the operating system refuses becomes one line.

    Other exceptions pass as they are.

    Raises:
      FlanError: no room, no permission and the like; it names the path, the reason and the remedy.
    """
    try:
        yield
    except (FlanError, BrokenPipeError):
        raise
    except Exception as error:  # TensorStore, TensorFlow, safetensors and tokenizers each raise their own
        if not isinstance(error, OSError) and system_error_number(error) is None:
            raise
        if isinstance(error, OSError) and isinstance(error.filename, str) and not _near(Path(error.filename), path):
            raise cannot("read or write", error.filename, error) from error
        raise cannot(doing, path, error) from error


def _near(named: Path, path: str | os.PathLike[str]) -> bool:
    """Whether an error about one path is about the writing of the other: above it, below it or beside it."""
    named, path = named.absolute(), Path(path).absolute()
    return named in path.parents or path.parent in named.parents


@contextlib.contextmanager
def whole_file(path: Path, mode: str = "w") -> Iterator[IO[Any]]:
    """A file to write, which takes the place of `path` when all is written; folders above are made.

    A device or a pipe, such as /dev/stdout, is written to as it is, and a link keeps pointing where it does.

    Args:
      path: where it will be.
      mode: "w" for UTF-8 text, "wb" for bytes.

    Raises:
      FlanError: it cannot be written; what was there is as it was.
    """
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


def write_atomic(path: Path, text: str) -> None:
    """Writes a file whole or not at all.

    Raises:
      FlanError: it cannot be written; what was there is as it was.
    """
    with whole_file(path) as file:
        file.write(text)


@contextlib.contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A folder to fill, which takes the place of `path` when all is written; folders above are made.

    One process at a time may do so: it removes what a process that was killed has left.

    Raises:
      FlanError: it cannot be written; what was there is as it was.
    """
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


def make_folder(path: Path) -> Path:
    """Makes a folder and those above it, unless it is there; returns it.

    Raises:
      FlanError: it cannot be made.
    """
    with written(path, "make the folder"):
        path.mkdir(parents=True, exist_ok=True)
    return path


def ready(path: Path, read: Sequence[str | os.PathLike[str]] = ()) -> Path:
    """A file that can be written, asked before hours of work that end in it; nothing is made or changed.

    Args:
      path: where it will be.
      read: paths and globs of files that are read for it, which it must not replace.

    Raises:
      FlanError: it is a folder, its place takes no file, or it is one of the files that are read.
    """
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


def _matches(given: str | os.PathLike[str]) -> Iterator[Path]:
    """The files that a path or a glob means."""
    names = [os.fspath(given)] if os.path.lexists(given) else glob.iglob(os.fspath(given), recursive=True)
    return (found for found in map(Path, names) if found.is_file())


def writable(path: Path) -> Path:
    """A folder that is made if need be and that takes a file: asked before hours of work that end in it.

    Raises:
      FlanError: it cannot be made or written to.
    """
    make_folder(path)
    probe = path / f".probe.{os.getpid()}"
    with written(path, "write to"):
        try:
            probe.write_bytes(b"\0")
        finally:
            probe.unlink(missing_ok=True)
    return path
