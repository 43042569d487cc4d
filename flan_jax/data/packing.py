"""Packs examples into rows under two capacities: slots and target slots."""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Iterator

import numpy as np

LEFT_OUT = 0.02  # most draws of a block, as a share, that its rows may leave out

Rows = list[list[int]]


def pack(
    lengths: np.ndarray,
    targets: np.ndarray,
    num_rows: int,
    row_length: int,
    target_length: int,
    rng: np.random.Generator,
) -> Rows:
    """Packs examples into a fixed number of rows.

    Rows take turns, in a random order each round, and each takes one example that fits. So all rows get a similar mix
    of large and small examples. A row takes the largest one. If that leaves examples out, a second packing is tried, in
    which a row takes the example that best balances its remaining slots and target slots. The better packing is used.

    Args:
      lengths: [n] slots of each example.
      targets: [n] target slots of each example.
      num_rows: the number of rows.
      row_length: slots of a row.
      target_length: target slots of a row.
      rng: the generator of the turns.

    Returns:
      The examples of each row. An example that fits in no row is left out.
    """
    if not len(lengths) or not num_rows:
        return [[] for _ in range(num_rows)]
    arguments = (lengths, targets, num_rows, row_length, target_length, rng)
    rows = _largest_first(*arguments)
    if sum(map(len, rows)) == len(lengths):
        return rows
    return max(rows, _evened_out(*arguments), key=lambda rows: sum(int(lengths[row].sum()) for row in rows))


def pack_first(
    lengths: np.ndarray,
    targets: np.ndarray,
    num_rows: int,
    row_length: int,
    target_length: int,
    rng: np.random.Generator,
) -> tuple[int, Rows]:
    """Packs as many of the first examples as the rows have room for.

    `pack` leaves out small examples, and others that are hard to combine. If it left out many, the rows would hold
    another mixture than what was drawn. So the last draws are given up, whatever they are, until all but `LEFT_OUT` of
    the others are packed.

    Args:
      lengths: [n] slots of each example, in the order of the draws.
      targets: [n] target slots of each example.
      num_rows: the number of rows.
      row_length: slots of a row.
      target_length: target slots of a row.
      rng: the generator of the turns.

    Returns:
      How many of the first examples are packed, and the examples of each row.
    """
    # By the tighter capacity, the share of what is left out is about the share of draws to give up.
    by_targets = int(targets.sum()) * row_length > int(lengths.sum()) * target_length
    sizes = targets if by_targets else lengths
    count = len(sizes)
    while True:
        rows = pack(lengths[:count], targets[:count], num_rows, row_length, target_length, rng)
        left_out = count - sum(map(len, rows))
        if left_out <= LEFT_OUT * count:
            return count, rows
        missing = 1 - sum(int(sizes[row].sum()) for row in rows) / int(sizes[:count].sum())
        count -= max(1, math.ceil(missing * count))


class _Pool:
    """Examples of one kind, by size."""

    def __init__(self, members: np.ndarray, sizes: np.ndarray, others: np.ndarray) -> None:
        order = members[np.lexsort((others[members], sizes[members]))]
        self._members = order.tolist()
        self._sizes = sizes[order].tolist()
        self._others = others[order].tolist()

    def largest(self, room: int, other_room: int) -> tuple[int, int]:
        """(size, place) of the largest example that fits; (-1, -1) if none does."""
        at = bisect.bisect_right(self._sizes, room) - 1
        while at >= 0 and self._others[at] > other_room:
            at -= 1
        return (self._sizes[at], at) if at >= 0 else (-1, -1)

    def take(self, place: int) -> tuple[int, int, int]:
        """Removes the example at a place, and returns it with its two sizes."""
        return self._members.pop(place), self._sizes.pop(place), self._others.pop(place)


