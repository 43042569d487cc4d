"""Where the tokens of an example lie in a packed row, for a decoder and for an encoder-decoder.

Both layouts have two capacities: the row length and the number of target slots. Both write a batch in which hidden
states at T places of each row predict `targets` [B, T] with `weights`. Segments number a row's examples from 1; 0 is
padding.

A weight says how much a target counts in the mean of a step: 1 with "per_token"; 1 / (number of the example's targets)
with "per_example" (T5X's AVERAGE_PER_SEQUENCE), so that all examples count the same. It is multiplied by the weight of
the dataset. It depends only on the example, never on what else is in its row.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence

import numpy as np

from flan_jax.errors import FlanError
from flan_jax.values import LOSS_AVERAGES, PER_EXAMPLE, PER_TOKEN, OneOf, checked

Example = tuple[int, np.ndarray, np.ndarray]  # number of its dataset, inputs, targets
Batch = dict[str, np.ndarray]


def capacities(inputs: int, targets: int, encoder_decoder: bool, on_inputs: bool = False) -> tuple[int, int]:
    """The number of slots and of target slots of a row.

    Args:
      inputs: TASK_FEATURE_LENGTHS.inputs.
      targets: TASK_FEATURE_LENGTHS.targets.
      encoder_decoder: whether rows have an encoder's side with its own length.
      on_inputs: whether inputs have a loss too, so that every slot of a row is a target slot.

    Raises:
      FlanError: a loss on the inputs of an encoder, which predicts nothing.

    Example:
      >>> capacities(1024, 256, encoder_decoder=False), capacities(1024, 256, encoder_decoder=True)
      ((1280, 256), (1024, 256))
    """
    refuse_on_inputs(encoder_decoder, on_inputs)
    if encoder_decoder:
        return inputs, targets
    return inputs + targets, inputs + targets if on_inputs else targets


def refuse_on_inputs(encoder_decoder: bool, on_inputs: bool) -> None:
    """Refuses a loss on the inputs of an encoder.

    Raises:
      FlanError: if both are true.
    """
    if encoder_decoder and on_inputs:
        raise FlanError(
            "LOSS_ON_INPUTS is True, and an encoder-decoder predicts its targets alone: set LOSS_ON_INPUTS=False, or "
            "take a decoder."
        )


@dataclasses.dataclass(frozen=True)
class Members:
    """The examples of some rows, one after another, so that all rows of a batch are written at once.

    Attributes:
      num_rows: B; a row may be empty.
      row: the row of each example, ascending.
      dataset: the number of each example's dataset.
      inputs: the number of each example's input tokens.
      targets: the number of each example's target tokens.
      tokens: all tokens, int32: an example's inputs, its targets, the inputs of the next example, ...
    """

    num_rows: int
    row: np.ndarray
    dataset: np.ndarray
    inputs: np.ndarray
    targets: np.ndarray
    tokens: np.ndarray

    @classmethod
    def of(cls, rows: Sequence[Sequence[Example]]) -> Members:
        """The examples of rows that are lists of examples."""
        examples = list(itertools.chain.from_iterable(rows))
        parts = [np.asarray(part, np.int32) for example in examples for part in example[1:]]
        return cls(
            len(rows),
            np.repeat(np.arange(len(rows)), [len(row) for row in rows]),
            np.array([example[0] for example in examples], np.int64),
            np.array([len(part) for part in parts[::2]], np.int64),
            np.array([len(part) for part in parts[1::2]], np.int64),
            np.concatenate(parts) if parts else np.zeros(0, np.int32),
        )

    @property
    def segments(self) -> np.ndarray:
        """The number of each example in its row, from 1."""
        return np.arange(1, len(self.row) + 1) - np.searchsorted(self.row, self.row)

    def starts(self, lengths: np.ndarray, capacity: int) -> np.ndarray:
        """The first slot of each example in its row, if they take `lengths` slots of a row with `capacity` slots.

        Raises:
          ValueError: the examples of a row do not fit.
        """
        ends = np.cumsum(lengths)
        starts = ends - lengths
        starts -= starts[np.searchsorted(self.row, self.row)]
        if (starts + lengths > capacity).any():
            raise ValueError(f"the examples of a row do not fit its {capacity} slots")
        return starts


@dataclasses.dataclass(frozen=True)
class DecoderLayout:
    """A segment is [BOS] inputs EOS targets EOS. The targets and the last EOS have a loss.

    With `on_inputs`, all tokens of a segment have one, except the first, which nothing predicts.

    Attributes:
      row_length: L, the number of slots of a row.
      target_length: T, the number of target slots of a row, with the last EOS of each example; with `on_inputs` they
        also hold the inputs.
      bos_id: the first token of each segment, or None if the vocabulary has none.
      eos_id: stands between input and target, and at the end.
      averaging: one of `values.LOSS_AVERAGES`.
      on_inputs: whether inputs have a loss too.
      separators: what stands between input and target in place of EOS, by the number of the dataset.
    """

    row_length: int
    target_length: int
    bos_id: int | None
    eos_id: int
    averaging: str = PER_TOKEN
    on_inputs: bool = False
    separators: Mapping[int, int] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        checked("loss_averaging", OneOf(LOSS_AVERAGES), self.averaging)

    @property
    def slots(self) -> int:
        """The number of slots of a row that the model computes."""
        return self.row_length

    def sizes(self, inputs: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """How many slots and target slots examples need that have so many input and target tokens."""
        lengths = inputs + targets + 2 + (self.bos_id is not None)
        return lengths, lengths - 1 if self.on_inputs else targets + 1

    def filled(self, lengths: np.ndarray, targets: np.ndarray) -> int:
        """How many of a row's `slots` are filled by examples of these sizes."""
        return int(lengths.sum())

    def batch(
        self, rows: Sequence[Sequence[Example]] | Members, dataset_weights: Sequence[float] | None = None
    ) -> Batch:
        """Writes rows into arrays.



        Args:
          rows: the examples of each row.  dataset_weights: the weight of each dataset, by number; None for 1 each.

        Returns:
          tokens, positions and segments [B, L]; target_positions, targets, dataset_ids and weights [B, T].
          `target_positions` are the slots whose hidden states predict.
        """
        members = rows if isinstance(rows, Members) else Members.of(rows)
        out = _zeros(members.num_rows, self.row_length, "tokens", "positions", "segments")
        out |= _zeros(members.num_rows, self.target_length, "target_positions", "targets", "dataset_ids", "weights")
        lengths, counts = self.sizes(members.inputs, members.targets)
        starts = members.starts(lengths, self.row_length)
        _write(out, members.row, starts, members.segments, lengths)
        first = members.row * self.row_length + starts  # slots of all rows, one row after another
        begins = first + (self.bos_id is not None)
        between = begins + members.inputs
        tokens = out["tokens"].reshape(-1)
        if self.bos_id is not None:
            tokens[first] = self.bos_id
        tokens[_runs(_alternating(begins, between + 1), _alternating(members.inputs, members.targets))] = members.tokens
        tokens[between] = self._between(members.dataset)
        tokens[first + lengths - 1] = self.eos_id
        places = _write_targets(out, members, counts, self.target_length, self.averaging, dataset_weights)
        slots = _runs(first + lengths - counts, counts)
        out["targets"].reshape(-1)[places] = tokens[slots]
        out["target_positions"].reshape(-1)[places] = slots - 1 - np.repeat(members.row * self.row_length, counts)
        return out

    def _between(self, dataset: np.ndarray) -> np.ndarray | int:
        """What stands between input and target, for examples of these datasets."""
        if not self.separators:
            return self.eos_id
        return np.array([self.separators.get(number, self.eos_id) for number in dataset.tolist()], np.int32)


