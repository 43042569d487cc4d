"""Paths as a user writes them."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from flan_jax.errors import FlanError
from flan_jax.files import urls
from flan_jax.files.remote import RemotePath

if TYPE_CHECKING:
    from typing_extensions import TypeIs  # in typing from Python 3.13 on

AnyPath = Path | RemotePath

_DRIVE = re.compile(r"[A-Za-z]:([\\/]|$)")  # Path has already turned C:// into C:/


def home() -> Path:
    """The folder for what FLAN-JAX makes for itself on this machine: $FLAN_JAX_HOME, or ~/.cache/flan_jax."""
    return local_path(os.environ.get("FLAN_JAX_HOME") or Path.home() / ".cache" / "flan_jax", "FLAN_JAX_HOME")


def user_path(given: str | os.PathLike[str] | RemotePath, name: str = "") -> AnyPath:
    """The path that a user's text means, with `~` for the home folder.

    Nothing is read. Every path of a user goes through here.

    Args:
      given: a path on this machine, or a URL of object storage (gs://BUCKET/FOLDER, or another scheme of fsspec).
      name: what the user calls it, for the error.

    Raises:
      FlanError: it is empty, a web address, a whole bucket, has an unknown scheme or one without its library, or cannot
        be a path.
    """
    if isinstance(given, RemotePath):
        return given
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
    if urls.URL.match(text.strip()):
        found = urls.parsed(text.strip(), start)
        if isinstance(found, RemotePath):
            return found
        text = found
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise FlanError(f"{start}{text}: {text.partition('/')[0]} is the home folder of nobody here.") from error


def same_place(first: AnyPath, second: AnyPath) -> bool:
    """Whether two paths are the same file or folder, as far as names and links tell."""
    if isinstance(first, Path) and isinstance(second, Path):
        return os.path.realpath(first) == os.path.realpath(second)
    return str(first).rstrip("/") == str(second).rstrip("/")


def is_url(text: str) -> bool:
    """Whether a text is meant as a URL; `user_path` says whether it is a valid one.

    Example:
      >>> is_url("gs://bucket/runs"), is_url("runs/first")
      (True, False)
    """
    return urls.URL.match(text) is not None and not _DRIVE.match(text)


def is_remote(path: object) -> TypeIs[RemotePath]:
    """Whether a path is on object storage."""
    return isinstance(path, RemotePath)


def local_path(given: str | os.PathLike[str] | RemotePath, name: str = "", why: str = "") -> Path:
    """A user's path that must be on this machine.

    Raises:
      FlanError: it is no path, or is on object storage; `why` says what needs it here.
    """
    path = user_path(given, name)
    if isinstance(path, RemotePath):
        start, reason = f"{name}: " if name else "", f" ({why})" if why else ""
        raise FlanError(f"{start}{path} lies on object storage, and this has to be on this machine{reason}.")
    return path
