"""Prepares one dataset: its tokens for training, and its dev and test examples for evaluation.

    PREPARED_DIR/tokens/<vocabulary>[_<style>]/<dataset>/   see `flan_jax.data.token_store`
    PREPARED_DIR/examples/<dataset>/{dev,test,exemplars}.jsonl

What exists and is current stays. A dataset is locked while it is prepared, so two processes never write the same one.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from flan_jax import catalog, protocol, styles
from flan_jax.data import again, drafts, sources, tasks, token_store, trimming, usable, vocabularies
from flan_jax.data import examples as example_files
from flan_jax.data.builder import Example, ExampleBuilder
from flan_jax.data.identity import Identities
from flan_jax.data.training_records import Counts, Options, TrainingRecord, styled_records, without_problems
from flan_jax.files import AnyPath, alone
from flan_jax.styles import TextStyle

BATCH = 512  # examples that are tokenized together

_Row = tuple[str, Mapping[str, Any]]  # a record's id, and its fields as text


def tokenized_examples(
    builder: ExampleBuilder,
    rows: Sequence[tuple[TrainingRecord, int]],
    tokenizer: vocabularies.Tokenizer,
    counts: Counts,
) -> Iterator[token_store.TokenizedExample]:
    """Renders and tokenizes training examples. Long ones are cut, or left out if that is impossible, and counted.

    Args:
      builder: makes the dataset's text; its protocol has the limits.
      rows: records, and which of their renderings.
      tokenizer: the vocabulary.
      counts: the counts to add to.
    """
    asked = builder.protocol
    room = asked.input_room(tokenizer.bos_id is not None)
    target_room = asked.max_target_tokens - 1  # EOS comes after it
    for start in range(0, len(rows), BATCH):
        part = rows[start : start + BATCH]
        built = list(_built(builder, part, counts))
        examples = [example for _, example in built]
        inputs = tokenizer.encode([example.inputs for example in examples])
        targets = tokenizer.encode([example.targets for example in examples])
        for (row, example), ids, target in zip(built, inputs, targets, strict=True):
            if len(ids) > room:
                template = builder.templates[example.template]
                try:
                    fitted = trimming.fit(template, example.fields, example.prefix, tokenizer, room, asked.trim)
                except trimming.TooLongError:
                    counts.overlong += 1
                    continue
                ids = list(fitted.tokens)
                counts.trimmed += 1
            counts.cut_targets += len(target) > target_room
            if builder.style.shots:
                counts.prompts += 1
                counts.exemplars += example.shots
                counts.bare += not example.shots
            yield token_store.TokenizedExample(ids, target[:target_room], example.template, row.number)


def _built(
    builder: ExampleBuilder, rows: Iterable[tuple[TrainingRecord, int]], counts: Counts
) -> Iterator[tuple[TrainingRecord, Example]]:
    """Records with their examples. Those that the style cannot show are left out and counted."""
    for row, epoch in rows:
        try:
            yield row, builder.build(row.identity, row.fields, row.chosen[epoch])
        except styles.TooManyOptionsError:
            counts.overlong += 1
        except styles.NeedsOptionsError:
            counts.unanswerable += 1


# --------------------------------------------------------------------------------------------------- one dataset


def prepare_dataset(
    record: catalog.Dataset,
    source: sources.OpenSource,
    tokenizer: vocabularies.Tokenizer | None,
    to: AnyPath,
    options: Options,
    overwrite: bool = False,
    styles: Sequence[TextStyle] = (),
) -> dict[str, Any]:
    """Prepares one dataset: its tokens, and its dev and test examples. What exists and is current stays.

    Without a vocabulary there are no tokens, only examples.

    Args:
      record: the dataset.
      source: its open source.
      tokenizer: the vocabulary, or None.
      to: PREPARED_DIR.
      options: how examples are rendered and tokenized.
      overwrite: whether to prepare again what exists.
      styles: styles in place of that of the options. The tokens of several are made in one pass over the training
        records.

    Returns:
      Figures for the summary.

    Raises:
      SourceError: no training record is left after filtering.
    """
    written: dict[str, tuple[bool, dict[str, Any]]] = {}
    pool: Sequence[_Row] = ()
    if tokenizer is not None:
        each = [dataclasses.replace(options, style=style) for style in dict.fromkeys(styles or (options.style,))]
        written, pool = _write_tokens(record, source, tokenizer, to, each, overwrite)
    examples = prepare_examples(record, source, to, overwrite, () if record.variants else pool)
    return summary_line(record, source, written, examples)


def prepare_examples(
    record: catalog.Dataset,
    source: sources.OpenSource,
    to: AnyPath,
    overwrite: bool = False,
    pool: Sequence[_Row] = (),
) -> dict[str, Any]:
    """Writes a dataset's dev and test examples and exemplars, unless they are current.

    Args:
      record: the dataset.
      source: its open source.
      to: PREPARED_DIR.
      overwrite: whether to prepare again what exists.
      pool: the exemplars, if they have been read already; otherwise they are read.

    Returns:
      {"sizes": {name: examples}, "unusable": examples of dev and test that were left out, "named": the first of these}.
    """
    folder = to / "examples" / record.name
    with locked(folder):
        return _write_examples(record, source, folder, overwrite, pool)


def summary_line(
    record: catalog.Dataset,
    source: sources.OpenSource,
    written: Mapping[str, tuple[bool, Mapping[str, Any]]],
    examples: Mapping[str, Any],
) -> dict[str, Any]:
    """A prepared dataset's figures for the summary.

    Args:
      record: the dataset.
      source: its open source.
      written: by style, whether its tokens existed already, and their info.
      examples: the result of `prepare_examples`.

    Returns:
      The figures. With several styles, those of the first style, and those of each as "styles": {name: figures}.
    """
    sizes = examples["sizes"]
    of_styles = {style: {"kept": kept, **_figures(info)} for style, (kept, info) in written.items()}
    first = next((info for _, info in written.values()), {})  # an unusable record is unusable in every style
    return {
        "dataset": record.name,
        "cluster": record.cluster,
        "origin": source.origin,
        "train": first.get("num_records", 0),
        **next(iter(of_styles.values()), {"kept": True, **_figures({})}),
        **({"styles": of_styles} if len(of_styles) > 1 else {}),
        **{name: sizes[name] for name in ("dev", "test") if name in sizes},
        "bad_rows": len(source.bad_rows),
        "unusable": first.get("unusable", 0) + examples["unusable"],
        "named": [*first.get("named", ()), *examples["named"]],
    }


def _figures(info: Mapping[str, Any]) -> dict[str, Any]:
    """What the summary shows about tokens."""
    names = (
        "renderings",
        "num_tokens",
        "mean_input_length",
        "mean_target_length",
        "trimmed",
        "cut_targets",
        "overlong",
    )
    found = {name: info.get(name, 0) for name in (*names, "unanswerable")}
    if of := info.get("prompts"):  # as results of an evaluation say it
        wanted = styles.parse(info["style"]).shots
        found["shots"] = {"wanted": wanted, "mean": info["exemplars"] / of, "without": info["bare"], "of": of}
    return found


@contextlib.contextmanager
def locked(folder: AnyPath) -> Iterator[None]:
    """A block that holds a lock on a folder which is written beside its place and renamed.

    The lock ends with its process.

    Raises:
      FlanError: the lock's file cannot be written.
    """
    with alone(folder.with_name(f".{folder.name}.lock")):
        yield


def token_key(
    record: catalog.Dataset, source: sources.OpenSource, tokenizer: vocabularies.Tokenizer, options: Options
) -> dict[str, Any]:
    """What a dataset's tokens depend on. While it is the same, they are current."""
    return {
        "version": token_store.VERSION,
        "dataset": record.name,
        "source": record.source,
        "data": str(source.builder.data_dir),
        "protocol": options.protocol_of(record).text_digest,
        drafts.KEY: drafts.fingerprint(record, options.style),
        "fields": usable.code_digest(record),
        "vocabulary": tokenizer.fingerprint,
        **dataclasses.asdict(options),
        "style": options.style.name,
    }


