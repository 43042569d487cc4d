"""Record -> text -> tokens: one dataset prepared for training, its dev and test examples for evaluation.

    PREPARED_DIR/tokens/<vocabulary>[_<style>]/<dataset>/   see `flan_jax.data.token_store`
    PREPARED_DIR/examples/<dataset>/{dev,test,exemplars}.jsonl

What is there and current stays. A dataset is locked while it is prepared, so two processes never write the same one.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import inspect
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import filelock
import tensorflow as tf

from flan_jax import catalog, styles, templates, values
from flan_jax.data import few_shot, sources, tasks, token_store, vocabularies
from flan_jax.data.builder import Example, ExampleBuilder
from flan_jax.files import make_folder, whole_folder, written
from flan_jax.tasks import fields as shared_fields

BATCH = 512  # examples tokenized at once


@dataclasses.dataclass
class Counts:
    """What happened to training examples that were too long.

    Attributes:
      trimmed: inputs that lost the end of their longest text field.
      overlong: examples that were left out.
    """

    trimmed: int = 0
    overlong: int = 0


@dataclasses.dataclass(frozen=True)
class Options:
    """How examples are rendered and tokenized.

    Attributes:
      seed: of the choice of templates, exemplars and shuffled options.
      max_input_length: tokens of an input (paper: 1,024); longer ones lose the end of their longest text field.
      max_target_length: tokens of a target with its EOS (paper: 256); longer ones are left out.
      style: how records become text.
    """

    seed: int = 0
    max_input_length: int = 1024
    max_target_length: int = 256
    style: styles.TextStyle = styles.PAPER

    def __post_init__(self) -> None:
        values.checked("seed", values.Whole(0, values.SEEDS), self.seed)
        values.checked("max_input_length", values.TOKENS, self.max_input_length)
        values.checked("max_target_length", values.TOKENS, self.max_target_length)


@dataclasses.dataclass(frozen=True)
class TrainingRecord:
    """A kept training record: its number in reading order, its id, its fields, and the template of each rendering."""

    number: int
    identity: str
    fields: Mapping[str, Any]
    chosen: Sequence[int]


def training_records(
    record: catalog.Dataset, source: sources.OpenSource, options: Options, part: slice = slice(None)
) -> Iterator[TrainingRecord]:
    """The kept training records of a dataset, with the templates that their renderings take.

    Args:
      record: the dataset.
      source: its open source.
      options: seed and style.
      part: of the training split, before `keep` drops any; the numbers of its records begin at 0.
    """
    whole = source.splits["train"]
    renderings = tasks.num_renderings(whole.size, options.style)
    epochs = tf.range(renderings, dtype=tf.int64)
    start, stop, _ = part.indices(whole.size)
    read = catalog.SplitSlice(whole.split, whole.start + start, whole.start + stop)

    def with_templates(row: Mapping[str, Any]) -> dict[str, Any]:
        chosen = tasks.choose_template(record, row["record_id"], epochs, options.seed, style=options.style)
        return {**row, "templates": chosen}

    rows = tasks.records(record, dataclasses.replace(source, splits={"train": read}), "train")
    rows = rows.map(with_templates, num_parallel_calls=tf.data.AUTOTUNE)
    for number, (identity, fields) in enumerate(tasks.text_records(rows)):
        yield TrainingRecord(number, identity, fields, fields.pop("templates"))


def tokenized_examples(
    builder: ExampleBuilder,
    rows: Sequence[tuple[TrainingRecord, int]],
    tokenizer: vocabularies.Tokenizer,
    options: Options,
    counts: Counts,
) -> Iterator[token_store.TokenizedExample]:
    """Renders and tokenizes training examples; those that do not fit are trimmed, or left out and counted.

    Args:
      builder: of the dataset's text.
      rows: records, and which of their renderings.
      tokenizer: the vocabulary.
      options: limits.
      counts: is added to.
    """
    room = options.max_input_length - 1 - (tokenizer.bos_id is not None)
    for start in range(0, len(rows), BATCH):
        part = rows[start : start + BATCH]
        examples = [builder.build(row.identity, row.fields, row.chosen[epoch]) for row, epoch in part]
        inputs = tokenizer.encode([example.inputs for example in examples])
        targets = tokenizer.encode([example.targets for example in examples])
        for (row, _), example, ids, target in zip(part, examples, inputs, targets, strict=True):
            fits = len(target) < options.max_target_length
            if fits and len(ids) > room:
                ids = _trimmed(builder.templates[example.template], example, tokenizer, room)
                fits = ids is not None
                counts.trimmed += fits
            if not fits:
                counts.overlong += 1
                continue
            yield token_store.TokenizedExample(ids, target, example.template, row.number)


def _trimmed(
    template: templates.Template, example: Example, tokenizer: vocabularies.Tokenizer, room: int
) -> list[int] | None:
    """The input with the end of its longest text field cut off until it fits; None where that cannot be."""
    names = [n for n in templates.placeholders(template.input) if n != templates.OPTIONS]
    left = dict(example.fields)
    for _ in range(12):
        ids = tokenizer.encode([example.prefix + templates.fill(template.input, left)])[0]
        if len(ids) <= room:
            return ids
        name = max(names, key=lambda n: len(left[n]), default=None)
        if name is None or not left[name]:
            return None
        per_token = max(1.0, len(left[name]) / max(1, len(tokenizer.encode([left[name]])[0])))
        left[name] = left[name][: max(0, len(left[name]) - int((len(ids) - room) * per_token) - 1)].rstrip()
    return None


# --------------------------------------------------------------------------------------------------- one dataset


def prepare_dataset(
    record: catalog.Dataset,
    source: sources.OpenSource,
    tokenizer: vocabularies.Tokenizer,
    to: Path,
    options: Options,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Prepares one dataset: its tokens, and its dev and test examples. What is there and current stays.

    Returns:
      Figures for the summary.

    Raises:
      SourceError: no training record is left after filtering.
    """
    folder = token_store.folder_of(to, tokenizer.fingerprint, options.style) / record.name
    with locked(folder):
        kept, figures = _write_tokens(record, source, tokenizer, folder, options, overwrite)
    sizes = prepare_examples(record, source, to, overwrite)
    return summary_line(record, source, figures, sizes, kept)


