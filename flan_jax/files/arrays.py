"""Where arrays lie, as Orbax and TensorStore take it: they write and read disks, gs:// and s3:// by themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flan_jax.errors import FlanError
from flan_jax.files.paths import AnyPath
from flan_jax.files.remote import RemotePath

if TYPE_CHECKING:
    from etils import epath

_DRIVERS = {"gs": "gcs", "s3": "s3"}


def orbax_folder(path: AnyPath) -> epath.Path:
    """A folder as Orbax takes it.

    Raises:
      FlanError: it lies where arrays cannot be written.
    """
    from etils import epath

    _refuse(path)
    return epath.Path(str(path.absolute()))


def kvstore(path: AnyPath) -> dict[str, Any]:
    """A folder as TensorStore takes it.

    Raises:
      FlanError: it lies where arrays cannot be written.
    """
    _refuse(path)
    if not isinstance(path, RemotePath):
        return {"driver": "file", "path": f"{path.absolute()}/"}
    bucket, _, inside = path.key.partition("/")
    return {"driver": _DRIVERS[path.scheme], "bucket": bucket, "path": f"{inside}/"}


def _refuse(path: AnyPath) -> None:
    if isinstance(path, RemotePath) and path.scheme not in _DRIVERS:
        raise FlanError(
            f"{path} cannot hold a checkpoint: its arrays are written by TensorStore, which knows disks, gs:// and "
            "s3://; give a folder there."
        )
