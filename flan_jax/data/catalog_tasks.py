"""A SeqIO task and a SeqIO mixture that go on if a source cannot be opened."""

from __future__ import annotations

import functools
import logging
from collections.abc import Mapping
from typing import Any

import seqio
import tensorflow as tf

from flan_jax import catalog
from flan_jax.data import sources
from flan_jax.data.seqio_source import MADE_OF, SPLITS
from flan_jax.errors import FlanError


class CatalogTask(seqio.Task):
    """A task of ours. If its source cannot be opened, it reads its offline cache.

    If there is no cache either, it has no splits, and the log says why. SeqIO's mixtures, its Evaluator and
    `seqio_cache_tasks` then go on without it. Code that asks for its records gets the error.
    """

    @functools.cached_property
    def is_open(self) -> bool:
        """Whether the source can be opened."""
        try:
            _ = self.source.source
        except sources.SourceError as error:
            how = "reads the cache of" if self.cache_dir else "goes on without"
            logging.warning("SeqIO %s task %s: %s", how, self.name, error)
            return False
        return True

    @property
    def is_there(self) -> bool:
        """Whether there are records, from the source or from a cache."""
        return self.is_open or self.cache_dir is not None

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits of train, validation (dev) and test that the source has, or else the cache."""
        if self.is_open:
            return self.source.splits
        return tuple(split for split in SPLITS if self._num_cached(split) is not None)

    @property
    def rate(self) -> int:
        """The mixing rate, see `CatalogSource.rate`. A cache only holds usable records."""
        return self.source.rate if self.is_open else catalog.mixing_rate(self._num_cached("train") or 0)

    def _num_cached(self, split: str) -> int | None:
        """The number of examples of a split in the cache; None if it does not have this split."""
        try:
            return int(self.get_cached_stats(split)["examples"]) if self.cache_dir else None
        except ValueError:
            return None

    def _get_cached_source(self, split: str, file_shuffle_buffer_size: int | None = None) -> seqio.FileDataSource:
        """SeqIO's cached source, after checking that the cache was made from the same data by the same code.

        Raises:
          FlanError: it was not.
        """
        found = super()._get_cached_source(split, file_shuffle_buffer_size)
        row = next(tf.data.TFRecordDataset(found.list_shards(split)).take(1).as_numpy_iterator(), None)
        if row is not None:
            made_of = tf.train.Example.FromString(row).features.feature[MADE_OF].bytes_list.value
            if not made_of or not self.source.is_made_of(made_of[0].decode()):
                raise FlanError(
                    f"SeqIO task {self.name}: the cache {self.cache_dir} is of other data or another version of "
                    "FLAN-JAX; make it again by seqio_cache_tasks with --overwrite, or remove the folder."
                )
        return found

    def get_dataset(
        self,
        sequence_length: Mapping[str, int] | None = None,
        split: str = "train",
        use_cached: bool = False,
        *rest: Any,
        **more: Any,
    ) -> tf.data.Dataset:
        """See SeqIO. What cannot be read directly is read from the cache, if there is one."""
        use_cached = use_cached or (not self.is_open and self.cache_dir is not None)
        return super().get_dataset(sequence_length, split, use_cached, *rest, **more)


class OpenMixture(seqio.Mixture):
    """A mixture of the members whose source or cache can be opened. The log names the others."""

    _built = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # A pass ends when every member is through, so that num_epochs=1 is each record once.
        sample = functools.partial(tf.data.Dataset.sample_from_datasets, stop_on_empty_dataset=False)
        super().__init__(*args, sample_fn=sample, **kwargs)
        self._built = True

    @functools.cached_property
    def _open_tasks(self) -> list[seqio.Task]:
        found = [task for task in super().tasks if task.is_there]
        if not found:
            raise FlanError(f"mixture {self.name}: none of its sources can be opened.")
        return found

    @property
    def tasks(self) -> list[seqio.Task]:
        """The members that can be opened. Building the mixture opens none."""
        return self._open_tasks if self._built else super().tasks

    @property
    def total_rate(self) -> float:
        """The sum of the rates of the members that can be opened."""
        return sum(map(self.get_rate, self.tasks))

    def get_task_dataset(
        self,
        task: seqio.Task,
        output_feature_keys: set[str],
        sequence_length: Mapping[str, int] | None = None,
        split: str = "train",
        use_cached: bool = False,
        shuffle: bool = True,
        seed: int | None = None,
        shard_info: seqio.ShardInfo | None = None,
        num_epochs: int | None = None,
        trim_output_features: bool = True,
        try_in_mem_cache: bool = True,
    ) -> tf.data.Dataset:
        """A member's examples with the wanted features.

        A task of SeqIO shuffles 1,000 finished examples, so a mixture of many tasks begins only after thousands of
        examples. Here the sources shuffle as many records before they are rendered, anew in each epoch, and the members
        share the 1,000 examples.
        """
        dataset = task.get_dataset(
            sequence_length=sequence_length,
            split=split,
            use_cached=use_cached,
            shuffle=shuffle,
            shuffle_buffer_size=max(2, seqio.SHUFFLE_BUFFER_SIZE // len(self.tasks)),
            seed=seed,
            shard_info=shard_info,
            num_epochs=num_epochs,
            trim_output_features=trim_output_features,
            try_in_mem_cache=try_in_mem_cache and not shuffle,  # what is kept in memory is never shuffled again
        )

        def wanted(example: Mapping[str, Any]) -> dict[str, Any]:
            return {name: value for name, value in example.items() if name in output_feature_keys}

        return dataset.map(tf.autograph.experimental.do_not_convert(wanted))
