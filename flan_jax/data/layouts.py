"""Where the tokens of an example lie in a packed row, for a decoder alone and for an encoder-decoder.

Both have two capacities: the row length and the target slots. Both write a batch whose hidden states at T places of
each row predict `targets` [B, T] with `weights`; segments number a row's examples from 1, and 0 is padding.

A weight is how much a target counts in the mean that a step takes: 1 ("per_token"), or 1 / (targets of its example)
("per_example", T5X's AVERAGE_PER_SEQUENCE), so that each example counts as much as any other; times what its dataset
weighs. It depends on the example alone, never on what shares its row.
"""

from __future__ import annotations

import dataclasses
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

    def batch(self, rows: Sequence[Sequence[Example]], dataset_weights: Sequence[float] | None = None) -> Batch:
        """Tokens, positions and segments [B, L]; target_positions, targets, dataset_ids and weights [B, T].

        `target_positions` are the slots whose hidden state predicts.

        Args:
          rows: the examples of each row.
          dataset_weights: what each dataset weighs, by number; None for 1 each.
        """
        out = _zeros(len(rows), self.row_length, "tokens", "positions", "segments")
        out |= _zeros(len(rows), self.target_length, "target_positions", "targets", "dataset_ids", "weights")
        start = [] if self.bos_id is None else [self.bos_id]
        for b, row in enumerate(rows):
            used = used_targets = 0
            for segment, (dataset, inputs, targets) in enumerate(row, 1):
                between = [self.separators.get(dataset, self.eos_id)]
                tokens = np.concatenate([start, inputs, between, targets, [self.eos_id]]).astype(np.int32)
                _write(out, b, used, segment, tokens)
                count = len(tokens) - 1 if self.on_inputs else len(targets) + 1
                first = used + len(tokens) - count
                place = slice(used_targets, used_targets + count)
                out["target_positions"][b, place] = np.arange(first - 1, first - 1 + count)
                out["targets"][b, place] = tokens[-count:]
                out["dataset_ids"][b, place] = dataset
                out["weights"][b, place] = _weight(self.averaging, count, dataset, dataset_weights)
                used, used_targets = used + len(tokens), used_targets + count
        return out


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

    def batch(self, rows: Sequence[Sequence[Example]], dataset_weights: Sequence[float] | None = None) -> Batch:
        """encoder_tokens, encoder_positions and encoder_segments [B, S]; tokens, positions, segments, targets,
        dataset_ids and weights [B, T]. A segment has the same number on both sides.

        Args:
          rows: the examples of each row.
          dataset_weights: what each dataset weighs, by number; None for 1 each.
        """
        out = _zeros(len(rows), self.row_length, "encoder_tokens", "encoder_positions", "encoder_segments")
        names = ("tokens", "positions", "segments", "targets", "dataset_ids", "weights")
        out |= _zeros(len(rows), self.target_length, *names)
        start = [] if self.bos_id is None else [self.bos_id]
        for b, row in enumerate(rows):
            used = used_targets = 0
            for segment, (dataset, inputs, targets) in enumerate(row, 1):
                tokens = np.concatenate([start, inputs, [self.eos_id]]).astype(np.int32)
                _write(out, b, used, segment, tokens, "encoder_")
                count = len(targets) + 1
                _write(out, b, used_targets, segment, np.concatenate([[0], targets]).astype(np.int32))
                place = slice(used_targets, used_targets + count)
                out["targets"][b, place] = np.concatenate([targets, [self.eos_id]])
                out["dataset_ids"][b, place] = dataset
                out["weights"][b, place] = _weight(self.averaging, count, dataset, dataset_weights)
                used, used_targets = used + len(tokens), used_targets + count
        return out


def _weight(averaging: str, count: int, dataset: int, dataset_weights: Sequence[float] | None) -> float:
    """What each of an example's `count` targets weighs."""
    weight = 1.0 if dataset_weights is None else dataset_weights[dataset]
    return weight / count if averaging == PER_EXAMPLE else weight


def _zeros(rows: int, length: int, *names: str) -> Batch:
    return {name: np.zeros((rows, length), np.float32 if name == "weights" else np.int32) for name in names}


def _write(out: Batch, row: int, start: int, segment: int, tokens: np.ndarray, prefix: str = "") -> None:
    """Writes the tokens, positions and segment number of one segment."""
    place = slice(start, start + len(tokens))
    out[f"{prefix}tokens"][row, place] = tokens
    out[f"{prefix}positions"][row, place] = np.arange(len(tokens))
    out[f"{prefix}segments"][row, place] = segment
