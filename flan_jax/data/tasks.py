"""Catalog records as SeqIO tasks and mixtures.

    import seqio
    from flan_jax.data import tasks
    tasks.register()
    seqio.get_mixture_or_task("flan_without_nli").get_dataset(...)

`flan_<dataset>` shows every example through one template, chosen by hash; `flan_<dataset>_t<k>` through template k.
Names with a style at their end (`flan_rte_no_template`, `flan_without_nli_4_templates`; see `flan_jax.styles`) and the
mixtures of `catalog.mixture` that have a number of datasets are registered on request, by `register(names=...)`.
Importing this module registers nothing, and registering opens no source: that happens when a dataset is asked for.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import seqio
import tensorflow as tf

from flan_jax import catalog, metrics, protocol, styles, templates
from flan_jax.data import sources, usable, vocabularies
from flan_jax.data.builder import ExampleBuilder
from flan_jax.data.seqio_vocabulary import SeqioVocabulary
from flan_jax.errors import FlanError

_READ_BATCH = 512  # rows turned into Python text at once
_RENDERED_EXAMPLES = 30_000  # small datasets are rendered several times, up to about so many examples


def num_renderings(num_records: int, style: styles.TextStyle = styles.PAPER) -> int:
    """How many renderings a training set stores, so that its later epochs meet other templates."""
    return min(style.num_wordings, max(1, _RENDERED_EXAMPLES // max(num_records, 1)))


def choose_template(
    record: catalog.Dataset,
    record_id: Any,
    epoch: Any,
    seed: int,
    forward_only: bool = False,
    style: styles.TextStyle = styles.PAPER,
) -> Any:
    """Which template an example gets: a hash of (seed, dataset, record id, epoch), without state.

    Args:
      record: the dataset.
      record_id: scalar string tensor.
      epoch: integer tensor of any shape; the result has the same.
      seed: of the choice.
      forward_only: choose among the forward templates, as for evaluation.
      style: whose templates they are.
    """
    allowed = styles.forward_templates(record, style) if forward_only else styles.numbers(record, style)
    key = tf.strings.join([str(seed), record.name, record_id, tf.strings.as_string(epoch)], separator="\x1f")
    return tf.gather(tf.constant(allowed, tf.int64), tf.strings.to_hash_bucket_fast(key, len(allowed)))


def records(record: catalog.Dataset, source: sources.OpenSource, split: str) -> tf.data.Dataset:
    """The usable records of a split in reading order: `record_id`, and the fields."""
    return usable.usable(record, source.read(split))


def text_records(rows: tf.data.Dataset) -> Iterator[tuple[str, dict[str, Any]]]:
    """(record id, the rest as Python text) of each row of `records`, read in batches; integers stay integers."""
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
        return [_decoded(value) for value in values]
    return [[_decoded(value) for value in row] for row in values]


def _decoded(value: bytes) -> str:
    return value.decode("utf-8", "replace")  # a corpus may hold bytes that are no UTF-8


def exemplar_pool(record: catalog.Dataset, source: sources.OpenSource) -> list[tuple[str, dict[str, Any]]]:
    """(record id, fields as text) of the training records that exemplars are drawn from."""
    if "train" not in source.splits:
        return []
    return list(text_records(records(record, source, "train").take(protocol.EXEMPLAR_POOL)))


class CatalogSource(seqio.DataSource):
    """A dataset's records with `record_id` and `epoch`; opened when first read."""

    def __init__(self, record: catalog.Dataset, data: str | Path, style: styles.TextStyle = styles.PAPER) -> None:
        super().__init__(splits=("train", "validation", "test"))
        self._record, self._data, self._style = record, data, style

    @functools.cached_property
    def source(self) -> sources.OpenSource:
        """The open source.

        Raises:
          SourceError: it cannot be opened.
        """
        return sources.open_source(self._record, self._data)

    @property
    def supports_arbitrary_sharding(self) -> bool:
        """SeqIO shards the examples."""
        return False

    @property
    def splits(self) -> tuple[str, ...]:
        """Those of train, validation (dev) and test that the source has."""
        return tuple(self.source.splits)

    def list_shards(self, split: str) -> list[str]:
        """One shard."""
        return [f"{self._record.name}:{split}"]

    def num_input_examples(self, split: str) -> int:
        """Records of a split; the mixing rate counts these, not their renderings."""
        found = self.source.splits.get(split)
        return found.size if found else 0

    def get_dataset(
        self,
        split: str = "train",
        shuffle: bool = True,
        seed: int | None = None,
        shard_info: seqio.ShardInfo | None = None,
        **_: Any,
    ) -> tf.data.Dataset:
        """One pass over a split; over train, one pass a rendering, so that later epochs meet other templates."""
        if split not in self.source.splits:
            raise FlanError(f"dataset {self._record.name} has no {split} split in its source.")
        rows = usable.usable(self._record, self.source.read(split, shuffle, seed))
        count = num_renderings(self.num_input_examples(split), self._style) if split == "train" else 1

        def at(epoch: int) -> tf.data.Dataset:
            return rows.map(
                lambda row: {
                    **row,
                    "epoch": tf.constant(epoch, tf.int64),
                    "is_train": tf.constant(split == "train"),
                }
            )

        passes = functools.reduce(lambda a, b: a.concatenate(b), map(at, range(count)))
        if shard_info is not None and shard_info.num_shards > 1:
            passes = passes.shard(shard_info.num_shards, shard_info.index)
        return passes


