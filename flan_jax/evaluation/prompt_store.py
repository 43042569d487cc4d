"""A store of rendered and tokenized prompts of an evaluation, so that they are only made once.

    PREPARED_DIR/trees/<vocabulary>[_<style>]/<dataset>/<split>_t<template>_<limits>.trees

A file holds what `ranking.render` gives for a unit. It is bound to everything that this depends on: vocabulary,
protocol and template, exemplars, seed, records, joint, limits, and the versions of the code that tokenizes. The limits
that a user chooses are part of the file's name, so evaluations with other limits do not disturb each other. If anything
else has changed, such as records or templates, the file is stale; its unit is rendered again and replaces it.

`python -m flan_jax.prepare --evaluate` fills the store on a machine without an accelerator. An evaluation adds what it
has to tokenize itself. If nothing can be written, the evaluation goes on without the store.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from flan_jax import catalog, content, distributed, styles, ways
from flan_jax.data import examples as example_files
from flan_jax.data.builder import ExampleBuilder
from flan_jax.data.vocabularies import Tokenizer
from flan_jax.errors import FlanError, StorageError
from flan_jax.evaluation import ranking
from flan_jax.evaluation.units import Left, Unit, rows_digest
from flan_jax.files import AnyPath, user_path
from flan_jax.protocol import Protocol
from flan_jax.scoring import tree_files
from flan_jax.templates import OPTIONS

VERSION = 2  # raised when the same records come to give other trees or lines
_LIBRARIES = ("tokenizers", "sentencepiece")
_ANSWER = "answer"  # the field that a prompt asks for


@dataclasses.dataclass(frozen=True)
class Records:
    """The prepared records of a dataset, and what makes their text.

    Attributes:
      builder: makes the text.
      splits: (name, records) of "test" and "dev", or only of dev.
      of_test: how many dev records were left out because they are test records too.
    """

    builder: ExampleBuilder
    splits: tuple[tuple[str, list[dict[str, Any]]], ...]
    of_test: int = 0


def read_records(
    prepared_dir: str | AnyPath,
    asked: Protocol,
    tokenizer: Tokenizer,
    max_examples: int | None,
    max_dev_examples: int | None,
    seed: int,
) -> Records:
    """Reads the records of a dataset for an evaluation.

    Args:
      prepared_dir: the folder that `flan_jax.prepare` wrote.
      asked: the dataset's protocol.
      tokenizer: the model's vocabulary.
      max_examples: how many test records to read, from the first; None for all.
      max_dev_examples: how many dev records to read.
      seed: the seed of exemplars and shuffled options.

    Raises:
      FlanError: nothing was prepared, or the files have changed; see `data.examples.read`.
    """
    name = asked.record.name
    test = example_files.read(prepared_dir, name, example_files.TEST, max_examples)
    dev = example_files.read(prepared_dir, name, example_files.DEV, max_dev_examples)
    builder = _builder(prepared_dir, asked, tokenizer, seed)
    return Records(builder, ((example_files.TEST, test), (example_files.DEV, dev)))


def read_dev(
    prepared_dir: str | AnyPath, asked: Protocol, tokenizer: Tokenizer, max_dev_examples: int | None, seed: int
) -> Records:
    """Reads the dev records of a dataset, without those that are test records too.

    A source may hold a record in two splits. Records count as the same if they have the same id, the same content, or
    show the same words in a prompt. So a test record does not get in with another answer, spelling or spacing, or as a
    pair of sentences in the other order. Nothing else of the test records is used, and none is returned.

    Args:
      prepared_dir: the folder that `flan_jax.prepare` wrote.
      asked: the dataset's protocol.
      tokenizer: the model's vocabulary.
      max_dev_examples: how many records to read, from the first; None for all.
      seed: the seed of exemplars and shuffled options.

    Raises:
      FlanError: there is no dev record, nothing was prepared, or the files have changed; see `data.examples.read`.
    """
    name = asked.record.name
    dev = example_files.read(prepared_dir, name, example_files.DEV)
    if not dev:
        raise FlanError(
            f"{name} has no dev examples in {prepared_dir}: its source has test data alone, or too few training "
            "records, of which dev would be cut. Leave it out of DATASETS, and evaluate it after training."
        )
    shown = {field for number in asked.forward for field in asked.shown_fields(number)} - {_ANSWER}
    tested = {
        key
        for row in _test_rows(prepared_dir, name)
        for key in (row["id"], row["hash"], _shown_key(row["fields"], shown))
    }
    others = [row for row in dev if not tested & {row["id"], row["hash"], _shown_key(row["fields"], shown)}]
    if not others:
        raise FlanError(
            f"all dev examples of {name} in {prepared_dir} are test examples too, or ask the same: mend its source's "
            "splits and prepare it again, or leave it out of DATASETS."
        )
    builder = _builder(prepared_dir, asked, tokenizer, seed)
    chosen = others if max_dev_examples is None else others[:max_dev_examples]
    return Records(builder, ((example_files.DEV, chosen),), len(dev) - len(others))


def _test_rows(prepared_dir: str | AnyPath, name: str) -> list[dict[str, Any]]:
    """The test records of a dataset and all its variants; none if the source has no test split."""
    if not example_files.has(prepared_dir, name, example_files.TEST):
        return []
    return example_files.read(prepared_dir, catalog.whole(name), example_files.TEST)


def _shown_key(fields: Mapping[str, Any], shown: Iterable[str]) -> int:
    """A key of the words that a prompt shows of a record without its answer, whatever the order of its texts.

    A text without words, such as a smiley or three dots, counts as it is written.
    """
    texts = content.texts_of([fields.get(name, "") for name in shown] + [fields.get(OPTIONS, [])])
    words = sorted(content.normalized_words(text) or text.split() for text in texts)
    return content.text_key([word for one in words for word in [*one, ""]])


def _builder(prepared_dir: str | AnyPath, asked: Protocol, tokenizer: Tokenizer, seed: int) -> ExampleBuilder:
    name, style = asked.record.name, asked.style
    if written := asked.record.written:
        if written != tokenizer.fingerprint:
            raise FlanError(
                f"{name} was written by the chat template of another vocabulary ({written[:8]}) than this model's "
                f"({tokenizer.fingerprint[:8]}): prepare it for this one under another name."
            )
        if style != styles.PAPER:
            raise FlanError(
                f"{name} was written by a chat template, and has no other style: leave style {style.name} out."
            )
    pool = example_files.read(prepared_dir, name, example_files.EXEMPLARS) if style.shots else []
    shown = {name for number in asked.forward for name in asked.shown_fields(number)}
    drawn = [(row["id"], row["fields"]) for row in pool if _is_usable(row["fields"], shown, asked.ranked)]
    return ExampleBuilder(asked.record, style, asked=asked, pool=drawn, tokenizer=tokenizer, seed=seed)


def _is_usable(fields: Mapping[str, Any], shown: Iterable[str], ranked: bool) -> bool:
    try:
        example_files.check(fields, shown, ranked)
    except example_files.UnusableError:
        return False
    return True


class PromptStore:
    """The rendered units of one vocabulary in a PREPARED_DIR.

    Attributes:
      read: how many units were found.
      made: how many units were rendered.
    """

    def __init__(
        self,
        prepared_dir: str | AnyPath,
        tokenizer: Tokenizer,
        say: Callable[[str], None] | None = None,
        *,
        must_write: bool = False,
    ) -> None:
        """Opens the store.

        Args:
          prepared_dir: where it is.
          tokenizer: the vocabulary.
          say: called with a line, once for each reason, if files are stale or cannot be written; None prints it.
          must_write: whether a file that cannot be written is an error.
        """
        self._folder, self._tokenizer = user_path(prepared_dir) / "trees", tokenizer
        self._say = say or _print
        self._said: set[str] = set()
        self._must_write = must_write
        self._writes = distributed.is_primary()
        self.read, self.made = 0, 0

    def rendered(self, unit: Unit, joint: str, max_length: int, names: Sequence[str] = ()) -> ranking.Rendered:
        """A unit as `ranking.render` gives it, from the store if possible.

        Args:
          unit: a unit of a dataset with options.
          joint: what stands between prompt and option.
          max_length: most tokens of a prompt with its longest option that the scorer takes.
          names: further ways to score that are asked for (`flan_jax.ways`).

        Raises:
          FlanError: it must be written and cannot be.
        """
        readings = ways.readings(names)
        limits = {"joint": joint, "max_length": max_length, "readings": [reading.key for reading in readings]}
        path, key = self._path(unit, limits), self._key(unit, limits)
        found = None
        try:
            found = tree_files.read(path, key)
            stale = found is None
        except FileNotFoundError:
            stale = False
        except OSError as error:
            stale = False
            self._once("read", f"prompts kept in {path} cannot be read ({error.strerror}): they are tokenized anew.")
        if found is not None:
            self.read += 1
            return _of_stored(unit, found)
        if stale:
            self._once("stale", f"prompts kept in {path} are of other records or settings, or damaged: tokenized anew.")
        made = ranking.render(self._tokenizer, unit, joint, max_length, readings)
        self.made += 1
        if self._writes:
            try:
                tree_files.write(path, key, _to_stored(made))
            except (FlanError, StorageError) as error:
                if self._must_write:
                    raise
                self._writes = False
                self._once("write", f"tokenized prompts are not kept, and will be tokenized again ({error})")
        return made

    def _path(self, unit: Unit, limits: Mapping[str, Any]) -> AnyPath:
        asked, builder = unit.builder.protocol, unit.builder
        chosen = {**limits, "rows": len(unit.rows), "seed": builder.seed, "max_input_tokens": asked.max_input_tokens}
        folder = self._folder / f"{self._tokenizer.fingerprint[:16]}{builder.style.suffix}" / builder.record.name
        return folder / f"{unit.split}_t{unit.number}_{_digest(chosen)[:12]}.trees"

    def _key(self, unit: Unit, limits: Mapping[str, Any]) -> dict[str, Any]:
        """Everything that the rendered unit depends on."""
        return {
            "version": [VERSION, ways.VERSION],
            "libraries": {name: importlib.metadata.version(name) for name in _LIBRARIES},
            "vocabulary": self._tokenizer.fingerprint,
            "protocol": unit.builder.protocol.of_template(unit.number).digest,
            "text": unit.builder.digest_of(unit.number),  # template, style, exemplars, seed
            "split": unit.split,
            "template": unit.number,
            "examples": unit.rows_digest,
            **limits,
        }

    def _once(self, what: str, line: str) -> None:
        if what not in self._said and distributed.is_primary():
            self._said.add(what)
            self._say(line)


def _print(line: str) -> None:
    print(line, flush=True)


def _digest(values: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


_PLAIN = ("lines", "left")


def _to_stored(made: ranking.Rendered) -> tree_files.Stored:
    plain = {"lines": made.lines, "left": [dataclasses.asdict(one) for one in made.left]}
    names = [field.name for field in dataclasses.fields(made) if field.name not in (*_PLAIN, "unit")]
    return tree_files.Stored(plain, {name: getattr(made, name) for name in names})


def _of_stored(unit: Unit, found: tree_files.Stored) -> ranking.Rendered:
    left = tuple(Left(**one) for one in found.plain["left"])
    return ranking.Rendered(unit=unit, lines=found.plain["lines"], left=left, **found.trees)


def prepare(
    prepared_dir: str | AnyPath,
    asked: Protocol,
    tokenizer: Tokenizer,
    joint: str,
    max_length: int,
    *,
    max_examples: int | None = None,
    max_dev_examples: int | None = None,
    seed: int = 0,
    names: Sequence[str] = (),
) -> dict[str, Any]:
    """Fills the store with the units of a dataset whose options are ranked.

    Args:
      prepared_dir: the folder that `flan_jax.prepare` wrote.
      asked: the dataset's protocol.
      tokenizer: the model's vocabulary.
      joint: what stands between prompt and option.
      max_length: most tokens of a prompt with its longest option that the scorer takes.
      max_examples: how many test records to use; None for all.
      max_dev_examples: how many dev records to use.
      seed: the seed of exemplars and shuffled options.
      names: further ways to score that are asked for (`flan_jax.ways`).

    Returns:
      {"dataset", "units", "kept", "prompts", "left_out", "tokens"}; "kept" counts the units that were there before.

    Raises:
      FlanError: nothing was prepared, or the store cannot be written.
    """
    records = read_records(prepared_dir, asked, tokenizer, max_examples, max_dev_examples, seed)
    store = PromptStore(prepared_dir, tokenizer, lambda line: None, must_write=True)
    figures: dict[str, Any] = {
        "dataset": asked.record.name,
        "units": 0,
        "kept": 0,
        "prompts": 0,
        "left_out": 0,
        "tokens": 0,
    }
    for split, rows in records.splits:
        digest = rows_digest(rows)
        for number in asked.forward if rows else ():
            unit = Unit.create(records.builder, split, number, rows, Path(), (), digest)
            made = store.rendered(unit, joint, max_length, names)
            figures["units"] += 1
            figures["prompts"] += len(made.trees)
            figures["left_out"] += len(made.left)
            figures["tokens"] += sum(len(tree.trunk) + sum(map(len, tree.branches)) for tree in made.trees)
    return figures | {"kept": store.read}
