"""Folders in the form of Orbax and TensorStore, which themselves read and write disks, gs:// and s3://."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flan_jax.errors import FlanError
from flan_jax.files.paths import AnyPath
from flan_jax.files.remote import RemotePath

if TYPE_CHECKING:
    from etils import epath

_SCHEMES = ("gs", "s3")
# Orbax finds the parts that it has written by a pattern that begins with the folder's path. If the path has one of
# these signs, it finds no parts or another folder's, and the checkpoint cannot be read.
_PATTERN = "*?[\\"


def orbax_folder(path: AnyPath, to_write: bool = False) -> epath.Path:
    """A folder in the form that Orbax takes.

    Args:
      path: the folder.
      to_write: whether arrays will be written there.

    Raises:
      FlanError: arrays cannot be written there.
    """
    from etils import epath

    _refuse(path)
    if to_write:
        refuse_pattern(path)
    return epath.Path(str(path.absolute()))


def refuse_pattern(path: AnyPath) -> None:
    """Refuses a folder in which checkpoints would be lost.

    Raises:
      FlanError: its path has a sign that Orbax reads as part of a pattern.
    """
    if odd := [sign for sign in str(path.absolute()) if sign in _PATTERN]:
        raise FlanError(
            f"{path} cannot hold checkpoints, since {odd[0]} in a path is a pattern to Orbax, which writes them: give "
            f"a folder without any of {' '.join(_PATTERN)}."
        )


def kvstore(path: AnyPath) -> str | dict[str, str]:
    """A folder in the form that TensorStore takes. On object storage it is the same URL that Orbax has.

    Raises:
      FlanError: arrays cannot be written there.
    """
    _refuse(path)
    # A URL for this machine would have to escape spaces and similar characters.
    return f"{path}/" if isinstance(path, RemotePath) else {"driver": "file", "path": f"{path.absolute()}/"}


def _refuse(path: AnyPath) -> None:
    if isinstance(path, RemotePath) and path.scheme not in _SCHEMES:
        raise FlanError(
            f"{path} cannot hold a checkpoint: its arrays are written by TensorStore, which knows disks, gs:// and "
            "s3://; give a folder there."
        )