def _render(
    dataset: tf.data.Dataset,
    record: catalog.Dataset,
    number: int | None,
    seed: int,
    style: styles.TextStyle,
    source: CatalogSource,
    tokenizer: vocabularies.Tokenizer,
) -> tf.data.Dataset:
    """Adds inputs, targets, template and dataset; keeps record id, options and references."""
    pool = exemplar_pool(record, source.source) if style.shots else ()
    builder = ExampleBuilder(record, style, pool=pool, tokenizer=tokenizer, seed=seed)

    def render(row: Mapping[str, Any]) -> dict[str, Any]:
        if number is not None:
            index = tf.constant(number, tf.int64)
        else:
            index = tf.where(
                row["is_train"],
                choose_template(record, row["record_id"], row["epoch"], seed, style=style),
                choose_template(record, row["record_id"], row["epoch"], seed, forward_only=True, style=style),
            )
        fields = {k: v for k, v in row.items() if k not in ("record_id", "epoch", "is_train")}
        if style.restyles_options and templates.OPTIONS in fields:
            fields |= _restyled_options(builder, row)
        inputs, targets = templates.render_tensors(builder.templates, fields, index)
        if style.shots:
            prefix = tf.numpy_function(_prefix(builder), [row["record_id"], index, inputs], tf.string)
            inputs = tf.strings.join([tf.ensure_shape(prefix, []), inputs])
        names = ("answer", "options", "references", *metrics.needs(record.metrics))
        kept = {name: fields[name] for name in names if name in fields}
        return {
            "inputs": inputs,
            "targets": targets,
            "template": index,
            "dataset": tf.constant(record.name),
            "record_id": row["record_id"],
            **kept,
        }

    if style.lettered_options and record.kind == catalog.CLASSIFICATION:
        dataset = dataset.filter(lambda row: tf.size(row[templates.OPTIONS]) <= len(styles.LETTERS))
    return dataset.map(render, num_parallel_calls=tf.data.AUTOTUNE)


def _restyled_options(builder: ExampleBuilder, row: Mapping[str, Any]) -> dict[str, Any]:
    """Options and answer of a row in the builder's style."""

    texts = ["answer", *((templates.LETTERED, templates.LETTER) if builder.style.lettered_options else ())]

    def restyled(record_id: bytes, options: Any, answer: bytes) -> list[Any]:
        shown = {"options": [_decoded(option) for option in options], "answer": _decoded(answer)}
        fields = builder.fields(record_id.decode("utf-8"), shown)
        options = np.array([o.encode("utf-8") for o in fields["options"]], object)
        return [options, *(fields[name].encode("utf-8") for name in texts)]

    arguments = [row["record_id"], row["options"], row["answer"]]
    options, *found = tf.numpy_function(restyled, arguments, [tf.string] * (1 + len(texts)))
    return {"options": tf.ensure_shape(options, [None])} | {
        name: tf.ensure_shape(value, []) for name, value in zip(texts, found, strict=True)
    }


def _prefix(builder: ExampleBuilder) -> Callable[[bytes, int, bytes], bytes]:
    """The exemplars in front of a rendered input, as bytes."""

    def prefix(record_id: bytes, template: int, inputs: bytes) -> bytes:
        return builder.prefix(record_id.decode("utf-8"), int(template), _decoded(inputs))[0].encode("utf-8")

    return prefix


