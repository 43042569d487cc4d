"""Copies prepared tokens from object storage to this machine's disk, where they can be memory-mapped.

    FLAN_JAX_HOME/staged/<digest of the URL>/content/<dataset>/   a copy of the dataset's folder

Each dataset that a mixture draws from is staged once on each host, by one of its processes. The copy is used while the
digests in its `info.json` are those on the storage; for an unchanged dataset, only that file is read. If the dataset
changes, a new copy replaces the old one. To free the disk space, remove FLAN_JAX_HOME/staged while nothing runs.
"""

from __future__ import annotations

import json
import sys
import zlib
from pathlib import Path

import numpy as np
from rich import progress
from rich.console import Console

from flan_jax.errors import FlanError
from flan_jax.files import RemotePath, staged_folder

INFO = "info.json"


def staged(folder: RemotePath) -> Path:
    """A dataset's folder of the token store on this machine, checked against its digests after the download.

    Raises:
      FileNotFoundError: there is no complete folder.
      FlanError: the disk is full, or the download does not fit its info.
      StorageError: the storage cannot be reached.
    """
    bar = progress.Progress(
        progress.TextColumn("{task.description}", markup=False),
        progress.BarColumn(),
        progress.DownloadColumn(),
        progress.TimeRemainingColumn(),
        console=Console(file=sys.stderr, markup=False, emoji=False),
        transient=True,
    )
    task = None

    def show(done: int, whole: int) -> None:
        nonlocal task
        if task is None:
            bar.start()
            task = bar.add_task(f"staging {folder.name}", total=whole)
        bar.update(task, completed=done)
        if done == whole and not bar.console.is_terminal:
            print(f"staged {folder.name} ({whole / 1e6:,.1f} MB)", file=sys.stderr, flush=True)

    try:
        return staged_folder(folder, INFO, check, show)
    finally:
        if task is not None:
            bar.stop()


def check(folder: Path) -> None:
    """Compares a copy with the checksums in its info.json.

    Raises:
      FlanError: a file differs.
    """
    try:
        info = json.loads((folder / INFO).read_text(encoding="utf-8"))
        wrong = [name for name in ("tokens", *_ARRAYS) if _checksum(folder, name) != info[f"{name}_crc32"]]
    except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
        raise FlanError(_damaged(folder, f"{type(error).__name__}: {error}")) from error
    if wrong:
        raise FlanError(_damaged(folder, f"{wrong[0]} does not fit its checksum"))


_ARRAYS = ("index", "hashes", "ids", "texts")


def _checksum(folder: Path, name: str) -> int:
    if name != "tokens":
        return zlib.crc32(np.load(folder / f"{name}.npy").tobytes())
    checksum = 0
    with (folder / "tokens.bin").open("rb") as file:
        while block := file.read(1 << 24):
            checksum = zlib.crc32(block, checksum)
    return checksum


def _damaged(folder: Path, reason: str) -> str:
    return (
        f"the prepared tokens of {folder.name!r} are damaged on the storage ({reason.rstrip('.')}); run python -m "
        f"flan_jax.prepare --datasets={folder.name} --overwrite, with the same --data, --vocabulary and --to as before."
    )
