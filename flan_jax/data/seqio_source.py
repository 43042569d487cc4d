"""A dataset's records as a `seqio.DataSource`: fields as text, before any template is chosen.

An offline cache holds the same. So one copy serves every vocabulary, seed, style, length and epoch; a copy of tokens
would be needed for each. Every row names the data and the code that made it, so that a cache of others is not used
silently.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from pathlib import Path
from typing import Any

import filelock
import seqio
import tensorflow as tf

from flan_jax import catalog
from flan_jax.data import sources, usable
from flan_jax.errors import FlanError
from flan_jax.files import home, written
from flan_jax.splits import SplitSlice

IS_TRAIN = "is_train"  # of a row: whether it is from train, where inverted templates are shown too
MADE_OF = "made_of"  # of a row: `CatalogSource.made_of`

SPLITS = ("train", "validation", "test")
_SHARD = 5_000  # records in one unit of work for `seqio_cache_tasks`


class CatalogSource(seqio.DataSource):
    """A dataset's usable records, each once in a pass: `record_id`, `is_train`, `made_of` and the fields.

    A variant, such as a direction of a translation, has the records that evaluation asks of it, in train too. The
    source is opened when it is first read.
    """

    def __init__(self, record: catalog.Dataset, data: str | Path) -> None:
        super().__init__(splits=SPLITS)
        self._record, self._data = catalog.dataset(catalog.whole(record.name)), data
        self._variant = record.variant

    @functools.cached_property
    def source(self) -> sources.OpenSource:
        """The open source.

        Raises:
          SourceError: it cannot be opened.
        """
        return sources.open_source(self._record, self._data)

    @property
    def made_of(self) -> str:
        """Digests of the data and of the code that makes fields from them, separated by a colon."""
        splits = {name: part.tfds for name, part in self.source.splits.items()}
        return f"{_digest(self.source.content, json.dumps(splits, sort_keys=True))}:{usable.code_digest(self._record)}"

    def is_made_of(self, digests: str) -> bool:
        """Whether reading now would give rows with these digests.

        If the data are not at hand, only the code is compared.
        """
        if not self._is_at_hand:
            return digests.partition(":")[2] == usable.code_digest(self._record)
        return digests == self.made_of

    @property
    def _is_at_hand(self) -> bool:
        """Whether it can be opened without a download."""
        try:
            if "source" not in vars(self) and self._data == sources.TFDS:
                return sources.builder_of(self._record).is_prepared()
            _ = self.source
        except sources.SourceError:
            return False
        return True

    @property
    def supports_arbitrary_sharding(self) -> bool:
        """True: each shard reads its own part of the records, whatever their files."""
        return True

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits of train, validation (dev) and test that the source has."""
        return tuple(self.source.splits)

    def list_shards(self, split: str) -> list[str]:
        """The parts of a split, for pipelines that work on several at once."""
        whole = self._slice(split)
        count = max(1, -(-whole.size // _SHARD))
        return [f"{self._record.name}:{_part(whole, i, count).tfds}" for i in range(count)]

    def num_input_examples(self, split: str) -> int:
        """The number of records of a split, before filtering, and before a dev or test record gives several examples.

        Raises:
          FlanError: no dataset has such a split. A split that only this source lacks has 0 records.
        """
        return 0 if split in SPLITS and split not in self.source.splits else self._slice(split).size

    @functools.cached_property
    def rate(self) -> int:
        """The mixing rate: min(n, 3000) for n usable training records, as in training.

        Only as many records are read as that needs: none if all of a split are known to be usable. The number is kept
        in our own folder for the next time.
        """
        if "train" not in self.source.splits:
            return 0
        if self._record.keep is None and self.source.origin != sources.TFDS:
            return catalog.mixing_rate(self.num_input_examples("train"))  # the import has left out the others
        where = (str(self.source.builder.data_dir), self.source.splits["train"].tfds)
        digest = _digest(*where, usable.code_digest(self._record))  # what decides which records are usable
        file = home() / "rates" / f"{self._record.name}-{digest}.json"
        with written(file.parent):
            file.parent.mkdir(parents=True, exist_ok=True)
            with filelock.FileLock(file.with_suffix(".lock")):
                if not file.exists():
                    rows = usable.usable(self._record, self.source.read("train")).take(catalog.RATE_CAP)
                    count = sum(1 for _ in rows.map(lambda row: row["record_id"]).as_numpy_iterator())
                    file.write_text(json.dumps(count))
        return catalog.mixing_rate(json.loads(file.read_text()))

    def _slice(self, split: str) -> SplitSlice:
        if split not in self.source.splits:
            there = ", ".join(self.source.splits)
            raise FlanError(f"dataset {self._record.name} has no split {split!r} in its source; it has {there}.")
        return self.source.splits[split]

    def get_dataset(
        self,
        split: str = "train",
        shuffle: bool = True,
        seed: int | None = None,
        shard_info: seqio.ShardInfo | None = None,
        **_: Any,
    ) -> tf.data.Dataset:
        """One pass over a split, or over a shard of it."""
        part = self._slice(split)
        if shard_info is not None and not 0 <= shard_info.index < shard_info.num_shards:
            asked = f"shard {shard_info.index} of {shard_info.num_shards}"
            raise FlanError(f"dataset {self._record.name}: there is no {asked}; they count from 0.")
        if shard_info is not None and shard_info.num_shards > 1:
            part = _part(part, shard_info.index, shard_info.num_shards)
        shown = part if part.size else self._slice(split)  # if there are more shards than records, some are empty
        read = dataclasses.replace(self.source, splits={split: shown}).read(split, shuffle, seed)
        read = read.shuffle(seqio.SHUFFLE_BUFFER_SIZE, seed) if shuffle else read
        rows = read if part.size else read.take(0)
        constants = {IS_TRAIN: split == "train", MADE_OF: self.made_of}
        found = usable.usable(self._record, rows, split != "train" or bool(self._variant), **constants)
        own = tf.autograph.experimental.do_not_convert(lambda row: tf.equal(row[catalog.VARIANT], self._variant))
        return found.filter(own) if self._variant else found


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _part(whole: SplitSlice, index: int, count: int) -> SplitSlice:
    """One of `count` parts of about the same size, in order."""
    start, stop = (whole.start + whole.size * i // count for i in (index, index + 1))
    return SplitSlice(whole.split, start, stop)
