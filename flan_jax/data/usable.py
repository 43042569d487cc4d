"""Decides which records can be used. All code from records to text goes through here, so that all drop the same ones.

`keep` silently drops records that a dataset does not want, such as a test set without labels. The other records must
give every template something to show, and a classification one right answer among its options. A record that does not
is left out and counted. Training takes one example of a record; evaluation takes all of them (`Dataset.expand`), and a
bad one does not affect the others.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from flan_jax import catalog, templates
from flan_jax.catalog import CLASSIFICATION, Dataset
from flan_jax.tasks import fields as shared_fields

PROBLEM = "problem"  # the key of a checked record's problem: its number, 0 for a usable record
NOT_KEPT, FAILED = -1, -2  # what `verdicts` says about records that have no problem's number

NO_LABEL = "it has no usable label"

_MIN_OPTIONS = 2
_AT_ONCE = 32  # rows that TensorFlow works on at a time
# Rewriting Python's `if` and `for` for TensorFlow takes half of the time to build a pipeline. None is needed.
_as_it_is = tf.autograph.experimental.do_not_convert


@functools.cache
def shown_fields(record: Dataset) -> tuple[str, ...]:
    """The fields that must not be blank: the answer, and what any template, the bare input or GPT-3's prompt shows."""
    patterns = [p for t in record.templates for p in (t.input, t.target, t.open_input)]
    patterns += [record.bare, record.gpt3_prompt.input, record.gpt3_prompt.premise]
    names = [name for pattern in patterns for name in templates.placeholders(pattern)]
    return tuple(dict.fromkeys(name for name in ("answer", *names) if name != templates.OPTIONS))


def problem_text(record: Dataset, number: int) -> str:
    """What is wrong with a record whose problem has this number."""
    if number == FAILED:
        return "its fields cannot be made"
    no_answer = NO_LABEL if record.kind == CLASSIFICATION else "its answer is empty"
    of_fields = [no_answer if name == "answer" else f"there is no text for {name!r}" for name in shown_fields(record)]
    of_answers = ("a reference is empty", "its answer is not one of its options", "two of its options are its answer")
    return ("an option is empty", "it has fewer than two options", *of_fields, *of_answers)[number - 1]


def problem(record: Dataset, fields: Mapping[str, Any]) -> Any:
    """The number of the problem with a record's fields, 0 for none; a scalar int32 tensor.

    Args:
      record: the dataset.
      fields: string tensors from its `fields`.
    """
    blank, none = shared_fields.is_blank, tf.constant(False)
    of_options, of_answers = [none, none], [none, none, none]  # in the order of `problem_text`
    if templates.OPTIONS in fields:
        options_N = fields[templates.OPTIONS]
        right = tf.math.count_nonzero(tf.equal(options_N, fields["answer"]))
        of_options = [tf.reduce_any(blank(options_N)), tf.size(options_N) < _MIN_OPTIONS]
        of_answers = [none, tf.equal(right, 0), right > 1]
    if "references" in fields:
        of_answers[0] = tf.reduce_any(blank(fields["references"]))
    of_fields = tf.unstack(blank(tf.stack([fields[name] for name in shown_fields(record)])))
    flags = tf.stack([*of_options, *of_fields, *of_answers])
    return tf.where(tf.reduce_any(flags), 1 + tf.argmax(tf.cast(flags, tf.int32), output_type=tf.int32), 0)


def checked(record: Dataset, rows: tf.data.Dataset, every: bool = False) -> tf.data.Dataset:
    """The kept records in reading order: `record_id`, `problem` and the fields.

    Args:
      record: the dataset.
      rows: records in the TFDS schema, with `tfds_id`.
      every: whether to give all examples that evaluation asks of a record, one after the other. Their ids tell them
        apart (`catalog.PART`). Otherwise only the one that training takes.
    """

    keep, fields = _traced(record)

    def to_fields(row: Mapping[str, Any]) -> dict[str, Any]:
        return {"record_id": row["tfds_id"], **fields(_without_id(row))}

    def to_examples(row: Mapping[str, Any]) -> dict[str, Any]:
        found = _traced_examples(record)(_without_id(row))
        parts = found.get(catalog.VARIANT)
        if parts is None:
            parts = tf.strings.as_string(1 + tf.range(tf.size(found[PROBLEM])))
        return {"record_id": tf.strings.join([row["tfds_id"], parts], separator=catalog.PART), **found}

    if keep is not None:
        rows = rows.filter(_as_it_is(lambda row: keep(_without_id(row))))
    if every and record.expand:
        return rows.map(_as_it_is(to_examples), num_parallel_calls=tf.data.AUTOTUNE).unbatch()
    return rows.map(_as_it_is(to_fields), num_parallel_calls=tf.data.AUTOTUNE)


