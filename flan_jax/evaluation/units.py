"""A unit of evaluation, (dataset, split, template): its prompts, and the file of its predictions.

The file is JSON lines, written whole or not at all. Its first line has a digest of everything that decides the
predictions: the protocol, the weights, the vocabulary, the engine, the template's text, the examples and the settings.
So an interrupted job goes on where it stopped, and a stale file is never used. The first line also names the examples
that could not be asked, and has a digest of the other lines. If a line was edited, damaged or cut off, the whole unit
is computed again, and a message says so.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from flan_jax import content, distributed
from flan_jax.data import examples as example_files
from flan_jax.data import trimming
from flan_jax.data.builder import Example, ExampleBuilder
from flan_jax.data.vocabularies import Tokenizer
from flan_jax.errors import FlanError
from flan_jax.files import AnyPath, write_atomic
from flan_jax.json_lines import bound_lines, read_lines


class InvalidError(FlanError):
    """The model's numbers for a unit are not finite, so its dataset has no result.

    Attributes:
      entry: {"dataset", "split", "template", "example", "reason"}, for the results.
    """

    def __init__(self, unit: Unit, identity: str, what: str) -> None:
        dataset, split, number = unit.name
        reason = f"invalid: {what} of {split} example {identity!r} with template {number} are not finite"
        super().__init__(f"{dataset}: {reason}")
        self.entry = {"dataset": dataset, "split": split, "template": number, "example": identity, "reason": reason}


@dataclasses.dataclass(frozen=True)
class Left:
    """An example that cannot be asked and is left out: an option has no tokens, or it is too long.

    Attributes:
      example: its id.
      template: the number of the template with which it could not be asked.
      reason: why, in one line.
    """

    example: Any
    template: int
    reason: str


@dataclasses.dataclass(frozen=True)
class Predictions:
    """The predictions of a unit, and the examples without one.

    Attributes:
      lines: a prediction for each example that was asked.
      left: the examples that were left out.
    """

    lines: list[dict[str, Any]]
    left: tuple[Left, ...] = ()

    def without(self, left: Sequence[Left]) -> Predictions:
        """The predictions without some further examples."""
        own = {one.example for one in self.left}
        more = {one.example: one for one in left if one.example not in own}
        return Predictions([line for line in self.lines if line["id"] not in more], (*self.left, *more.values()))

    def without_prompts(self) -> Predictions:
        """The predictions without their prompts.

        Figures do not need them, and with exemplars they are most of a run's memory.
        """
        lines = [{name: value for name, value in line.items() if name != "prompt"} for line in self.lines]
        return Predictions(lines, self.left)


def rows_digest(rows: Sequence[Mapping[str, Any]]) -> str:
    """A digest of records with all their fields."""
    return hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()


@dataclasses.dataclass(frozen=True)
class Unit:
    """A (dataset, split, template).

    Attributes:
      builder: makes the examples of its dataset.
      split: "test" or "dev".
      number: the number of the template.
      rows: the records, as `data.examples.read` returns them.
      rows_digest: a digest of the records.
      key: a digest of everything that the predictions depend on.
      path: the file of the predictions.
    """

    builder: ExampleBuilder
    split: str
    number: int
    rows: Sequence[Mapping[str, Any]]
    rows_digest: str
    key: str
    path: AnyPath

    @classmethod
    def create(
        cls,
        builder: ExampleBuilder,
        split: str,
        number: int,
        rows: Sequence[Mapping[str, Any]],
        output_dir: AnyPath,
        bound: Sequence[Any],
        digest_of_rows: str | None = None,
    ) -> Unit:
        """Makes a unit with its key.

        Args:
          builder: makes the examples of its dataset.
          split: "test" or "dev".
          number: the number of the template.
          rows: the records.
          output_dir: EVAL_OUTPUT_DIR.
          bound: what predictions depend on besides protocol, text and records: weights, vocabulary, engine, joint.
          digest_of_rows: `rows_digest`, if it is known already. All templates of a split have the same.
        """
        asked = builder.protocol
        of_rows = rows_digest(rows) if digest_of_rows is None else digest_of_rows
        # Of this template alone: where another one is reworded, these predictions stay.
        digest = [*bound, asked.of_template(number).digest, number, builder.digest_of(number), of_rows]
        key = hashlib.sha256(json.dumps(digest, sort_keys=True).encode()).hexdigest()
        path = output_dir / "predictions" / builder.record.name / f"{split}_t{number}.jsonl"
        return cls(builder, split, number, rows, of_rows, key, path)

    @property
    def name(self) -> tuple[str, str, int]:
        """Dataset, split and template."""
        return self.builder.record.name, self.split, self.number

    def kept(self) -> Predictions | None:
        """The predictions of an earlier job, if they have the same key and have not been changed since."""
        try:
            header, *lines = read_lines(self.path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except IsADirectoryError as error:
            raise FlanError(f"{self.path} is a folder, where a file of predictions belongs: move it away.") from error
        except ValueError:  # edited, not JSON, not UTF-8, empty, or with NaN
            if distributed.is_primary():
                print(f"{self.path} was edited, damaged or cut off: predicted anew.", flush=True)
            return None
        if header.get("key") != self.key or "digest" not in header:
            return None
        found = Predictions(lines, tuple(Left(**one) for one in header.get("left_out", ())))
        return found if len(found.lines) + len(found.left) == len(self.rows) else None

    def write(self, predictions: Predictions) -> None:
        """Writes the predictions. Only one process writes."""
        if distributed.is_primary():
            header: dict[str, Any] = {"key": self.key, "examples": len(predictions.lines)}
            if predictions.left:
                header["left_out"] = [dataclasses.asdict(one) for one in predictions.left]
            write_atomic(self.path, bound_lines(header, predictions.lines, str(self.path)))

    def prompt(self, tokenizer: Tokenizer, row: Mapping[str, Any]) -> tuple[trimming.Fitted, Example]:
        """The prompt of a record, cut to the protocol's limit, and the uncut example.

        What a chat template wrote is never cut. Its tokens have BOS only if the template writes it.

        Raises:
          UnusableError: the record cannot be asked in any way.
          TooLongError: exemplars, instruction and options alone exceed the limit.
        """
        asked = self.builder.protocol
        example_files.check(row["fields"], asked.shown_fields(self.number), asked.ranked)
        example = self.builder.build(row["id"], row["fields"], self.number)
        room = asked.input_room(tokenizer.bos_id is not None)
        template = asked.templates[self.number]
        if self.builder.record.written:
            ids = tuple(tokenizer.encode_written([example.inputs])[0])
            if len(ids) > asked.max_input_tokens:
                raise trimming.TooLongError(f"it takes {len(ids)} tokens; there is room for {asked.max_input_tokens}")
            return trimming.Fitted(example.inputs, ids, example.fields), example
        return trimming.fit(template, example.fields, example.prefix, tokenizer, room, asked.trim), example

    def line(self, row: Mapping[str, Any], prompt: str, shots: int, cut_tokens: int) -> dict[str, Any]:
        """The part of a prediction that does not depend on the model's answer."""
        variant, shared = self.builder.record.variant, row["fields"].get(self.builder.record.passage)
        return {
            "id": row["id"],
            "hash": row["hash"],
            **({"passage": content.content_hash({"passage": shared})} if shared else {}),
            "dataset": self.builder.record.name,
            **({"variant": variant} if variant else {}),
            "split": self.split,
            "template": self.number,
            "prompt": prompt,
            "shots": shots,
            "cut_tokens": cut_tokens,
        }