@dataclasses.dataclass(frozen=True)
class EncoderDecoderLayout:
    """An encoder's segment is [BOS] inputs EOS. The decoder's is 0 targets, which predicts targets EOS (T5).

    Attributes:
      row_length: S, the number of slots of an encoder's row.
      target_length: T, the number of slots of a decoder's row; all of them predict.
      bos_id: the first token of each encoder's segment, or None if the vocabulary has none (like T5's).
      eos_id: ends inputs and targets.
      averaging: one of `values.LOSS_AVERAGES`.
    """

    row_length: int
    target_length: int
    bos_id: int | None
    eos_id: int
    averaging: str = PER_TOKEN

    def __post_init__(self) -> None:
        checked("loss_averaging", OneOf(LOSS_AVERAGES), self.averaging)

    @property
    def slots(self) -> int:
        """The number of slots of a row that the model computes."""
        return self.row_length + self.target_length

    def sizes(self, inputs: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """How many slots and target slots examples need that have so many input and target tokens."""
        return inputs + 1 + (self.bos_id is not None), targets + 1

    def filled(self, lengths: np.ndarray, targets: np.ndarray) -> int:
        """How many of a row's `slots` are filled by examples of these sizes."""
        return int(lengths.sum() + targets.sum())

    def batch(
        self, rows: Sequence[Sequence[Example]] | Members, dataset_weights: Sequence[float] | None = None
    ) -> Batch:
        """Writes rows into arrays. A segment has the same number on both sides.

        Args:
          rows: the examples of each row.
          dataset_weights: the weight of each dataset, by number; None for 1 each.

        Returns:
          encoder_tokens, encoder_positions and encoder_segments [B, S]; tokens, positions, segments, targets,
          dataset_ids and weights [B, T].
        """
        members = rows if isinstance(rows, Members) else Members.of(rows)
        out = _zeros(members.num_rows, self.row_length, "encoder_tokens", "encoder_positions", "encoder_segments")
        names = ("tokens", "positions", "segments", "targets", "dataset_ids", "weights")
        out |= _zeros(members.num_rows, self.target_length, *names)
        lengths, counts = self.sizes(members.inputs, members.targets)
        starts = members.starts(lengths, self.row_length)
        _write(out, members.row, starts, members.segments, lengths, "encoder_")
        is_input = np.repeat(
            np.resize([True, False], 2 * len(members.row)), _alternating(members.inputs, members.targets)
        )
        tokens = out["encoder_tokens"].reshape(-1)
        first = members.row * self.row_length + starts
        begins = first + (self.bos_id is not None)
        if self.bos_id is not None:
            tokens[first] = self.bos_id
        tokens[_runs(begins, members.inputs)] = members.tokens[is_input]
        tokens[first + lengths - 1] = self.eos_id
        starts = members.starts(counts, self.target_length)
        _write(out, members.row, starts, members.segments, counts)
        _write_targets(out, members, counts, self.target_length, self.averaging, dataset_weights)
        of_targets, first = members.tokens[~is_input], members.row * self.target_length + starts
        # After id 0, which comes first everywhere.
        out["tokens"].reshape(-1)[_runs(first + 1, members.targets)] = of_targets
        targets = out["targets"].reshape(-1)
        targets[_runs(first, members.targets)] = of_targets
        targets[first + members.targets] = self.eos_id
        return out


def _zeros(rows: int, length: int, *names: str) -> Batch:
    return {name: np.zeros((rows, length), np.float32 if name == "weights" else np.int32) for name in names}


def _alternating(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """The first of one, the first of the other, the second of one, and so on."""
    return np.stack([one, other], axis=1).reshape(-1)


def _runs(starts: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The numbers of runs, one run after another: `counts[i]` numbers from `starts[i]` on."""
    ends = np.cumsum(counts)
    return np.arange(ends[-1] if len(ends) else 0) + np.repeat(starts - (ends - counts), counts)


def _write(
    out: Batch, row: np.ndarray, starts: np.ndarray, segments: np.ndarray, lengths: np.ndarray, prefix: str = ""
) -> None:
    """Writes positions and segment number of each example into `lengths` slots of its row, from `starts` on."""
    slots = _runs(row * out[f"{prefix}segments"].shape[1] + starts, lengths)
    out[f"{prefix}positions"].reshape(-1)[slots] = _runs(np.zeros_like(starts), lengths)
    out[f"{prefix}segments"].reshape(-1)[slots] = np.repeat(segments, lengths)


def _write_targets(
    out: Batch,
    members: Members,
    counts: np.ndarray,
    target_length: int,
    averaging: str,
    dataset_weights: Sequence[float] | None,
) -> np.ndarray:
    """Writes datasets and weights of each example's `counts` targets; returns their slots, counted over all rows."""
    places = _runs(members.row * target_length + members.starts(counts, target_length), counts)
    ones = np.ones(len(counts), np.float32)
    weight = ones if dataset_weights is None else np.asarray(dataset_weights)[members.dataset]
    out["weights"].reshape(-1)[places] = np.repeat(weight / counts if averaging == PER_EXAMPLE else weight, counts)
    out["dataset_ids"].reshape(-1)[places] = np.repeat(members.dataset, counts)
    return places
