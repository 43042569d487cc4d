"""Where arrays lie, as Orbax and TensorStore take it: they write and read disks, gs:// and s3:// by themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flan_jax.errors import FlanError
from flan_jax.files.paths import AnyPath
from flan_jax.files.remote import RemotePath

if TYPE_CHECKING:
    from etils import epath

_SCHEMES = ("gs", "s3")
# Orbax looks for the parts that it has written by a pattern that begins with the folder: of a name with these it finds
# none, or those of another folder, and what it leaves cannot be read.
_PATTERN = "*?[\\"


def orbax_folder(path: AnyPath, to_write: bool = False) -> epath.Path:
    """A folder as Orbax takes it.

    Args:
      path: of it.
      to_write: whether arrays will be written there.

    Raises:
      FlanError: it lies where arrays cannot be written, or see `refuse_pattern`.
    """
    from etils import epath

    _refuse(path)
    if to_write:
        refuse_pattern(path)
    return epath.Path(str(path.absolute()))


def refuse_pattern(path: AnyPath) -> None:
    """Refuses a folder in which checkpoints would be lost.

    Raises:
      FlanError: its path has a sign that is none of a name to Orbax.
    """
    if odd := [sign for sign in str(path.absolute()) if sign in _PATTERN]:
        raise FlanError(
            f"{path} cannot hold checkpoints, since {odd[0]} in a path is a pattern to Orbax, which writes them: give "
            f"a folder without any of {' '.join(_PATTERN)}."
        )


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