def _write_tokens(
    record: catalog.Dataset,
    source: sources.OpenSource,
    tokenizer: vocabularies.Tokenizer,
    to: AnyPath,
    options: Sequence[Options],
    overwrite: bool,
) -> tuple[dict[str, tuple[bool, dict[str, Any]]], list[_Row]]:
    """Writes the token stores of some styles; returns for each whether the existing one was kept, and its info.

    The training records are read once for all styles. The first of them are returned too, if any were read.
    """
    if "train" not in source.splits:
        return {one.style.name: (True, {}) for one in options}, []
    folders = {one: token_store.folder_of(to, tokenizer.fingerprint, one.style) / record.name for one in options}
    with contextlib.ExitStack() as locks:
        # In one order, so that two processes never wait for each other.
        for folder in sorted(folders.values(), key=str):
            locks.enter_context(locked(folder))
        keys = {one: token_key(record, source, tokenizer, one) for one in options}
        there = {one: None if overwrite else current_info(folders[one], keys[one]) for one in options}
        wanted = [one for one in options if there[one] is None]
        counts = Counts()
        read = list(styled_records(record, source, wanted, counts=counts)) if wanted else []
        records = identities([rows[0] for rows in read])
        found = {one: (True, info) for one, info in there.items() if info is not None}
        for number, one in enumerate(wanted):
            rows = [of_record[number] for of_record in read]
            own = dataclasses.replace(counts, named=list(counts.named))
            found[one] = (
                False,
                _write_style(record, tokenizer, folders[one], keys[one], one, rows, records, own, source.data),
            )
    pool = [(rows[0].identity, rows[0].fields) for rows in read[: protocol.EXEMPLAR_POOL]]
    return {one.style.name: found[one] for one in options}, pool