def _references(
    output: str,
    is_target: bool = False,
    example: Mapping[str, Any] | None = None,
    needs: Sequence[str] = (),
    **_: Any,
) -> Any:
    """An example's references, with the fields that metrics need, as SeqIO's post-processor gives them to a metric."""
    if not is_target or example is None:
        return output
    listed = example.get("references")
    found = output if listed is None or not len(listed) else [_text(r) for r in listed]
    return {"references": found, **{name: _text(example[name]) for name in needs}} if needs else found


def _text(value: Any) -> str:
    return _decoded(value) if isinstance(value, bytes) else str(value)


class OpenMixture(seqio.Mixture):
    """A mixture of the members whose source can be opened; the others are named in the log."""

    _built = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._built = True

    @functools.cached_property
    def _open_tasks(self) -> list[seqio.Task]:
        found = []
        for task in super().tasks:
            try:
                _ = task.source.source
                found.append(task)
            except FlanError as error:
                logging.warning("mixture %s goes on without %s: %s", self.name, task.name, error)
        if not found:
            raise FlanError(f"mixture {self.name}: none of its sources can be opened.")
        return found

    @property
    def tasks(self) -> list[seqio.Task]:
        """The members that are there; building the mixture opens none."""
        return self._open_tasks if self._built else super().tasks

    @property
    def total_rate(self) -> float:
        """Sum of the rates of the members that are there."""
        return sum(map(self.get_rate, self.tasks))


def _rate(task: seqio.Task) -> float:
    return float(catalog.mixing_rate(task.source.num_input_examples("train")))


def register(
    vocabulary: vocabularies.Tokenizer | None = None,
    data: str | Path = sources.SAMPLES,
    seed: int = 0,
    names: Sequence[str] = (),
) -> None:
    """Registers every dataset, template and mixture with SeqIO, replacing what an earlier call registered.

    Args:
      vocabulary: of inputs and targets; None takes bytes.
      data: "samples", "tfds" or a folder, as `sources.open_source` takes it.
      seed: of the choice of templates, of exemplars and of shuffled options.
      names: further mixtures or tasks, in a style or of so many datasets a cluster: "flan_without_nli_no_template",
        "flan_rte_5_shots", "flan_first_7_clusters_2_datasets".

    Raises:
      FlanError: an unknown name, with near matches.
    """
    tokenizer = vocabulary or vocabularies.ByteTokenizer()
    features = {name: seqio.Feature(SeqioVocabulary(tokenizer), add_eos=True) for name in ("inputs", "targets")}

    def add_task(
        record: catalog.Dataset,
        source: CatalogSource,
        style: styles.TextStyle = styles.PAPER,
        number: int | None = None,
    ) -> str:
        name = f"flan_{record.name}{style.suffix}" + ("" if number is None else f"_t{number}")
        seqio.TaskRegistry.remove(name)
        seqio.TaskRegistry.add(
            name,
            source=source,
            preprocessors=[
                functools.partial(
                    _render,
                    record=record,
                    number=number,
                    seed=seed,
                    style=style,
                    source=source,
                    tokenizer=tokenizer,
                ),
                seqio.preprocessors.tokenize,
                seqio.preprocessors.append_eos_after_trim,
            ],
            output_features=features,
            postprocess_fn=functools.partial(_references, needs=metrics.needs(record.metrics)),
            metric_fns=[metrics.metric(m) for m in record.metrics],
        )
        return name

    def add_mixture(name: str, tasks: Sequence[str]) -> None:
        seqio.MixtureRegistry.remove(name)
        if tasks:
            seqio.MixtureRegistry.add_provider(name, OpenMixture(name, [(task, _rate) for task in tasks]))

    for record in catalog.datasets():
        source = CatalogSource(record, data)
        add_task(record, source)
        for number in range(len(record.templates)):
            add_task(record, source, number=number)
    for name in catalog.mixture_names():
        add_mixture(name, [f"flan_{record.name}" for record in catalog.mixture(name)])
    for name in names:
        base, style = styles.split_name(name)
        members = catalog.mixture(base)
        tasks = [add_task(record, CatalogSource(record, data, style), style) for record in members]
        if base.removeprefix("flan_") != members[0].name:
            add_mixture(name, tasks)