def _largest_first(
    lengths: np.ndarray,
    targets: np.ndarray,
    num_rows: int,
    row_length: int,
    target_length: int,
    rng: np.random.Generator,
) -> Rows:
    """Packs the largest example that fits, measured in the tighter capacity.

    Examples are of two kinds: those that need more, and those that need less of the other capacity for their size than
    the average of what is left. A row that is short of the other capacity takes one of the second kind.
    """
    sizes, others, capacity, other_capacity = lengths, targets, row_length, target_length
    if int(targets.sum()) * row_length > int(lengths.sum()) * target_length:
        sizes, others, capacity, other_capacity = targets, lengths, target_length, row_length
    left, other_left = int(sizes.sum()), int(others.sum())
    rich = others * left > sizes * other_left
    pools = _Pool(np.flatnonzero(rich), sizes, others), _Pool(np.flatnonzero(~rich), sizes, others)
    room = [capacity] * num_rows
    other_room = [other_capacity] * num_rows
    rows: Rows = [[] for _ in range(num_rows)]
    for row in _turns(rows, rng):
        rich_size, rich_place = pools[0].largest(room[row], other_room[row])
        lean_size, lean_place = pools[1].largest(room[row], other_room[row])
        if rich_size < 0 and lean_size < 0:
            continue
        short = other_room[row] * left < other_left * room[row]
        lean = lean_size >= 0 and (short or lean_size > rich_size)
        taken, size, other = pools[lean].take(lean_place if lean else rich_place)
        rows[row].append(taken)
        room[row] -= size
        other_room[row] -= other
        left -= size
        other_left -= other
    return rows


def _evened_out(
    lengths: np.ndarray,
    targets: np.ndarray,
    num_rows: int,
    row_length: int,
    target_length: int,
    rng: np.random.Generator,
) -> Rows:
    """Packs the example after which the squares of a row's free shares of slots and target slots have the smallest sum.

    Each capacity is weighted by how much of it the examples fill, so that an ample one hardly counts.
    """
    # Examples with the same two lengths are alike, so the choice is among pairs of lengths, each with its stock.
    pairs, kind = np.unique(np.stack([lengths, targets], axis=1), axis=0, return_inverse=True)
    by_kind = np.argsort(kind, kind="stable")
    by_kind, ends = by_kind.tolist(), np.cumsum(np.bincount(kind)).tolist()
    stock = [by_kind[first:end] for first, end in itertools.pairwise([0, *ends])]
    sizes = pairs[:, 0].tolist()  # ascending
    size, target_size = pairs.T.astype(np.float64)
    demand = lengths.sum() / row_length, targets.sum() / target_length
    weight, target_weight = (
        (d / max(demand)) ** 8 / c**2 for d, c in zip(demand, (row_length, target_length), strict=True)
    )
    room = [row_length] * num_rows
    target_room = [target_length] * num_rows
    rows: Rows = [[] for _ in range(num_rows)]
    gone = 0
    for row in _turns(rows, rng):
        if 2 * gone > len(stock):  # fewer to look at
            left = [i for i, members in enumerate(stock) if members]
            stock, sizes = [stock[i] for i in left], [sizes[i] for i in left]
            size, target_size, gone = size[left], target_size[left], 0
        end = bisect.bisect_right(sizes, room[row])
        free, free_target = room[row] - size[:end], target_room[row] - target_size[:end]
        badness = weight * free**2 + target_weight * free_target**2
        badness[free_target < 0] = np.inf
        best = int(badness.argmin()) if end else -1
        if best < 0 or badness[best] == np.inf:
            continue
        rows[row].append(stock[best].pop())
        room[row] -= sizes[best]
        target_room[row] -= int(target_size[best])
        if not stock[best]:
            target_size[best] = np.inf
            gone += 1
    return rows


def _turns(rows: Rows, rng: np.random.Generator) -> Iterator[int]:
    """Row numbers, round after round. A row that took nothing in its turn gets no other."""
    open_rows = np.arange(len(rows))
    while len(open_rows):
        still_open = []
        for row in rng.permutation(open_rows).tolist():
            before = len(rows[row])
            yield row
            if len(rows[row]) > before:
                still_open.append(row)
        open_rows = np.array(still_open, np.int64)
