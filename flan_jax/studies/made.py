"""What a preparation left, in digests: by them a plan sees that prepared data are others now, or damaged.

Who prepares into the same folder by hand, from other data, or copies a dataset from elsewhere, would have a study score
what its DATA does not hold.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from flan_jax import styles
from flan_jax.data import token_store
from flan_jax.files import AnyPath, RemotePath, user_path

_DIGITS = 16
_INFO = "info.json"
_EXAMPLES, _TOKENS = "examples", "tokens"
_FINGERPRINT = len(token_store.folder_of(".", "0" * 64).name)  # of a vocabulary, at the beginning of a folder's name
_OF_TOKENS = ("version", "digest", "records_digest")
_OF_EXAMPLES = ("version", "files")
Made = Mapping[str, str]


def of(place: AnyPath, wordings: Mapping[str, str]) -> dict[str, str]:
    """What lies in a folder of prepared data.

    Args:
      place: PREPARED_DIR.
      wordings: of the step that prepares: its keys are "dataset style".

    Returns:
      A digest of what each dataset's info.json says of its records and tokens, by folder, relative to `place`.
    """
    pairs = [(name, style) for name, _, style in (key.partition(" ") for key in wordings) if style]
    wanted = {(name, styles.parse(style).suffix) for name, style in pairs}
    names = {name for name, _ in wanted}
    found = {}
    for folder, info in _infos(place).items():
        kind, *between, name = folder.split("/")
        mine = name in names if kind == _EXAMPLES else (name, between[0][_FINGERPRINT:]) in wanted
        if mine:
            found[folder] = _digest(info, _OF_EXAMPLES if kind == _EXAMPLES else _OF_TOKENS)
    return found


def spoiled(place: AnyPath, wordings: Mapping[str, str], kept: Any) -> dict[str, str]:
    """What is not as a preparation left it: by folder, what is wrong with it.

    Args:
      place: PREPARED_DIR.
      wordings: see `of`.
      kept: what the record of the step holds. Those of earlier versions hold nothing; then only damage is seen.
    """
    now, before = of(place, wordings), kept if isinstance(kept, dict) else None
    found = {}
    for folder in sorted({*now, *(before or ())}):
        if folder not in now:
            found[folder] = "is not there any more"
        elif before is not None and folder not in before:
            found[folder] = "is of no preparation of this study"
        elif before is not None and before[folder] != now[folder]:
            found[folder] = "is another one"
        elif _is_damaged(place / folder):
            found[folder] = "is damaged"
    return found


def _infos(place: AnyPath) -> dict[str, dict[str, Any] | None]:
    """The info.json of each folder of examples and tokens; None where it cannot be read."""
    if isinstance(place, RemotePath):
        there = sorted((name, _stamp(about)) for name, about in place.all_files().items() if name.endswith(_INFO))
        return _remote_infos(str(place), tuple(one for one in there if _is_info(one[0])))
    paths = [*place.glob(f"{_EXAMPLES}/*/{_INFO}"), *place.glob(f"{_TOKENS}/*/*/{_INFO}")]
    each = [path.parent for path in paths if not path.parent.name.startswith(".")]
    return {folder.relative_to(place).as_posix(): token_store.read_info(folder) for folder in each}


def _is_info(name: str) -> bool:
    kind, *rest = name.split("/")
    return (kind, len(rest)) in ((_EXAMPLES, 2), (_TOKENS, 3))


def _stamp(about: Mapping[str, Any]) -> str:
    return str([str(about.get(key)) for key in ("size", "etag", "ETag", "md5Hash", "mtime", "LastModified", "updated")])


@functools.lru_cache(maxsize=16)  # a plan asks for each of its evaluations
def _remote_infos(place: str, there: tuple[tuple[str, str], ...]) -> dict[str, dict[str, Any] | None]:
    folders = [name.rpartition("/")[0] for name, _ in there]
    return {folder: token_store.read_info(user_path(place) / folder) for folder in folders}


def _digest(info: Mapping[str, Any] | None, keys: Iterable[str]) -> str:
    told = json.dumps([None if info is None else info.get(key) for key in keys], sort_keys=True)
    return hashlib.sha256(told.encode()).hexdigest()[:_DIGITS]


def _is_damaged(folder: AnyPath) -> bool:
    """Whether files are not those of which info.json tells. On object storage nobody looks."""
    if isinstance(folder, RemotePath):
        return False
    files = sorted((path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in folder.glob("*"))
    return _are_damaged(folder, tuple(files))


@functools.lru_cache(maxsize=4096)
def _are_damaged(folder: Path, files: tuple[tuple[str, int, int], ...]) -> bool:
    if (info := token_store.read_info(folder)) is None:
        return True
    sizes = {name: size for name, size, _ in files}
    try:
        if "files" in info:
            return any(
                hashlib.sha256((folder / f"{name}.jsonl").read_bytes()).hexdigest() != about["sha256"]
                for name, about in info["files"].items()
            )
        index = np.load(folder / "index.npy", mmap_mode="r")
        bytes_of_tokens = int(info["num_tokens"]) * np.dtype(info["tokens_dtype"]).itemsize
        arrays = ("hashes.npy", "ids.npy", "texts.npy")
        whole = len(index) == info["num_examples"] and sizes.get("tokens.bin") == bytes_of_tokens
        return not whole or not all(sizes.get(name) for name in arrays)
    except (OSError, EOFError, ValueError, TypeError, KeyError, AttributeError):
        return True
