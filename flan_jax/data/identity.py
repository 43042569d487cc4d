"""Identifies the training records of a token store: ids, content hashes, and keys of their texts, as arrays."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from flan_jax import content

HASH = np.dtype("S16")
TEXT = np.dtype([("record", np.int32), ("words", np.int32), ("key", np.uint64)])


@dataclasses.dataclass(frozen=True)
class Identities:
    """The identities of N records.

    Attributes:
      hashes: N content hashes.
      ids: N record ids, in UTF-8.
      texts: one entry of `TEXT` for each distinct text of each record, see `content.text_keys`.
    """

    hashes: np.ndarray
    ids: np.ndarray
    texts: np.ndarray

    @classmethod
    def of(cls, records: Iterable[tuple[str, Mapping[str, Any]]]) -> Identities:
        """The identities of (id, fields), in order."""
        hashes, ids, texts = [], [], []
        for number, (identity, fields) in enumerate(records):
            hashes.append(content.content_hash(fields))
            ids.append(identity.encode())
            keys = content.text_keys(content.texts_of(fields))
            texts += [(number, words, key) for key, words in keys.items()]
        return cls(np.array(hashes, HASH), np.array(ids, np.bytes_), np.array(texts, TEXT))

    @classmethod
    def joined(cls, parts: Sequence[Identities]) -> Identities:
        """The identities of several parts, one after the other."""
        texts, first = [np.zeros(0, TEXT)], 0
        for part in parts:
            moved = part.texts.copy()
            moved["record"] += first
            texts.append(moved)
            first += len(part.hashes)
        hashes = np.concatenate([np.zeros(0, HASH), *(part.hashes for part in parts)])
        ids = np.concatenate([np.zeros(0, "S1"), *(part.ids for part in parts)])
        return cls(hashes, ids, np.concatenate(texts))

    @property
    def digest(self) -> str:
        """A digest of the records in their order."""
        return content.digest(one.decode() for one in self.hashes.tolist())
