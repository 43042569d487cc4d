"""From records to examples in SeqIO: a preprocessor that renders, trims and tokenizes in one pass.

It comes after the offline cache and after SeqIO's repeat. So each epoch shows other templates, and any vocabulary and
length can be asked for.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
import seqio
import tensorflow as tf
from tensorflow.python.data.ops import repeat_op

from flan_jax import catalog, metrics, protocol, styles, templates, values
from flan_jax.data import records, seqio_vocabulary, trimming
from flan_jax.data.builder import ExampleBuilder
from flan_jax.data.seqio_source import IS_TRAIN, MADE_OF, CatalogSource
from flan_jax.errors import FlanError

EPOCH = "epoch"

# Rewriting Python's control flow for TensorFlow would take half of the time to build a mixture.
_as_it_is = tf.autograph.experimental.do_not_convert

_NO_FIELD = ("record_id", IS_TRAIN, MADE_OF, EPOCH)
_SCORED = "scored_options"  # what a model scores: the options or their letters


def with_epochs(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """The same rows with the number of their pass, from 0, as `epoch`.

    SeqIO repeats a task's rows before steps that may differ from pass to pass, and does not tell them the pass. Here we
    look up what it repeats; rows that are not repeated belong to pass 0. Counting rows would not do, because shards and
    filters change the size of a pass.
    """
    if not isinstance(dataset, repeat_op._RepeatDataset):
        return dataset.map(_as_it_is(lambda row: {**row, EPOCH: tf.constant(0, tf.int64)}))
    rows = dataset._input_dataset.enumerate().repeat(dataset._count)

    def numbered(epoch: Any, indexed: Any) -> Any:
        index, row = indexed
        epoch += tf.cast(tf.equal(index, 0), tf.int64)
        return epoch, {**row, EPOCH: epoch}

    return rows.scan(tf.constant(-1, tf.int64), _as_it_is(numbered))


def to_examples(
    dataset: tf.data.Dataset,
    output_features: Mapping[str, seqio.Feature],
    sequence_length: Mapping[str, int] | None = None,
    *,
    record: catalog.Dataset,
    source: CatalogSource,
    style: styles.TextStyle = styles.PAPER,
    number: int | None = None,
    seed: int = 0,
    ranked: bool = False,
) -> tf.data.Dataset:
    """Turns records into tokenized examples that fit.

    Text fields of long inputs are cut, and long targets lose their end.

    An input whose instruction, options and exemplars alone are too long is left out, and logged. A record that the
    style cannot show (`styles.NotShownError`) is left out too.

    Args:
      dataset: rows of `CatalogSource`, repeated or not.
      output_features: the task's features.
      sequence_length: most tokens of a feature with its EOS; without it, nothing is cut.
      record: the dataset.
      source: where its exemplars come from.
      style: how records become text.
      number: the number of the template; None chooses one for each example.
      seed: the seed of templates, exemplars and shuffled options.
      ranked: whether each option becomes an example that a model scores. Only forward templates are used then.

    Raises:
      FlanError: the lengths are too short for any example.
    """
    lengths = sequence_length or {}
    renderer = _Renderer(record, source, style, number, seed, ranked, output_features, lengths)
    rows = with_epochs(dataset)
    if style.lettered_options and record.kind == catalog.CLASSIFICATION:
        rows = rows.filter(_as_it_is(lambda row: tf.size(row[templates.OPTIONS]) <= len(styles.LETTERS)))
    for name, whole in styles.unanswerable(record, style):
        speaks = functools.partial(_speaks_of_options, name, whole)
        rows = rows.filter(_as_it_is(lambda row, speaks=speaks: tf.logical_not(speaks(row))))
    examples = rows.map(_as_it_is(renderer.example), num_parallel_calls=tf.data.AUTOTUNE)
    if lengths.get("inputs") is not None:
        examples = examples.filter(_as_it_is(lambda example: example["cut_tokens"] >= 0))
    if ranked:
        examples = examples.enumerate().flat_map(_as_it_is(_options)).map(_as_it_is(renderer.with_targets))
    return examples


class _Renderer:
    """Turns a row into an example.

    All in TensorFlow, except exemplars, restyled options and inputs that are too long.
    """

    def __init__(
        self,
        record: catalog.Dataset,
        source: CatalogSource,
        style: styles.TextStyle,
        number: int | None,
        seed: int,
        ranked: bool,
        output_features: Mapping[str, seqio.Feature],
        sequence_length: Mapping[str, int],
    ) -> None:
        self._record, self._style, self._number, self._seed, self._ranked = record, style, number, seed, ranked
        self._source = source
        self._features, self._lengths = output_features, self._checked(sequence_length, output_features)
        self._tokenizer = seqio_vocabulary.of(output_features["inputs"].vocabulary)[1]
        most = self._lengths.get("inputs")
        self._protocol = protocol.of(record, style).limited(max_input_tokens=most)
        self._room = None if most is None else most - output_features["inputs"].add_eos
        self._left_out = 0
        self._builder = self._builder_of("train")
        # If a dataset has variants, exemplars in evaluation differ from those in training.
        self._evaluation = self._builder_of("test") if style.shots and record.variants else self._builder
        self._check_room()

    def _builder_of(self, split: str) -> ExampleBuilder:
        """The builder of a split's examples."""
        pool = records.exemplar_pool(self._record, self._source.source, split) if self._style.shots else ()
        return ExampleBuilder(
            self._record, self._style, asked=self._protocol, pool=pool, tokenizer=self._tokenizer, seed=self._seed
        )

    def _checked(self, lengths: Mapping[str, Any], features: Mapping[str, seqio.Feature]) -> dict[str, int]:
        """The given lengths. Refuses wrong ones, also those that SeqIO itself could not use."""
        given = {name: length for name, length in lengths.items() if name in features and length is not None}
        for name, length in given.items():
            where = f"dataset {self._record.name}: length of {name}"
            whole = values.checked(where, values.Whole(2), length)
            if not isinstance(length, int):
                raise FlanError(f"{where} is {length!r}, and SeqIO takes only Python's int; give {whole}.")
        return given

    def _check_room(self) -> None:
        """Refuses a length at which every example would be left out, because SeqIO would look for one forever."""
        if self._room is None:
            return
        words = self._record.label_words
        shown = self._protocol.numbers if self._number is None else (self._number,)
        patterns = [self._builder.templates[number].input for number in shown]
        nothing = {name: "" for pattern in patterns for name in templates.placeholders(pattern)}
        texts = [templates.fill(pattern, nothing | {templates.OPTIONS: words}) for pattern in patterns]
        least = min(map(len, self._tokenizer.encode(texts)))
        if least > self._room:
            raise FlanError(
                f"dataset {self._record.name}: its shortest instruction takes {least} tokens, and inputs of "
                f"{self._lengths['inputs']} were asked for; raise TASK_FEATURE_LENGTHS or leave the dataset out."
            )

    def example(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """The example of a row; a ranked one has no target yet."""
        index = self._index(row)
        fields = {name: value for name, value in row.items() if name not in _NO_FIELD}
        kept = self._kept(fields)
        if self._style.restyles_options and templates.OPTIONS in fields:
            fields |= self._restyled_options(row["record_id"], fields)
        if self._style.lettered_options and templates.OPTIONS in fields:
            # In GPT-3's manner, the dataset's own words are there already.
            kept = {"words": fields[templates.OPTIONS], **kept}
            kept |= {"options": fields[_SCORED], "answer": fields[templates.LETTER]}
        else:
            kept |= {name: fields[name] for name in ("options", "answer") if name in fields}
        inputs, targets = templates.render_tensors(self._builder.templates, fields, index)
        if self._style.shots:
            variant, passage = (row.get(name, tf.constant("")) for name in (catalog.VARIANT, self._record.passage))
            arguments = [row["record_id"], index, inputs, variant, _lines(passage), row[IS_TRAIN]]
            prefix = tf.numpy_function(self._prefix, arguments, tf.string)
            inputs = tf.strings.join([tf.ensure_shape(prefix, []), inputs])
        else:
            prefix = tf.constant("")
        example = {
            "template": index,
            "dataset": tf.constant(self._record.name),
            "record_id": row["record_id"],
            "is_forward": tf.gather([t.is_forward for t in self._builder.templates], index),
            **kept,
        }
        text, ids, cut = self._fitted(inputs, fields, prefix, index)
        example |= {"inputs": ids, "inputs_pretokenized": text, "cut_tokens": cut}
        return example if self._ranked else self.with_targets({**example, "targets_pretokenized": targets})

    def with_targets(self, example: dict[str, Any]) -> dict[str, Any]:
        """The example with the tokens of its target; a long target loses its end."""
        feature, length = self._features["targets"], self._lengths.get("targets")
        ids = feature.vocabulary.encode_tf(example["targets_pretokenized"])
        ids = ids if length is None else ids[: length - feature.add_eos]
        return {**example, "targets": _ended(ids, feature)}

    def _index(self, row: Mapping[str, Any]) -> Any:
        """The number of the row's template."""
        if self._number is not None:
            return tf.constant(self._number, tf.int64)

        def chosen(forward_only: bool) -> Any:
            return records.choose_template(
                self._record, row["record_id"], row[EPOCH], self._seed, forward_only=forward_only, style=self._style
            )

        return chosen(True) if self._ranked else tf.where(row[IS_TRAIN], chosen(False), chosen(True))

    def _kept(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """The values that metrics need besides options and answer."""
        needed = {name for metric in self._record.metrics for name in metrics.metric(metric).needs}
        kept = {name: fields[name] for name in ("references", catalog.VARIANT, *sorted(needed)) if name in fields}
        if self._style.words == styles.GPT3 and templates.OPTIONS in fields:
            kept["words"] = fields[templates.OPTIONS]  # the dataset's own words, in the order of the options
        return kept

    def _restyled_options(self, record_id: Any, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Options and answer in the style."""

        def restyled(record_id: bytes, options: Any, answer: bytes) -> list[Any]:
            shown = {"options": [records.decoded(option) for option in options], "answer": records.decoded(answer)}
            found = self._builder.fields(records.decoded(record_id), shown)
            lists = found["options"], self._protocol.scored(found)
            return [
                *(np.array([o.encode() for o in some], object) for some in lists),
                *(found[n].encode() for n in names),
            ]

        names = ["answer", *((templates.LETTERED, templates.LETTER) if self._style.lettered_options else ())]
        arguments = [record_id, fields["options"], fields["answer"]]
        options, scored, *texts = tf.numpy_function(restyled, arguments, [tf.string] * (2 + len(names)))
        lists = {"options": tf.ensure_shape(options, [None]), _SCORED: tf.ensure_shape(scored, [None])}
        return lists | {name: tf.ensure_shape(text, []) for name, text in zip(names, texts, strict=True)}

    def _prefix(
        self, record_id: bytes, template: int, inputs: bytes, variant: bytes, passage: bytes, is_train: bool
    ) -> bytes:
        """The exemplars in front of a rendered input."""
        builder = self._builder if is_train else self._evaluation
        fields = {catalog.VARIANT: records.decoded(variant), self._record.passage: records.decoded(passage)}
        return builder.prefix(records.decoded(record_id), int(template), records.decoded(inputs), fields)[0].encode()

    def _fitted(self, inputs: Any, fields: Mapping[str, Any], prefix: Any, index: Any) -> tuple[Any, Any, Any]:
        """(text, ids with EOS, number of cut tokens) of an input; -1 cut tokens if it cannot be made to fit."""
        feature = self._features["inputs"]
        ids = feature.vocabulary.encode_tf(inputs)
        if self._room is None:
            return inputs, _ended(ids, feature), tf.constant(0)
        names = sorted(name for name in fields if fields[name].shape.rank == 0 or name == templates.OPTIONS)

        def trimmed() -> tuple[Any, Any, Any]:
            arguments = [index, prefix, *(fields[name] for name in names)]
            text, cut = tf.numpy_function(functools.partial(self._trimmed, names), arguments, [tf.string, tf.int32])
            text = tf.ensure_shape(text, [])
            return text, feature.vocabulary.encode_tf(text), tf.ensure_shape(cut, [])

        text, ids, cut = tf.cond(tf.size(ids) > self._room, trimmed, lambda: (inputs, ids, tf.constant(0)))
        return text, _ended(ids, feature), cut

    def _trimmed(self, names: list[str], index: int, prefix: bytes, *values: Any) -> tuple[bytes, np.int32]:
        """The text of an input whose fields are cut until it fits, and the number of cut tokens."""
        fields = {
            name: records.decoded(value) if isinstance(value, bytes) else [records.decoded(v) for v in value]
            for name, value in zip(names, values, strict=True)
        }
        template = self._builder.templates[int(index)]
        try:
            fitted = trimming.fit(
                template, fields, records.decoded(prefix), self._tokenizer, self._room, self._protocol.trim
            )
        except trimming.TooLongError as error:
            self._left_out += 1
            if str(self._left_out).strip("0") == "1":  # the first, the tenth, the hundredth
                logging.warning("dataset %s: example %d left out: %s", self._record.name, self._left_out, error)
            return b"", np.int32(-1)
        return fitted.inputs.encode(), np.int32(fitted.cut_tokens)


def _lines(text: Any) -> Any:
    """A text, or several as one, a line each; a scalar string tensor."""
    return tf.strings.reduce_join(text, separator="\n") if text.shape.rank else text


def _speaks_of_options(name: str, whole: str, row: Mapping[str, Any]) -> Any:
    return tf.strings.regex_full_match(row[name], whole)


def _ended(ids: Any, feature: seqio.Feature) -> Any:
    return tf.concat([ids, [feature.vocabulary.eos_id]], 0) if feature.add_eos else ids


def _options(number: Any, example: Mapping[str, Any]) -> tf.data.Dataset:
    """An example for each option, with its answer as target. `idx` has the numbers of example and option, as in T5."""
    options = example[templates.OPTIONS]

    def of_option(index: Any, option: Any) -> dict[str, Any]:
        return {
            **example,
            "targets_pretokenized": option,
            "idx": tf.stack([number, index]),
            "is_correct": tf.equal(option, example["answer"]),
        }

    return tf.data.Dataset.from_tensor_slices(options).enumerate().map(of_option)