def prepare_examples(
    record: catalog.Dataset, source: sources.OpenSource, to: Path, overwrite: bool = False
) -> dict[str, int]:
    """Writes a dataset's dev and test examples and exemplars, unless they are current; returns their sizes."""
    folder = to / "examples" / record.name
    with locked(folder):
        return _write_examples(record, source, folder, overwrite)


def summary_line(
    record: catalog.Dataset,
    source: sources.OpenSource,
    figures: Mapping[str, Any],
    sizes: Mapping[str, int],
    kept: bool,
) -> dict[str, Any]:
    """A prepared dataset's figures for the summary."""
    return {
        "dataset": record.name,
        "cluster": record.cluster,
        "origin": source.origin,
        "kept": kept,
        "train": figures.get("num_records", 0),
        **{
            k: figures.get(k, 0)
            for k in ("renderings", "num_tokens", "mean_input_length", "mean_target_length", "trimmed", "overlong")
        },
        **{name: sizes[name] for name in ("dev", "test") if name in sizes},
        "bad_rows": len(source.bad_rows),
    }


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """A lock on a folder that is written aside and renamed, between processes; freed when its process dies.

    Raises:
      FlanError: its place cannot be written to.
    """
    make_folder(folder.parent)
    lock = filelock.FileLock(folder.with_name(f".{folder.name}.lock"))
    with written(folder):
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def token_key(
    record: catalog.Dataset, source: sources.OpenSource, tokenizer: vocabularies.Tokenizer, options: Options
) -> dict[str, Any]:
    """What a dataset's tokens depend on: while it is the same, they are current."""
    return {
        "dataset": record.name,
        "source": record.source,
        "data": str(source.builder.data_dir),
        "templates": templates.digest(styles.templates(record, options.style)),
        "fields": _fields_digest(record),
        "vocabulary": tokenizer.fingerprint,
        **dataclasses.asdict(options),
        "style": options.style.name,
    }


