"""Where arrays lie, as Orbax and TensorStore take it: they write and read disks, gs:// and s3:// by themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flan_jax.errors import FlanError
from flan_jax.files.paths import AnyPath
from flan_jax.files.remote import RemotePath

if TYPE_CHECKING:
    from etils import epath

_SCHEMES = ("gs", "s3")


def orbax_folder(path: AnyPath) -> epath.Path:
    """A folder as Orbax takes it.

    Raises:
      FlanError: it lies where arrays cannot be written.
    """
    from etils import epath

    _refuse(path)
    return epath.Path(str(path.absolute()))


def kvstore(path: AnyPath) -> str | dict[str, str]:
    """A folder as TensorStore takes it: one of object storage by the URL that Orbax has, names as they are.

    Raises:
      FlanError: it lies where arrays cannot be written.
    """
    _refuse(path)
    # A URL of this machine would have to escape what is no sign of one, such as a blank.
    return f"{path}/" if isinstance(path, RemotePath) else {"driver": "file", "path": f"{path.absolute()}/"}


def _refuse(path: AnyPath) -> None:
    if isinstance(path, RemotePath) and path.scheme not in _SCHEMES:
        raise FlanError(
            f"{path} cannot hold a checkpoint: its arrays are written by TensorStore, which knows disks, gs:// and "
            "s3://; give a folder there."
        )
