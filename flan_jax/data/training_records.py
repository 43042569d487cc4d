"""The usable training records of a dataset, and the templates of their renderings in a style."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import tensorflow as tf

from flan_jax import catalog, protocol, styles, values
from flan_jax.data import sources, tasks, usable
from flan_jax.splits import SplitSlice

NAMED = 20  # how many unusable records are named
_TEMPLATES = "templates/"  # keys of a read record besides its fields: the templates of each style


@dataclasses.dataclass
class Counts:
    """What happened to training examples that were too long, and to records that cannot be used.

    Attributes:
      trimmed: inputs whose text fields were cut.
      cut_targets: targets that lost their end.
      overlong: examples that were left out, because instruction, options and exemplars alone were too long, or there
        were more options than letters.
      unanswerable: examples that were left out, because their records speak of options that the style does not show.
      prompts: examples of a style with exemplars.
      exemplars: how many they have together.
      bare: those of them without exemplars, since none fits or there is no other record.
      unusable: records that were left out, see `flan_jax.data.usable`.
      named: the first of these, with reasons.
    """

    trimmed: int = 0
    cut_targets: int = 0
    overlong: int = 0
    unanswerable: int = 0
    prompts: int = 0
    exemplars: int = 0
    bare: int = 0
    unusable: int = 0
    named: list[str] = dataclasses.field(default_factory=list)

    def leave_out(self, record: catalog.Dataset, identity: str, problem: int) -> None:
        """Counts a record that cannot be used."""
        self.unusable += 1
        if len(self.named) < NAMED:
            self.named.append(f"{record.name} record {identity}: {usable.problem_text(record, problem)}")

    def add(self, other: Counts) -> None:
        """Adds the counts of another part."""
        self.trimmed += other.trimmed
        self.cut_targets += other.cut_targets
        self.overlong += other.overlong
        self.unanswerable += other.unanswerable
        self.prompts += other.prompts
        self.exemplars += other.exemplars
        self.bare += other.bare
        self.unusable += other.unusable
        self.named = (self.named + other.named)[:NAMED]


@dataclasses.dataclass(frozen=True)
class Options:
    """How examples are rendered and tokenized.

    Attributes:
      seed: the seed of templates, exemplars and shuffled options.
      max_input_length: most tokens of an input (paper: 1,024); text fields of longer ones are cut.
      max_target_length: most tokens of a target with its EOS (paper: 256); longer ones lose their end.
      style: how records become text.
    """

    seed: int = 0
    max_input_length: int = protocol.MAX_INPUT_TOKENS
    max_target_length: int = protocol.MAX_TARGET_TOKENS
    style: styles.TextStyle = styles.PAPER

    def __post_init__(self) -> None:
        values.checked("seed", values.Whole(0, values.SEEDS), self.seed)
        values.checked("max_input_length", values.TOKENS, self.max_input_length)
        values.checked("max_target_length", values.TOKENS, self.max_target_length)

    def protocol_of(self, record: catalog.Dataset) -> protocol.Protocol:
        """The protocol of a dataset with these limits."""
        return protocol.of(record, self.style).limited(self.max_input_length, self.max_target_length)


@dataclasses.dataclass(frozen=True)
class TrainingRecord:
    """A training record: its number in reading order, its id, its fields, and the template of each rendering."""

    number: int
    identity: str
    fields: Mapping[str, Any]
    chosen: Sequence[int]


def training_records(
    record: catalog.Dataset,
    source: sources.OpenSource,
    options: Options,
    part: slice = slice(None),
    counts: Counts | None = None,
) -> Iterator[TrainingRecord]:
    """The usable training records of a dataset, with the templates of their renderings.

    Args:
      record: the dataset.
      source: its open source.
      options: seed and style.
      part: a part of the training split, before `keep` drops records. The numbers of its records begin at 0.
      counts: counts the unusable records.
    """
    for (row,) in styled_records(record, source, [options], part, counts):
        yield row


def styled_records(
    record: catalog.Dataset,
    source: sources.OpenSource,
    options: Sequence[Options],
    part: slice = slice(None),
    counts: Counts | None = None,
) -> Iterator[tuple[TrainingRecord, ...]]:
    """The same for several styles, in one pass over the source. Each record comes once for each of `options`."""
    whole = source.splits["train"]
    start, stop, _ = part.indices(whole.size)
    read = SplitSlice(whole.split, whole.start + start, whole.start + stop)

    def with_templates(row: Mapping[str, Any]) -> dict[str, Any]:
        found = {**row}
        for number, one in enumerate(options):
            epochs = tf.range(tasks.num_renderings(whole.size, one.style), dtype=tf.int64)
            chosen = tasks.choose_template(record, row["record_id"], epochs, one.seed, style=one.style)
            found[f"{_TEMPLATES}{number}"] = chosen
        return found

    rows = usable.checked(record, dataclasses.replace(source, splits={"train": read}).read("train"))
    rows = rows.map(with_templates, num_parallel_calls=tf.data.AUTOTUNE)
    found = without_problems(record, rows, Counts() if counts is None else counts)
    for number, (identity, fields) in enumerate(found):
        chosen = [fields.pop(f"{_TEMPLATES}{one}") for one in range(len(options))]
        yield tuple(TrainingRecord(number, identity, fields, one) for one in chosen)


def without_problems(
    record: catalog.Dataset, rows: tf.data.Dataset, counts: Counts
) -> Iterator[tuple[str, dict[str, Any]]]:
    """(record id, fields as text) of the usable ones among checked rows; the others are counted."""
    for identity, fields in tasks.text_records(rows):
        if problem := fields.pop(usable.PROBLEM):
            counts.leave_out(record, identity, problem)
        else:
            yield identity, fields
