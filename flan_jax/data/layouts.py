"""Where the tokens of an example lie in a packed row, for a decoder alone and for an encoder-decoder.

Both have two capacities: the row length and the target slots. Both write a batch whose hidden states at T places of
each row predict `targets` [B, T] with `weights`; segments number a row's examples from 1, and 0 is padding.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

Example = tuple[int, np.ndarray, np.ndarray]  # number of its dataset, inputs, targets
Batch = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class DecoderLayout:
    """A segment is [BOS] inputs EOS targets EOS; its targets and the last EOS carry loss.

    Attributes:
      row_length: L, slots of a row.
      target_length: T, target slots of a row, the last EOS of each example included.
      bos_id: begins each segment, where the vocabulary wants it.
      eos_id: stands between input and target, and at the end.
      separators: what stands between input and target instead, by the number of the dataset.
    """

    row_length: int
    target_length: int
    bos_id: int | None
    eos_id: int
    separators: Mapping[int, int] = dataclasses.field(default_factory=dict)

    @property
    def slots(self) -> int:
        """Slots of a row that the model computes."""
        return self.row_length

    def sizes(self, inputs: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What examples of so many input and target tokens take of the two capacities."""
        return inputs + targets + 2 + (self.bos_id is not None), targets + 1

    def filled(self, lengths: np.ndarray, targets: np.ndarray) -> int:
        """How many of a row's `slots` examples of these sizes fill."""
        return int(lengths.sum())

    def batch(self, rows: Sequence[Sequence[Example]]) -> Batch:
        """Tokens, positions and segments [B, L]; target_positions, targets, dataset_ids and weights [B, T].

        `target_positions` are the slots whose hidden state predicts.
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
                count = len(targets) + 1
                first = used + len(tokens) - count
                place = slice(used_targets, used_targets + count)
                out["target_positions"][b, place] = np.arange(first - 1, first - 1 + count)
                out["targets"][b, place] = tokens[-count:]
                out["dataset_ids"][b, place] = dataset
                out["weights"][b, place] = 1.0
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
    """

    row_length: int
    target_length: int
    bos_id: int | None
    eos_id: int

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

    def batch(self, rows: Sequence[Sequence[Example]]) -> Batch:
        """encoder_tokens, encoder_positions and encoder_segments [B, S]; tokens, positions, segments, targets,
        dataset_ids and weights [B, T]. A segment has the same number on both sides.
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
                out["weights"][b, place] = 1.0
                used, used_targets = used + len(tokens), used_targets + count
        return out


def _zeros(rows: int, length: int, *names: str) -> Batch:
    return {name: np.zeros((rows, length), np.float32 if name == "weights" else np.int32) for name in names}


def _write(out: Batch, row: int, start: int, segment: int, tokens: np.ndarray, prefix: str = "") -> None:
    """Writes the tokens, positions and segment number of one segment."""
    place = slice(start, start + len(tokens))
    out[f"{prefix}tokens"][row, place] = tokens
    out[f"{prefix}positions"][row, place] = np.arange(len(tokens))
    out[f"{prefix}segments"][row, place] = segment