def _write_tokens(
    record: catalog.Dataset,
    source: sources.OpenSource,
    tokenizer: vocabularies.Tokenizer,
    folder: Path,
    options: Options,
    overwrite: bool,
) -> tuple[bool, dict[str, Any]]:
    """Writes the token store's folder; returns whether what was there was kept, and the info."""
    key = token_key(record, source, tokenizer, options)
    if "train" not in source.splits:
        return True, {}
    if not overwrite and (info := current_info(folder, key)):
        return True, info
    rows = list(training_records(record, source, options))
    pool = [(row.identity, row.fields) for row in rows[: few_shot.POOL_SIZE]]
    builder = ExampleBuilder(record, options.style, pool=pool, tokenizer=tokenizer, seed=options.seed)
    counts, renderings = Counts(), len(rows[0].chosen) if rows else 0
    ordered = [(row, epoch) for epoch in range(renderings) for row in rows]
    examples = tokenized_examples(builder, ordered, tokenizer, options, counts)
    return False, write_tokens(folder, key, len(rows), renderings, tokenizer, examples, counts)


def current_info(folder: Path, key: Mapping[str, Any]) -> dict[str, Any] | None:
    """The info of tokens that are there and depend on the same; None otherwise."""
    info = token_store.read_info(folder)
    return info if info is not None and all(info.get(k) == v for k, v in key.items()) else None


def write_tokens(
    folder: Path,
    key: Mapping[str, Any],
    num_records: int,
    renderings: int,
    tokenizer: vocabularies.Tokenizer,
    examples: Iterator[token_store.TokenizedExample],
    counts: Counts,
) -> dict[str, Any]:
    """Writes the token store's folder of a dataset; returns its info.

    Raises:
      SourceError: there is no record.
    """
    if not num_records:
        raise sources.SourceError(key["dataset"], "no training record is left after filtering", "look at its source")
    about = {**key, "num_records": num_records, "renderings": renderings, "vocab_size": tokenizer.vocab_size}
    # The counts are full only after the last example, so they are read when info is written.
    return token_store.write_dataset(folder, about, examples, lambda: dataclasses.asdict(counts))


def digest_of(key: Mapping[str, Any]) -> str:
    """A fingerprint of what tokens depend on."""
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]


def _fields_digest(record: catalog.Dataset) -> str:
    """A fingerprint of the code behind the dataset's `fields` and `keep`: its edits are prepared again."""
    code = [Path(inspect.getfile(part)).read_bytes() for part in (record.fields, shared_fields)]
    return hashlib.sha256(b"\0".join(code)).hexdigest()[:16]


def _write_examples(
    record: catalog.Dataset, source: sources.OpenSource, folder: Path, overwrite: bool
) -> dict[str, int]:
    """Writes dev, test and exemplars with the fields of every record, whole or not at all; returns their sizes."""
    info = folder / "info.json"
    key = {"data": str(source.builder.data_dir), "splits": {n: s.tfds for n, s in source.splits.items()}}
    key |= {"source": record.source, "fields": _fields_digest(record), "pool": few_shot.POOL_SIZE}
    if not overwrite and (found := token_store.read_info(folder)) and found.get("key") == key:
        return found["sizes"]
    sizes = {}
    with whole_folder(folder) as building:
        for name, split in (("dev", "validation"), ("test", "test"), ("exemplars", "train")):
            if split not in source.splits:
                continue
            rows = tasks.records(record, source, split)
            rows = rows.take(few_shot.POOL_SIZE) if name == "exemplars" else rows
            with (building / f"{name}.jsonl").open("w", encoding="utf-8") as file:
                sizes[name] = 0
                for identity, fields in tasks.text_records(rows):
                    file.write(json.dumps({"id": identity, "fields": fields}, ensure_ascii=False) + "\n")
                    sizes[name] += 1
        (building / info.name).write_text(json.dumps({"key": key, "sizes": sizes}, indent=1) + "\n")
    return sizes
