"""Keeps trees in files, so that they are tokenized only once. A file holds what is scored together.

A file begins with a digest of the rest. Then come a line of JSON that says what the file belongs to, compressed JSON,
and the trees as int32. A file appears whole or not at all. A file that was cut, changed or made for something else is
never used.
"""

from __future__ import annotations

import array
import dataclasses
import hashlib
import itertools
import json
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from flan_jax.files import whole_file
from flan_jax.scoring.trees import Tree

VERSION = 1  # version of this file format
_LEVEL = 1  # the compression then takes less time than writing what it saves

_INTEGER = np.dtype("<i4")

Trees = Any  # a tree, a list of these, or a dict of these by name


@dataclasses.dataclass(frozen=True)
class Stored:
    """The content of a file.

    Attributes:
      plain: anything that JSON can hold.
      trees: a tree, or trees in lists and dicts.
    """

    plain: Any
    trees: Trees


def write(path: Path, key: Mapping[str, Any], stored: Stored) -> None:
    """Writes a file, whole or not at all.

    Args:
      path: the file.
      key: what the content depends on, as values that JSON can hold.
      stored: the content.

    Raises:
      FlanError: it cannot be written; an earlier file is then unchanged.
    """
    distinct: dict[Tree, int] = {}
    structure = _numbered(stored.trees, distinct)
    text = zlib.compress(json.dumps([stored.plain, structure], separators=(",", ":")).encode(), _LEVEL)
    body = text + _integers(distinct).tobytes()
    header = {"version": VERSION, "key": key, "trees": len(distinct), "json": len(text)}
    content = json.dumps(header, sort_keys=True).encode() + b"\n" + body
    with whole_file(path, "wb") as file:
        file.write(hashlib.sha256(content).hexdigest().encode() + b"\n")
        file.write(content)


def read(path: Path, key: Mapping[str, Any]) -> Stored | None:
    """Reads a file; None if it belongs to another key, has another version, or was damaged.

    Raises:
      OSError: it cannot be read.
    """
    whole = path.read_bytes()
    digest, _, content = whole.partition(b"\n")
    if digest != hashlib.sha256(content).hexdigest().encode():
        return None
    first, _, body = content.partition(b"\n")
    header = json.loads(first)
    if header["version"] != VERSION or header["key"] != json.loads(json.dumps(key)):
        return None
    plain, structure = json.loads(zlib.decompress(body[: header["json"]]))
    trees = list(_trees(np.frombuffer(body[header["json"] :], _INTEGER).tolist()))
    return Stored(plain, _placed(structure, trees))


def _numbered(trees: Trees, distinct: dict[Tree, int]) -> Any:
    if isinstance(trees, Tree):
        return distinct.setdefault(trees, len(distinct))
    if isinstance(trees, Mapping):
        return {name: _numbered(some, distinct) for name, some in trees.items()}
    return [_numbered(some, distinct) for some in trees]


def _placed(structure: Any, trees: list[Tree]) -> Trees:
    if isinstance(structure, int):
        return trees[structure]
    if isinstance(structure, dict):
        return {name: _placed(some, trees) for name, some in structure.items()}
    return [_placed(some, trees) for some in structure]


def _integers(trees: Mapping[Tree, int]) -> np.ndarray:
    """Writes trees as integers.

    First come the distinct prefixes, each after its length. Then come, for every tree, the number of its prefix, cut
    tokens, lengths, bytes and tokens.
    """
    prefixes = {prefix: number for number, prefix in enumerate(dict.fromkeys(tree.prefix for tree in trees))}
    found = array.array("i", [len(prefixes)])
    for prefix in prefixes:
        found.append(len(prefix))
        found.extend(prefix)
    for tree in trees:
        found.extend((prefixes[tree.prefix], tree.cut_tokens, len(tree.trunk), len(tree.branches)))
        for branch, unscored, num_bytes in zip(tree.branches, tree.unscored, tree.num_bytes, strict=True):
            found.extend((len(branch), unscored, num_bytes))
        found.extend(itertools.chain(tree.trunk, *tree.branches))
    return np.array(found, _INTEGER)


def _trees(integers: list[int]) -> Iterator[Tree]:
    position, prefixes = 1, []
    for _ in range(integers[0]):
        length = integers[position]
        prefixes.append(tuple(integers[position + 1 : position + 1 + length]))
        position += 1 + length
    while position < len(integers):
        prefix, cut, trunk_length, count = integers[position : position + 4]
        about, position = position + 4, position + 4 + 3 * count
        lengths = integers[about:position:3]
        trunk = tuple(integers[position : position + trunk_length])
        position += trunk_length
        branches = []
        for length in lengths:
            branches.append(tuple(integers[position : position + length]))
            position += length
        unscored, num_bytes = (
            tuple(integers[about + 1 : about + 3 * count : 3]),
            integers[about + 2 : about + 3 * count : 3],
        )
        yield Tree(trunk, tuple(branches), unscored, tuple(num_bytes), cut, prefixes[prefix])
