"""Where the tokens of an example lie in a packed row, for a decoder alone and for an encoder-decoder.

Both have two capacities: the row length and the target slots. Both write a batch whose hidden states at T places of
each row predict `targets` [B, T] with `weights`; segments number a row's examples from 1, and 0 is padding.

A weight is how much a target counts in the mean that a step takes: 1 ("per_token"), or 1 / (targets of its example)
("per_example", T5X's AVERAGE_PER_SEQUENCE), so that each example counts as much as any other; times what its dataset
weighs. It depends on the example alone, never on what shares its row.
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
    """Slots and target slots of a row.

    Args:
      inputs: TASK_FEATURE_LENGTHS.inputs.
      targets: TASK_FEATURE_LENGTHS.targets.
      encoder_decoder: whether rows have an encoder's side, which has its own length.
      on_inputs: inputs carry loss too, so every slot of a row is a target slot.

    Raises:
      FlanError: loss on the inputs of an encoder, which predicts nothing.
    """
    refuse_on_inputs(encoder_decoder, on_inputs)
    if encoder_decoder:
        return inputs, targets
    return inputs + targets, inputs + targets if on_inputs else targets


def refuse_on_inputs(encoder_decoder: bool, on_inputs: bool) -> None:
    """Refuses loss on the inputs of an encoder.

    Raises:
      FlanError: both.
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
      num_rows: B; a row may have none.
      row: the row of each example, ascending.
      dataset: the number of each example's dataset.
      inputs: how many input tokens each has.
      targets: how many target tokens each has.
      tokens: of all of them, int32: the inputs of an example, its targets, the inputs of the next, ...
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
        """The first slot of each example in its row, where they take so many slots of a row that has `capacity`.

        Raises:
          ValueError: a row has no room for its examples.
        """
        ends = np.cumsum(lengths)
        starts = ends - lengths
        starts -= starts[np.searchsorted(self.row, self.row)]
        if (starts + lengths > capacity).any():
            raise ValueError(f"the examples of a row do not fit its {capacity} slots")
        return starts


@dataclasses.dataclass(frozen=True)
class DecoderLayout:
    """A segment is [BOS] inputs EOS targets EOS; its targets and the last EOS carry loss.

    With `on_inputs` all of a segment but its first token does, which nothing stands before.

    Attributes:
      row_length: L, slots of a row.
      target_length: T, target slots of a row, the last EOS of each example included; with `on_inputs` they hold the
        inputs too.
      bos_id: begins each segment, where the vocabulary wants it.
      eos_id: stands between input and target, and at the end.
      averaging: one of `values.LOSS_AVERAGES`.
      on_inputs: whether inputs carry loss too.
      separators: what stands between input and target instead, by the number of the dataset.
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
        """Slots of a row that the model computes."""
        return self.row_length

    def sizes(self, inputs: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What examples of so many input and target tokens take of the two capacities."""
        lengths = inputs + targets + 2 + (self.bos_id is not None)
        return lengths, lengths - 1 if self.on_inputs else targets + 1

    def filled(self, lengths: np.ndarray, targets: np.ndarray) -> int:
        """How many of a row's `slots` examples of these sizes fill."""
        return int(lengths.sum())

    def batch(
        self, rows: Sequence[Sequence[Example]] | Members, dataset_weights: Sequence[float] | None = None
    ) -> Batch:
        """Tokens, positions and segments [B, L]; target_positions, targets, dataset_ids and weights [B, T].

        `target_positions` are the slots whose hidden state predicts.

        Args:
          rows: the examples of each row.
          dataset_weights: what each dataset weighs, by number; None for 1 each.
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
        """What stands between input and target of examples of these datasets."""
        if not self.separators:
            return self.eos_id
        return np.array([self.separators.get(number, self.eos_id) for number in dataset.tolist()], np.int32)


@dataclasses.dataclass(frozen=True)
class EncoderDecoderLayout:
    """An encoder's segment is [BOS] inputs EOS; the decoder's is 0 targets, which predicts targets EOS (T5).

    Attributes:
      row_length: S, slots of an encoder's row.
      target_length: T, slots of a decoder's row, all of which predict.
      bos_id: begins each of the encoder's segments, where the vocabulary wants it (T5's does not).
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
        """Slots of a row that the model computes."""
        return self.row_length + self.target_length

    def sizes(self, inputs: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What examples of so many input and target tokens take of the two capacities."""
        return inputs + 1 + (self.bos_id is not None), targets + 1

    def filled(self, lengths: np.ndarray, targets: np.ndarray) -> int:
        """How many of a row's `slots` examples of these sizes fill."""
        return int(lengths.sum() + targets.sum())

    def batch(
        self, rows: Sequence[Sequence[Example]] | Members, dataset_weights: Sequence[float] | None = None
    ) -> Batch:
        """encoder_tokens, encoder_positions and encoder_segments [B, S]; tokens, positions, segments, targets,
        dataset_ids and weights [B, T]. A segment has the same number on both sides.

        Args:
          rows: the examples of each row.
          dataset_weights: what each dataset weighs, by number; None for 1 each.
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
        out["tokens"].reshape(-1)[_runs(first + 1, members.targets)] = of_targets  # behind id 0, which starts all
        targets = out["targets"].reshape(-1)
        targets[_runs(first, members.targets)] = of_targets
        targets[first + members.targets] = self.eos_id
        return out


def _zeros(rows: int, length: int, *names: str) -> Batch:
    return {name: np.zeros((rows, length), np.float32 if name == "weights" else np.int32) for name in names}


def _alternating(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """The first of one, the first of the other, the second of one, ..."""
    return np.stack([one, other], axis=1).reshape(-1)


def _runs(starts: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The numbers of runs, one run after another: `counts[i]` numbers from `starts[i]` on."""
    ends = np.cumsum(counts)
    return np.arange(ends[-1] if len(ends) else 0) + np.repeat(starts - (ends - counts), counts)


def _write(
    out: Batch, row: np.ndarray, starts: np.ndarray, segments: np.ndarray, lengths: np.ndarray, prefix: str = ""
) -> None:
    """Writes the positions and the segment number of each example: so many slots of its row from a first one on."""
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
    """Writes datasets and weights of each example's `counts` targets; returns their target slots, of all rows."""
    places = _runs(members.row * target_length + members.starts(counts, target_length), counts)
    ones = np.ones(len(counts), np.float32)
    weight = ones if dataset_weights is None else np.asarray(dataset_weights)[members.dataset]
    out["weights"].reshape(-1)[places] = np.repeat(weight / counts if averaging == PER_EXAMPLE else weight, counts)
    out["dataset_ids"].reshape(-1)[places] = np.repeat(members.dataset, counts)
    return places
