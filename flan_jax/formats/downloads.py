"""Finds files that were not really downloaded: pointers of Git LFS."""

from __future__ import annotations

from pathlib import Path

from flan_jax.errors import FlanError

_POINTER = b"version https://git-lfs.github.com/spec/"


def refuse_pointer(path: Path) -> None:
    """Refuses a file whose content was never fetched. Missing and unreadable files are left to their reader.

    Raises:
      FlanError: `path` is a pointer of Git LFS.
    """
    try:
        with path.open("rb") as file:
            start = file.read(len(_POINTER))
    except OSError:
        return
    if start == _POINTER:
        raise FlanError(f"{path} is a pointer of Git LFS and not the file itself: run `git lfs pull` in {path.parent}.")
