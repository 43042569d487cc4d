"""Folders in the form of Orbax and TensorStore, which themselves read and write disks, gs:// and s3://."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flan_jax.errors import FlanError
from flan_jax.files.paths import AnyPath
from flan_jax.files.remote import RemotePath

if TYPE_CHECKING:
    from etils import epath

_SCHEMES = ("gs", "s3")


def orbax_folder(path: AnyPath) -> epath.Path:
    """A folder in the form that Orbax takes.

    Raises:
      FlanError: arrays cannot be written there.
    """
    from etils import epath

    _refuse(path)
    return epath.Path(str(path.absolute()))


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
