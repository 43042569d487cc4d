"""Checks before the first step whether a folder can take a run: all hosts see the same one, and it has room."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import shutil
import socket
import time
import uuid
from collections.abc import Callable
from typing import Any

import jax
from humanize import naturalsize

from flan_jax import distributed
from flan_jax.checkpoint import saved_digests
from flan_jax.errors import FlanError, StorageError
from flan_jax.files import AnyPath, make_folder, written

_PATIENCE = 10.0  # seconds; by then every host sees what process 0 wrote or saw, or never will
_LOOK = 0.2
_COMPRESSED = 0.5  # for float32 numbers that came from bfloat16; others compress to 0.92


def check_shared(folder: AnyPath, name: str = "MODEL_DIR") -> None:
    """Checks that all processes see the same folder: process 0 writes a small file, which each has to read.

    The folder is made; the file is removed. With one process nothing happens. All processes must call this together.

    Args:
      folder: the folder.
      name: what it is called, for the error.

    Raises:
      FlanError: a host sees another folder (the message names it), or process 0 cannot write there.
    """
    if jax.process_count() == 1:
        return
    token = folder / f".shared-{uuid.uuid4().hex}"

    def put() -> str:
        make_folder(folder)
        with written(token):
            token.write_text(token.name, encoding="utf-8")
        return token.name

    try:
        seen_by_primary = distributed.decided(put)
        sees = _in_time(lambda: (folder / seen_by_primary).read_text(encoding="utf-8") == seen_by_primary)
        _refuse(folder, name, "" if sees else "does not see what process 0 has written there")
    finally:
        if distributed.is_primary():
            with contextlib.suppress(OSError, StorageError):
                token.unlink(missing_ok=True)


def check_room(folder: AnyPath, trees: Any, name: str = "MODEL_DIR") -> None:
    """Checks that a checkpoint can fit on the disk, if the system says how much is free.

    All processes must call it together.

    Args:
      folder: the folder of checkpoints, which must exist.
      trees: arrays, or their shapes, that a checkpoint holds.
      name: what the folder is called, for the error.

    Raises:
      FlanError: there is less room than even the best compression would need.
    """
    needed = sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(trees))

    def look() -> None:
        try:
            free = shutil.disk_usage(folder).free
        except (OSError, TypeError, ValueError):  # object storage has no limit
            return
        if free < _COMPRESSED * needed:
            raise FlanError(
                f"{name} {folder} has {naturalsize(free)} free, and a checkpoint of this run takes "
                f"{naturalsize(needed)}: make room, or choose another folder."
            )

    distributed.decided(look)


def check_step(folder: AnyPath, step: int | None) -> None:
    """Checks that all processes see the step that process 0 sees, or that none sees one. All must call it together.

    Raises:
      FlanError: a host sees another folder; the message names it.
    """
    if jax.process_count() == 1:
        return
    wanted = distributed.decided(lambda: _identity(folder, step))
    if _in_time(lambda: _identity(folder, step) == wanted):
        problem = ""
    elif step is None:
        problem = "sees checkpoints, and process 0 sees none"
    else:
        problem = f"does not see step {step} as process 0 does"
    _refuse(folder, "the checkpoint folder", problem)


def _identity(folder: AnyPath, step: int | None) -> str:
    """Tells a step, or an empty folder, from another."""
    if step is None:
        checkpoints = folder / "checkpoints"
        return (
            " ".join(sorted(x.name for x in checkpoints.iterdir() if x.name.isdigit())) if checkpoints.exists() else ""
        )
    where = saved_digests.step_folder(folder, step)
    files = [
        path for path in (where / saved_digests.ITEM / "metadata", where / "_CHECKPOINT_METADATA") if path.exists()
    ]
    return hashlib.sha256(b"\0".join(path.read_bytes() for path in files)).hexdigest() if where.exists() else ""


def _in_time(is_so: Callable[[], bool]) -> bool:
    end = time.monotonic() + _PATIENCE
    while True:
        with contextlib.suppress(OSError, StorageError):
            if is_so():
                return True
        if time.monotonic() > end:
            return False
        time.sleep(_LOOK)


def _refuse(folder: AnyPath, name: str, problem: str) -> None:
    said = distributed.gathered(json.dumps([socket.gethostname(), str(folder), problem]))
    for number, (host, path, text) in enumerate(map(json.loads, said)):
        if text:
            raise FlanError(
                f"process {number} on host {host} {text}: {name} {path} has to lie on storage that all hosts of the "
                "pod share, such as a bucket or a network disk."
            )