def _without_id(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != "tfds_id"}


@functools.cache
def _traced(record: Dataset) -> tuple[Callable[[Any], Any] | None, Callable[[Any], dict[str, Any]]]:
    """(`keep`, `fields` with the problem), which TensorFlow traces once for all splits and paths."""

    def with_problem(row: Mapping[str, Any]) -> dict[str, Any]:
        fields = record.fields(row)
        return {PROBLEM: problem(record, fields), **fields}

    keep = record.keep and tf.function(record.keep, autograph=False)
    return keep, tf.function(with_problem, autograph=False)


@functools.cache
def _traced_examples(record: Dataset) -> Callable[[Any], dict[str, Any]]:
    """`expand` with the problem of each example, traced once."""

    def with_problems(row: Mapping[str, Any]) -> dict[str, Any]:
        examples = record.expand(row)
        problems = tf.map_fn(lambda fields: problem(record, fields), examples, fn_output_signature=tf.int32)
        return {PROBLEM: problems, **examples}

    return tf.function(with_problems, autograph=False)


def usable(record: Dataset, rows: tf.data.Dataset, every: bool = False, **constants: Any) -> tf.data.Dataset:
    """The kept records without a problem: `record_id`, the fields, and constants. See `checked`."""

    def without_problem(row: dict[str, Any]) -> dict[str, Any]:
        found = {name: value for name, value in row.items() if name != PROBLEM}
        return found | {name: tf.constant(value) for name, value in constants.items()}

    without_problems = checked(record, rows, every).filter(_as_it_is(lambda row: tf.equal(row[PROBLEM], 0)))
    return without_problems.map(_as_it_is(without_problem))


def verdict(record: Dataset, row: Mapping[str, Any]) -> Any:
    """The number of the problem with a record in the TFDS schema; 0 for none, or NOT_KEPT. A scalar int32 tensor."""
    keep, fields = _traced(record)
    kept = tf.constant(True) if keep is None else keep(row)
    return tf.cond(kept, lambda: fields(row)[PROBLEM], lambda: NOT_KEPT)


def verdicts(record: Dataset, features: tfds.features.FeaturesDict, examples: Sequence[bytes]) -> np.ndarray:
    """The verdicts on rows [N] that fit the schema: the number of their problem, 0, NOT_KEPT or FAILED; int32.

    Args:
      record: the dataset.
      features: its schema.
      examples: the rows as `features.serialize_example` writes them.
    """
    of_many = _traced_verdicts(record, features)
    try:
        return of_many(tf.constant(list(examples), tf.string)).numpy()
    except tf.errors.OpError:  # the dataset's `fields` fail on a record; find out on which
        return np.array([_verdict_of_one(of_many, example) for example in examples], np.int32)


@functools.cache
def _traced_verdicts(record: Dataset, features: tfds.features.FeaturesDict) -> Callable[[Any], Any]:
    """`verdict` of serialized examples [N], traced once."""

    def of_one(example: Any) -> Any:
        return verdict(record, features.deserialize_example(example))

    def of_many(examples_N: Any) -> Any:
        return tf.map_fn(of_one, examples_N, fn_output_signature=tf.int32, parallel_iterations=_AT_ONCE)

    return tf.function(of_many, input_signature=[tf.TensorSpec((None,), tf.string)], autograph=False)


def _verdict_of_one(of_many: Callable[[Any], Any], example: bytes) -> int:
    try:
        return int(of_many(tf.constant([example]))[0])
    except tf.errors.OpError:
        return FAILED


def code_digest(record: Dataset) -> str:
    """Identifies the code of a dataset's `fields` and `keep` and of this check.

    After an edit, the work is done again.
    """
    fields = catalog.dataset(catalog.whole(record.name)).fields if record.variant else record.fields
    files = [file for part in (fields, shared_fields) for file in _with_what_it_imports(Path(inspect.getfile(part)))]
    code = [file.read_bytes() for file in dict.fromkeys([*files, Path(__file__)])]
    return hashlib.sha256(b"\0".join(code)).hexdigest()[:16]


@functools.cache  # a process asks for all datasets, whose files are a dozen
def _with_what_it_imports(file: Path) -> tuple[Path, ...]:
    """A file of a dataset, and the files of other clusters whose functions it uses."""
    found = [
        Path(inspect.getfile(importlib.import_module(node.module)))
        for node in ast.parse(file.read_bytes()).body
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(f"{shared_fields.__package__}.")
    ]
    return file, *(other for one in found if one != file for other in _with_what_it_imports(one))
