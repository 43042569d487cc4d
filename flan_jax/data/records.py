"""Records as text, and the choice of their templates. Preparing, evaluating, exporting and SeqIO share this."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import tensorflow as tf

from flan_jax import catalog, protocol, styles
from flan_jax.data import sources, usable

_READ_BATCH = 512  # rows that are turned into Python text together
_RENDERED_EXAMPLES = 30_000  # small datasets are rendered several times, up to about so many examples


def num_renderings(num_records: int, style: styles.TextStyle = styles.PAPER) -> int:
    """How many renderings of a training set are stored, so that later epochs show other templates."""
    return min(style.num_wordings, max(1, _RENDERED_EXAMPLES // max(num_records, 1)))


def choose_template(
    record: catalog.Dataset,
    record_id: Any,
    epoch: Any,
    seed: int,
    forward_only: bool = False,
    style: styles.TextStyle = styles.PAPER,
) -> Any:
    """The number of an example's template: a hash of (seed, dataset, record id, epoch), without state.

    Args:
      record: the dataset.
      record_id: scalar string tensor.
      epoch: integer tensor of any shape; the result has the same shape.
      seed: the seed of the choice.
      forward_only: whether to choose among forward templates only, as in evaluation.
      style: the style of the templates.
    """
    allowed = styles.forward_templates(record, style) if forward_only else styles.numbers(record, style)
    key = tf.strings.join([str(seed), record.name, record_id, tf.strings.as_string(epoch)], separator="\x1f")
    return tf.gather(tf.constant(allowed, tf.int64), tf.strings.to_hash_bucket_fast(key, len(allowed)))


def records(record: catalog.Dataset, source: sources.OpenSource, split: str) -> tf.data.Dataset:
    """The usable records of a split in reading order: `record_id` and the fields.

    For dev and test, all their examples.
    """
    return usable.usable(record, source.read(split), every=split != "train")


def text_records(rows: tf.data.Dataset) -> Iterator[tuple[str, dict[str, Any]]]:
    """(record id, other values as Python text) of each row of `records`, read in batches. Integers stay integers."""
    for batch in rows.ragged_batch(_READ_BATCH):
        columns = {name: _as_text(column) for name, column in batch.items()}
        identities = columns.pop("record_id")
        for identity, *values in zip(identities, *columns.values(), strict=True):
            yield identity, dict(zip(columns, values, strict=True))


def _as_text(column: Any) -> list[Any]:
    values = column.to_list() if isinstance(column, tf.RaggedTensor) else column.numpy().tolist()
    if column.dtype != tf.string:
        return values
    if column.shape.rank == 1:
        return [decoded(value) for value in values]
    return [[decoded(value) for value in row] for row in values]


def decoded(value: bytes) -> str:
    """Bytes as text."""
    return value.decode("utf-8", "replace")  # a corpus may hold bytes that are not UTF-8


def exemplar_pool(
    record: catalog.Dataset, source: sources.OpenSource, split: str = "train"
) -> list[tuple[str, dict[str, Any]]]:
    """(record id, fields as text) of the training records that exemplars are drawn from.

    Args:
      record: the dataset, or one of its variants, which only has exemplars of its own.
      source: its open source.
      split: the split of the examples that the exemplars stand before. For dev and test, every variant has as many as a
        dataset without variants. For train, each record has the variant that it is trained in.
    """
    if "train" not in source.splits:
        return []
    whole = catalog.dataset(catalog.whole(record.name))
    every = bool(whole.variants) and (split != "train" or bool(record.variant))
    rows = usable.usable(whole, source.read("train"), every)
    pool = text_records(rows.take(protocol.EXEMPLAR_POOL * (len(whole.variants) if every else 1)))
    return [(identity, f) for identity, f in pool if not record.variant or f[catalog.VARIANT] == record.variant]
