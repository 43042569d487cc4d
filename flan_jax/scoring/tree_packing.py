"""Packs trees into rows of a few lengths, and writes rows into arrays of fixed shapes."""

from __future__ import annotations

import bisect
import collections
import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from flan_jax.scoring.trees import Tree

_TRUNK_SHARE = 16  # if rows are long enough, a repeated trunk takes at most one of so many slots
FAN_OUT = 4  # tokens that are read at one prediction; the end of a trunk predicts the first token of every option


@dataclasses.dataclass(frozen=True)
class Piece:
    """A tree, or as many of its branches as fit in a row.

    Attributes:
      tree: the tree's number.
      branches: the numbers of its branches.
      size: slots that it needs.
    """

    tree: int
    branches: tuple[int, ...]
    size: int


@dataclasses.dataclass
class Row:
    """Pieces that share a row."""

    length: int
    free: int
    pieces: list[Piece]


def pieces_of(number: int, tree: Tree, lengths: Sequence[int]) -> list[Piece]:
    """Cuts a tree that is longer than a row into pieces, each with the whole trunk.

    A branch's last token is predicted but never read, so it needs no slot.

    Args:
      number: the tree's number.
      tree: the tree.
      lengths: the row lengths, ascending. Pieces are cut for the first length in which a repeated trunk is a small
        part, because longer rows cost more attention.
    """
    depth = len(tree.trunk)
    wanted = max(tree.longest, _TRUNK_SHARE * depth)
    capacity = lengths[min(bisect.bisect_left(lengths, wanted), len(lengths) - 1)]
    pieces: list[Piece] = []
    branches: list[int] = []
    slots = 0

    def size(count: int, slots: int) -> int:
        # The trunk's end predicts the first tokens, FAN_OUT at a time. A row has no more predictions than slots.
        return max(depth, -(-count // FAN_OUT)) + slots

    for k, branch in enumerate(tree.branches):
        if branches and size(len(branches) + 1, slots + len(branch) - 1) > capacity:
            pieces.append(Piece(number, tuple(branches), size(len(branches), slots)))
            branches, slots = [], 0
        branches.append(k)
        slots += len(branch) - 1
    return [*pieces, Piece(number, tuple(branches), size(len(branches), slots))] if branches else pieces


def pack(pieces: Sequence[Piece], lengths: Sequence[int]) -> list[Row]:
    """Packs by best-fit decreasing: the largest piece first, into the fullest row with room, or else into a new row.

    Args:
      pieces: the pieces. The result depends only on their sizes and order.
      lengths: the row lengths, ascending. A new row has the first that is long enough.
    """
    rows: list[Row] = []
    by_free: list[tuple[int, int]] = []  # (free slots, number of the row), ascending
    for piece in sorted(pieces, key=lambda piece: -piece.size):
        at = bisect.bisect_left(by_free, (piece.size, -1))
        if at < len(by_free):
            _, number = by_free.pop(at)
        else:
            number = len(rows)
            length = lengths[bisect.bisect_left(lengths, piece.size)]
            rows.append(Row(length, length, []))
        row = rows[number]
        row.pieces.append(piece)
        row.free -= piece.size
        bisect.insort(by_free, (row.free, number))
    return rows


def cheapest_packing(
    pieces: Sequence[Piece],
    lengths: Sequence[int],
    rows_per_batch: Mapping[int, int],
    cost_per_slot: Callable[[int], float],
) -> list[Row]:
    """Tries each row length as the shortest allowed one, and keeps the cheapest packing.

    Longer rows leave fewer slots empty, but their attention costs more, and the last batch is padded with empty rows. A
    packed row may fit a shorter length. That saves slots, unless it adds a batch of few rows; so shortened rows are
    tried too.

    Args:
      pieces: the pieces.
      lengths: the row lengths, ascending.
      rows_per_batch: rows of a batch, by row length.
      cost_per_slot: the relative cost of a slot in rows of a given length.
    """

    def cost(rows: list[Row]) -> float:
        counts = collections.Counter(row.length for row in rows)
        batches = {length: -(-count // rows_per_batch[length]) for length, count in counts.items()}
        return sum(n * rows_per_batch[length] * length * cost_per_slot(length) for length, n in batches.items())

    packings = [pack(pieces, lengths[shortest:]) for shortest in range(len(lengths))]
    return min(packings + [shortened(rows, lengths) for rows in packings], key=cost)


def shortened(rows: Sequence[Row], lengths: Sequence[int]) -> list[Row]:
    """The same rows, each with the shortest of the lengths (ascending) that holds it."""
    used = [row.length - row.free for row in rows]
    fitting = [lengths[bisect.bisect_left(lengths, size)] for size in used]
    return [Row(length, length - size, row.pieces) for row, length, size in zip(rows, fitting, used, strict=True)]


@dataclasses.dataclass(frozen=True)
class TreeBatch:
    """The arrays of one forward pass: B rows of L slots on S shards, with P predictions for each shard.

    Attributes:
      arrays: tokens, positions, segments and branches, each [B, L]; predictors [S, P], the slots among the shard's rows
        whose hidden state predicts; targets [S, P, FAN_OUT], the tokens that are predicted there, -1 for none.
      predictions: how many of the P are used on the fullest shard.
      index: flat places in [S, P, FAN_OUT] that hold a score.
      option: for each of these, the number of its option among all trees.
    """

    arrays: dict[str, np.ndarray]
    predictions: int
    index: np.ndarray
    option: np.ndarray


def shapes(num_rows: int, length: int, shards: int, chunk: int) -> dict[str, tuple[int, ...]]:
    """The shapes of `TreeBatch.arrays`. P is rounded up to whole chunks."""
    # `pieces_of` makes sure that there are no more predictions than slots.
    places = -(-num_rows // shards * length // chunk) * chunk
    rows = {name: (num_rows, length) for name in ("tokens", "positions", "segments", "branches")}
    return rows | {"predictors": (shards, places), "targets": (shards, places, FAN_OUT)}


def assemble(
    rows: Sequence[Row],
    trees: Sequence[Tree],
    first_option: Sequence[int] | np.ndarray,
    array_shapes: Mapping[str, tuple[int, ...]],
) -> TreeBatch:
    """Writes rows into arrays.

    Args:
      rows: at most B rows with the length of `array_shapes`.
      trees: all trees.
      first_option: for each tree, the number of its first option.
      array_shapes: see `shapes`.
    """
    arrays = {name: np.zeros(shape, np.int32) for name, shape in array_shapes.items()}
    arrays["targets"].fill(-1)
    num_rows, length = array_shapes["tokens"]
    shards, places, _ = array_shapes["targets"]
    rows_per_shard = num_rows // shards
    used = [0] * shards
    # Lists that are written at once at the end. An array takes as long for one number as for a hundred.
    taken: list[int] = []  # flat places in [S, P] that predict; their slots are in `slots`
    slots_of: list[int] = []
    index: list[int] = []
    targets: list[int] = []
    option: list[int] = []

    def take(shard: int, slots: Sequence[int]) -> int:
        """Takes a place for each slot of the shard; returns the first, flat, after which the others stand."""
        first = shard * places + used[shard]
        used[shard] += len(slots)
        taken.extend(range(first, first + len(slots)))
        slots_of.extend(slots)
        return first

    for b, row in enumerate(rows):
        shard, base = b // rows_per_shard, b % rows_per_shard * length
        start = 0
        for segment, piece in enumerate(row.pieces, 1):
            tree = trees[piece.tree]
            depth, before = len(tree.trunk), len(tree.prefix)
            tokens, positions, branches = list(tree.trunk), list(range(before, before + depth)), [0] * depth
            firsts = []
            for k in piece.branches:
                branch, unscored, number = tree.branches[k], tree.unscored[k], first_option[piece.tree] + k
                at = start + len(tokens)
                if unscored == 0:
                    firsts.append((branch[0], number))
                scored = branch[max(unscored, 1) :]
                end = base + at + len(branch) - 1
                first = take(shard, range(end - len(scored), end))
                index.extend(range(first * FAN_OUT, (first + len(scored)) * FAN_OUT, FAN_OUT))
                targets.extend(scored)
                option.extend([number] * len(scored))
                slots = len(branch) - 1
                tokens += branch[:slots]
                positions += range(before + depth, before + depth + slots)
                branches += [k + 1] * slots
            for j in range(0, len(firsts), FAN_OUT):
                some = firsts[j : j + FAN_OUT]
                first = take(shard, [base + start + depth - 1])
                index.extend(range(first * FAN_OUT, first * FAN_OUT + len(some)))
                targets.extend(token for token, _ in some)
                option.extend(number for _, number in some)
            stop = start + len(tokens)
            arrays["tokens"][b, start:stop] = tokens
            arrays["positions"][b, start:stop] = positions
            arrays["branches"][b, start:stop] = branches
            arrays["segments"][b, start:stop] = segment
            start = stop
    arrays["predictors"].reshape(-1)[taken] = slots_of
    arrays["targets"].reshape(-1)[index] = targets
    return TreeBatch(arrays, max(used), np.array(index, np.int64), np.array(option, np.int64))
