"""Paths as a user gives them."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from flan_jax.errors import FlanError
from flan_jax.files import urls
from flan_jax.files.remote import RemotePath

if TYPE_CHECKING:
    from typing_extensions import TypeIs  # of typing from Python 3.13 on

AnyPath = Path | RemotePath

_DRIVE = re.compile(r"[A-Za-z]:([\\/]|$)")  # Path has already taken the slash of C:/


def home() -> Path:
    """Where FLAN-JAX keeps what it makes for itself, on this machine: $FLAN_JAX_HOME, or ~/.cache/flan_jax."""
    return local_path(os.environ.get("FLAN_JAX_HOME") or Path.home() / ".cache" / "flan_jax", "FLAN_JAX_HOME")


def user_path(given: str | os.PathLike[str] | RemotePath, name: str = "") -> AnyPath:
    """A path that a user gives, with `~` for the home folder. Every such path goes through here; nothing is asked yet.

    Args:
      given: a path of this machine, or a URL of object storage (gs://BUCKET/FOLDER, or another scheme of fsspec).
      name: what it is called where it was given, for the error.

    Raises:
      FlanError: it is empty, an address of the web, of a scheme that is not known or not installed, a whole bucket, or
        nothing that a path can be.
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
    """Whether two paths are one file or folder, as far as names and links tell."""
    if isinstance(first, Path) and isinstance(second, Path):
        return os.path.realpath(first) == os.path.realpath(second)
    return str(first).rstrip("/") == str(second).rstrip("/")


def is_url(text: str) -> bool:
    """Whether a text is meant as a URL: `user_path` says whether it is one."""
    return urls.URL.match(text) is not None and not _DRIVE.match(text)


def is_remote(path: object) -> TypeIs[RemotePath]:
    """Whether a path lies on object storage."""
    return isinstance(path, RemotePath)


def local_path(given: str | os.PathLike[str] | RemotePath, name: str = "", why: str = "") -> Path:
    """A path that a user gives and that has to be of this machine.

    Raises:
      FlanError: it is none, or lies on object storage; `why` says what needs it here.
    """
    path = user_path(given, name)
    if isinstance(path, RemotePath):
        start, reason = f"{name}: " if name else "", f" ({why})" if why else ""
        raise FlanError(f"{start}{path} lies on object storage, and this has to be on this machine{reason}.")
    return path