def _write_style(
    record: catalog.Dataset,
    tokenizer: vocabularies.Tokenizer,
    folder: AnyPath,
    key: Mapping[str, Any],
    options: Options,
    rows: Sequence[TrainingRecord],
    records: Identities,
    counts: Counts,
    data: str,
) -> dict[str, Any]:
    """Writes the token store of one style; returns its info."""
    pool = [(row.identity, row.fields) for row in rows[: protocol.EXEMPLAR_POOL]]
    asked = options.protocol_of(record)
    builder = ExampleBuilder(record, options.style, asked=asked, pool=pool, tokenizer=tokenizer, seed=options.seed)
    renderings = len(rows[0].chosen) if rows else 0
    ordered = [(row, epoch) for epoch in range(renderings) for row in rows]
    examples = tokenized_examples(builder, ordered, tokenizer, counts)
    return write_tokens(folder, key, records, renderings, tokenizer, examples, counts, data)


def identities(rows: Sequence[TrainingRecord]) -> Identities:
    """The identities of training records, by their content."""
    return Identities.of((row.identity, row.fields) for row in rows)


def current_info(folder: AnyPath, key: Mapping[str, Any]) -> dict[str, Any] | None:
    """The info of existing tokens with the same key; None if there are none."""
    info = token_store.read_info(folder)
    return info if info is not None and all(info.get(k) == v for k, v in key.items()) else None


def write_tokens(
    folder: AnyPath,
    key: Mapping[str, Any],
    records: Identities,
    renderings: int,
    tokenizer: vocabularies.Tokenizer,
    examples: Iterator[token_store.TokenizedExample],
    counts: Counts,
    data: str,
) -> dict[str, Any]:
    """Writes a dataset's folder of the token store, and returns its info; `data` is --data, for messages.

    Raises:
      SourceError: there is no record.
    """
    if not (num_records := len(records.hashes)):
        raise sources.SourceError(key["dataset"], "no training record is left after filtering", "look at its source")
    about = {**key, "num_records": num_records, "renderings": renderings, "vocab_size": tokenizer.vocab_size}
    about[again.DATA] = data
    # The counts are complete only after the last example, so they are read when the info is written.
    return token_store.write_dataset(folder, about, examples, lambda: dataclasses.asdict(counts), records)


def digest_of(key: Mapping[str, Any]) -> str:
    """Identifies what tokens depend on."""
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]


def _spread(rows: Iterator[_Row]) -> Iterator[_Row]:
    """One example of each record, then another one of each, and so on.

    So the first examples come from as many records as possible. A hash of the record's id chooses its first example, so
    that they are not all first turns.
    """
    by_record: dict[str, list[_Row]] = {}
    for identity, fields in rows:
        by_record.setdefault(catalog.record_id(identity), []).append((identity, fields))
    for identity, found in by_record.items():
        first = int(hashlib.sha256(identity.encode()).hexdigest(), 16) % len(found)
        by_record[identity] = found[first:] + found[:first]
    for of_each in itertools.zip_longest(*by_record.values()):
        yield from (row for row in of_each if row is not None)


def _write_examples(
    record: catalog.Dataset, source: sources.OpenSource, folder: AnyPath, overwrite: bool, pool: Sequence[_Row]
) -> dict[str, Any]:
    """Writes dev, test and exemplars with the fields of every record, whole or not at all; see `prepare_examples`."""
    key: dict[str, Any] = {
        "data": str(source.builder.data_dir),
        "splits": {n: s.tfds for n, s in source.splits.items()},
    }
    key |= {"source": record.source, "fields": usable.code_digest(record), "pool": protocol.EXEMPLAR_POOL}
    key["version"] = example_files.VERSION
    if not overwrite and (found := token_store.read_info(folder)) and found.get("key") == key:
        return found
    counts = Counts()

    def rows(name: str, split: str) -> Iterator[_Row]:
        if name == example_files.EXEMPLARS:
            yield from pool or tasks.exemplar_pool(record, source, split="test")
            return
        found = without_problems(record, usable.checked(record, source.read(split), every=True), counts)
        yield from _spread(found) if protocol.of(record).asks_all else found

    there = {name: rows(name, split) for name, split in example_files.SPLITS.items() if split in source.splits}

    def unusable() -> dict[str, Any]:
        return {"unusable": counts.unusable, "named": counts.named}

    return example_files.write_folder(folder, there, {"key": key, again.DATA: source.data}, unusable)
