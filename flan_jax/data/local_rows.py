"""Reads rows of a local JSONL file in the TFDS schema, and says what is wrong with those that cannot be used."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import tensorflow as tf
import tensorflow_datasets as tfds

from flan_jax import catalog
from flan_jax.data import schema, usable
from flan_jax.json_lines import read_json_lines
from flan_jax.wording import counted

_CHUNK_ROWS, _CHUNK_BYTES = 2048, 8 * 2**20  # rows and bytes in memory at a time
_KEPT_BAD_ROWS = 1000  # bad rows of a file that are kept; more are counted

_Place = tuple[int, int]  # the line, and the number of the row in it from 1; 0 if the line holds one row


@dataclasses.dataclass(frozen=True)
class BadRow:
    """A row of local JSONL that was left out: its place, and what is wrong."""

    path: str
    line: int
    problem: str

    def __str__(self) -> str:
        return f"{self.path} line {self.line}: {self.problem}"


class FileRows:
    """Reads a file's rows; afterwards it knows what is wrong with those that were left out.

    Attributes:
      bad_rows: the first of these.
      more: how many more there are.
    """

    def __init__(
        self, record: catalog.Dataset, file: Path, features: tfds.features.FeaturesDict, needed: frozenset[str]
    ) -> None:
        self._record, self._file, self._features, self._needed = record, file, features, needed
        self._name = f"{file.parent.name}/{file.name}"
        self._left_out: dict[str, tuple[int, int]] = {}  # reason: (rows, the first one's line)
        self._is_empty = True
        self.bad_rows: list[BadRow] = []
        self.more = 0

    def read(self) -> Iterator[dict[str, Any]]:
        """Yields the rows to write, also those that `keep` drops. Raises FlanError if the file cannot be read."""
        for rows, problems in self._chunks():
            verdicts = usable.verdicts(self._record, self._features, [example for _, _, example in rows])
            for (place, row, _), verdict in zip(rows, verdicts, strict=True):
                if verdict and (problem := self._problem(place[0], row, int(verdict))):
                    problems[place] = problem
                else:
                    yield row
            kept = sorted(problems)[: _KEPT_BAD_ROWS - len(self.bad_rows)]
            for line, turn in kept:
                said = problems[line, turn]
                self.bad_rows.append(BadRow(self._name, line, f"turn {turn}: {said}" if turn else said))
            self.more += len(problems) - len(kept)

    def _chunks(self) -> Iterator[tuple[list[tuple[_Place, dict[str, Any], bytes]], dict[_Place, str]]]:
        """Some lines at a time: (place, row, serialized row) of rows that fit the schema, and the others' problems."""
        rows: list[tuple[_Place, dict[str, Any], bytes]] = []
        problems: dict[_Place, str] = {}
        size = 0
        for line in read_json_lines(self._file, self._name):
            self._is_empty = False
            try:
                if line.problem:
                    raise schema.Misfit(line.problem)
                given = _unnested(self._record, line.value)
            except schema.Misfit as misfit:
                problems[line.number, 0] = str(misfit)
                given = []
            for turn, value in enumerate(given, start=1):
                place = (line.number, turn if len(given) > 1 else 0)
                try:
                    row = schema.row_of(self._record, value, self._features, self._needed)
                except schema.Misfit as misfit:
                    problems[place] = str(misfit)
                else:
                    rows.append((place, row, self._features.serialize_example(row)))
                    size += len(rows[-1][-1])
            if size > _CHUNK_BYTES or len(rows) + len(problems) >= _CHUNK_ROWS:
                yield rows, problems
                rows, problems, size = [], {}, 0
        yield rows, problems

    def _problem(self, number: int, row: Mapping[str, Any], verdict: int) -> str:
        """What is wrong with a row; empty if only `keep` drops it, which is noted."""
        if verdict != usable.NOT_KEPT:
            problem = usable.problem_text(self._record, verdict)
            labels = schema.labels_of(row, self._features, self._needed) if problem == usable.NO_LABEL else ""
            return problem + labels
        if schema.is_unlabelled(row, self._features):
            why = "without a label"
        elif blank := schema.blank_text(row, self._features, self._needed):
            return f"there is no text in {blank!r}"
        else:
            why = "in a form that the dataset does not use"
        count, first = self._left_out.get(why, (0, number))
        self._left_out[why] = (count + 1, first)
        return ""

    def notes(self) -> list[str]:
        """What else is not used, one line for each kind."""
        found = [
            f"{counted(count, 'rows')} of {self._name} {why} (first: line {first})"
            for why, (count, first) in sorted(self._left_out.items(), reverse=True)
        ]
        if self.more:
            found.append(f"{counted(self.more, 'bad rows')} of {self._name} besides these")
        if self._is_empty:
            found.append(f"{self._name}, which is empty")
        return found


def _unnested(record: catalog.Dataset, value: Any) -> list[Any]:
    """The rows in a line's value. Raises Misfit if it does not hold any."""
    if record.nested is None or not isinstance(value, Mapping):
        return [value]
    try:
        if found := record.nested(value):
            return found
        raise schema.Misfit("it holds no question")
    except schema.Misfit:
        raise
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:  # a file may hold any JSON
        why = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
        raise schema.Misfit(f"its turns cannot be read ({why})") from error


class _Recorder(dict):
    """Records which fields are read."""

    def __init__(self, values: Mapping[str, Any], read: set[str]) -> None:
        super().__init__(values)
        self._read = read

    def __getitem__(self, name: str) -> Any:
        self._read.add(name)
        return super().__getitem__(name)


@functools.cache
def read_fields(record: catalog.Dataset, features: tfds.features.FeaturesDict) -> frozenset[str]:
    """The top-level fields of the TFDS schema that `fields`, `expand` and `keep` read; found by tracing them."""
    read: set[str] = set()

    def trace(row: Mapping[str, Any]) -> Any:
        recorder = _Recorder(row, read)
        kept = record.keep(recorder) if record.keep else tf.constant(True)
        return record.fields(recorder), record.expand and record.expand(recorder), kept

    spec = tf.data.DatasetSpec(features.get_tensor_spec()).element_spec
    tf.function(trace, autograph=False).get_concrete_function(spec)
    return frozenset(read)
