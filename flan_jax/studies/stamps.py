"""What a preparation reads, in digests: by them a plan sees that DATA or TASKS have changed since it was taken.

They are made at every plan. Of a folder of data they hold names, sizes and times of files, as make compares them, and
of our samples, which are small, and of code the content.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from flan_jax import catalog
from flan_jax.data.samples import SAMPLES, TFDS, samples_folder
from flan_jax.errors import StorageError
from flan_jax.files import AnyPath, is_remote, user_path

CODE, FILES = "code", "files"
Stamp = Mapping[str, Mapping[str, str]]
_DIGITS = 16
_OF_OBJECTS = ("etag", "ETag", "md5Hash", "mtime", "LastModified", "last_modified")  # what a storage may say of one


def of(data: str, names: Sequence[str]) -> Stamp:
    """The stamp of a preparation that begins now.

    Args:
      data: "samples", "tfds", or a folder, as `flan_jax.prepare` takes it.
      names: the datasets that it prepares.

    Returns:
      Digests by dataset: CODE of what makes text of a row, FILES of the rows. There are none of FILES where the rows
      are TFDS's own, or where the folder cannot be read now.
    """
    chosen = {name: catalog.dataset(name) for name in names}
    found = {CODE: {name: _of_code(record) for name, record in chosen.items()}}
    if (files := _of_files(data, chosen)) is not None:
        found[FILES] = files
    return found


def changed(before: Any, now: Stamp) -> list[str]:
    """The datasets of a stamp whose code or rows are not those of an earlier one. What is not known now is the same.

    Args:
      before: what a record holds; those of earlier versions hold nothing.
      now: the stamp of a plan.

    >>> changed({"code": {"rte": "a"}, "files": {"rte": "b"}}, {"code": {"rte": "a"}, "files": {"rte": "c"}})
    ['rte']
    >>> changed({"code": {"rte": "a"}, "files": {"rte": "b"}}, {"code": {"rte": "a"}})  # DATA cannot be read
    []
    """
    there = before if isinstance(before, dict) else {}
    kept = {kind: there[kind] if isinstance(there.get(kind), dict) else {} for kind in now}
    found = [name for kind, each in now.items() for name, own in each.items() if kept[kind].get(name) != own]
    return list(dict.fromkeys(found))


def agree(before: Any, now: Stamp) -> bool:
    """Whether two preparations read the same of what both read."""
    there = before if isinstance(before, dict) else {}
    common = {
        kind: {name: own for name, own in each.items() if name in (there.get(kind) or {})} for kind, each in now.items()
    }
    return not changed(before, common)


def _of_code(record: catalog.Dataset) -> str:
    """Of the functions that make text of a row, by the files that they stand in, and of what is declared beside them.

    How templates show it is not in it: `commands.text_digest` is of that.
    """
    parts = (record.fields, record.keep, record.expand, record.nested)
    declared = repr((record.source, record.folder, record.schema, record.labels, record.spellings, record.splits))
    return _digest([declared, *(_code_of(part) for part in parts if part is not None)])


def _code_of(function: Any) -> str:
    function = function.func if isinstance(function, functools.partial) else function
    try:
        return _content(Path(inspect.getfile(function)))
    except (TypeError, OSError):  # of an object or of a session; preparing says what it cannot take
        return ""


def _of_files(data: str, chosen: Mapping[str, catalog.Dataset]) -> dict[str, str] | None:
    if data == TFDS:
        return None
    if data == SAMPLES:
        each = {name: samples_folder(record) / record.folder for name, record in chosen.items()}
        return {
            name: _digest([f"{file.name} {_content(file)}" for file in sorted(folder.glob("*")) if file.is_file()])
            for name, folder in each.items()
        }
    try:
        root = user_path(data, "DATA")
        if not root.is_dir():
            return None
        below = _objects(root) if is_remote(root) else None
        return {
            name: _digest(line for folder in folders(record) for line in _lines(root, folder, below))
            for name, record in chosen.items()
        }
    except (OSError, StorageError):
        return None


def folders(record: catalog.Dataset) -> list[str]:
    """Where rows of a dataset may be in a folder of data, by relative names: JSONL, or what TFDS wrote."""
    return list(dict.fromkeys((record.folder, record.source.partition(":")[0])))


def _lines(root: AnyPath, folder: str, below: Sequence[str] | None) -> Iterable[str]:
    """A line for each file below a folder, with its name, its size and when it was written."""
    if below is not None:
        return [line for line in below if line.startswith(f"{folder}/")]
    files = [os.path.join(place, name) for place, _, names in os.walk(str(root / folder)) for name in names]
    told = []
    for file in sorted(files):
        about = os.stat(file) if os.path.exists(file) else os.lstat(file)  # a link that leads nowhere
        told.append(f"{os.path.relpath(file, str(root))} {about.st_size} {about.st_mtime_ns}")
    return told


def _objects(root: Any) -> list[str]:
    """A line for each object below a folder on object storage; all of them by one listing."""
    return [
        f"{name} {about.get('size')} {[str(about[key]) for key in _OF_OBJECTS if key in about]}"
        for name, about in sorted(root.all_files().items())
    ]


def _content(file: Path) -> str:
    about = file.stat()
    return _content_of(file, about.st_size, about.st_mtime_ns)


@functools.lru_cache(maxsize=4096)  # a study plans several times
def _content_of(file: Path, size: int, written: int) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()[:_DIGITS]


def _digest(lines: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode(errors="surrogateescape")).hexdigest()[:_DIGITS]
