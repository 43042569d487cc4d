"""Packed rows of a prepared mixture, decoded to text."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from flan_jax import parts
from flan_jax.data import mixtures, vocabularies
from flan_jax.data.mixture_stream import LENGTHS, open_mixture
from flan_jax.data.prepare_datasets import num_workers, prepare_datasets
from flan_jax.data.stream import Stream
from flan_jax.errors import FlanError
from flan_jax.files import AnyPath, home
from flan_jax.lazy import lazy_imports

with lazy_imports():  # looking at the catalog needs no TensorFlow
    from flan_jax.data import preparation, sources


@dataclasses.dataclass(frozen=True)
class RowSegment:
    """One example in a row: what it is, its place, and its text."""

    part: str
    dataset: str
    template: int
    record: int
    start: int
    tokens: int
    target_tokens: int
    inputs: str
    targets: str


@dataclasses.dataclass(frozen=True)
class Row:
    """A packed row.

    Attributes:
      step: the step of the stream.
      number: the row's number in the step.
      segments: its examples in order.
      length: number of its slots; `filled` of them hold tokens.
      target_length: number of its target slots; `target_filled` of them have a loss.
    """

    step: int
    number: int
    segments: tuple[RowSegment, ...]
    length: int
    filled: int
    target_length: int
    target_filled: int

    def to_dict(self) -> dict[str, Any]:
        """The row as values that JSON can hold."""
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A prepared mixture: its stream, its composition and its vocabulary."""

    stream: Stream
    composition: mixtures.Composition
    tokenizer: vocabularies.Tokenizer

    def row(self, number: int) -> Row:
        """Row `number` of the stream, counted over its steps.

        Raises:
          FlanError: a negative number.
        """
        if number < 0:
            raise FlanError(f"rows are numbered from 0; there is no row {number}.")
        step, in_step = divmod(number, self.stream.rows_per_batch)
        segments = []
        for segment in self.stream.segments(step, in_step):
            inputs, targets = self.stream.tokens(segment)
            segments.append(
                RowSegment(
                    segment.part,
                    segment.dataset,
                    segment.template,
                    segment.record,
                    segment.start,
                    segment.length,
                    len(targets) + 1,
                    self.tokenizer.decode(inputs.tolist()),
                    self.tokenizer.decode(targets.tolist()),
                )
            )
        filled, target_filled = sum(s.tokens for s in segments), sum(s.target_tokens for s in segments)
        return Row(
            step,
            in_step,
            tuple(segments),
            self.stream.row_length,
            filled,
            self.stream.target_length,
            target_filled,
        )


def open_prepared(mixture: str, prepared_dir: str | AnyPath, vocabulary: str = "bytes", seed: int = 0) -> Prepared:
    """Opens a mixture that `flan_jax.prepare` prepared.

    Args:
      mixture: see `parts.of`.
      prepared_dir: PREPARED_DIR.
      vocabulary: see `vocabularies.load`.
      seed: the seed of the stream.

    Raises:
      FlanError: nothing was prepared for it there.
    """
    tokenizer = vocabularies.load(vocabulary)
    composition, stream = open_mixture(mixture, prepared_dir, tokenizer, seed=seed)
    return Prepared(stream, composition, tokenizer)


def prepared_samples(mixture: str) -> Path:
    """Prepares the bundled samples of a mixture with the byte vocabulary, once, and returns PREPARED_DIR."""
    folder = home() / "inspection"
    wanted = parts.of(mixture)
    options = preparation.Options(0, LENGTHS["inputs"], LENGTHS["targets"])
    workers = num_workers(0, len(wanted.datasets))
    prepare_datasets(
        wanted.datasets,
        sources.SAMPLES,
        vocabularies.ByteTokenizer(),
        folder,
        options,
        workers=workers,
        styles={record.name: wanted.styles_of(record.name) for record in wanted.datasets},
    )
    return folder
