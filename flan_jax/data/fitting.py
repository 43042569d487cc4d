"""Which examples of a dataset fit a row (one bit each), and the order of an epoch, which needs no memory if it is long.

A dataset may have hundreds of millions of examples. Nothing here takes memory for each of them, except those bits.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

_BLOCK = 512  # bits that are counted together
SHORT = 1 << 17  # an epoch of at most so many examples is shuffled as a whole
_ROUNDS = 8


class Fitting:
    """The examples of a dataset that fit a row, by rendering.

    Attributes:
      counts: how many examples of each rendering fit; a rendering without any is left out.
      excluded: how many do not fit.
      lengths: the sum of the slots of all chosen examples.
      targets: the sum of their target slots.
      examples: the number of chosen examples.
    """

    def __init__(
        self,
        chunks: Iterable[np.ndarray],
        sizes: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]],
        row_length: int,
        target_length: int,
        chosen: np.ndarray | None = None,
    ) -> None:
        """Finds the examples that fit.

        Args:
          chunks: the index in its order, see `token_store.INDEX`.
          sizes: maps input and target tokens of examples to the slots that they take, see `layouts`.
          row_length: slots of a row.
          target_length: target slots of a row.
          chosen: whether each record is drawn from, bool [records]; None draws from all.
        """
        bits, rest, starts = [], np.zeros(0, bool), [0]
        self.examples = self.lengths = self.targets = 0
        last, place = -1, 0
        for entries in chunks:
            lengths, targets = sizes_of(entries, sizes)
            drawn = np.ones(len(entries), bool) if chosen is None else chosen[entries["record"]]
            self.lengths += int(lengths[drawn].sum())
            self.targets += int(targets[drawn].sum())
            self.examples += int(drawn.sum())
            # Records ascend within a rendering, so a new rendering begins where they fall.
            records = np.concatenate([[last], entries["record"].astype(np.int64)])
            starts += (place + np.flatnonzero(np.diff(records) <= 0)).tolist()
            last = int(records[-1])
            fits = np.concatenate([rest, drawn & (lengths <= row_length) & (targets <= target_length)])
            whole = len(fits) - len(fits) % _BLOCK
            bits.append(np.packbits(fits[:whole]))
            rest = fits[whole:]
            place += len(entries)
        bits.append(np.packbits(np.concatenate([rest, np.zeros(-len(rest) % _BLOCK, bool)])))
        self._bits = np.concatenate(bits).reshape(-1, _BLOCK // 8)
        self._before = np.concatenate([[0], np.cumsum(np.bitwise_count(self._bits).sum(axis=1, dtype=np.int64))])
        found = int(self._before[-1])
        self.excluded = self.examples - found
        self._all = found == place
        bounds = [self._rank(one) for one in [*starts, place]]
        self._first = [first for first, end in itertools.pairwise(bounds) if first < end]
        self.counts = [end - first for first, end in itertools.pairwise(bounds) if first < end]

    def _rank(self, place: int) -> int:
        """How many examples before a place fit."""
        block, within = divmod(place, _BLOCK)
        inside = np.unpackbits(self._bits[block])[:within].sum() if within else 0
        return int(self._before[block] + inside)

    def numbers(self, rendering: int, ranks: np.ndarray) -> np.ndarray:
        """The example numbers, int64, of the fitting examples with these ranks (from 0) in a rendering."""
        ranks = ranks + self._first[rendering]
        if self._all:
            return ranks
        block = np.searchsorted(self._before, ranks, side="right") - 1
        bits = self._bits[block]
        ranks = (ranks - self._before[block])[:, None]
        counts = np.bitwise_count(bits)
        upto = np.cumsum(counts, axis=1, dtype=np.int16)
        byte = np.argmax(upto > ranks, axis=1)[:, None]  # the first byte that reaches the rank
        ranks -= np.take_along_axis(upto - counts, byte, 1)
        upto = np.cumsum(np.unpackbits(np.take_along_axis(bits, byte, 1), axis=1), axis=1)
        return block * _BLOCK + 8 * byte[:, 0] + np.argmax(upto > ranks, axis=1)


def sizes_of(
    entries: np.ndarray, sizes: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
) -> tuple[np.ndarray, np.ndarray]:
    """The slots and target slots of the examples of index entries, int64."""
    return sizes(*(entries[name].astype(np.int64) for name in ("input_length", "target_length")))


def shuffled(rng: np.random.Generator, size: int) -> Any:
    """The numbers from 0 to size - 1 in a random order, to be sliced.

    A long order is only computed where it is sliced.
    """
    return rng.permutation(size) if size <= SHORT else Order(rng, size)


class Order:
    """A random order of 0 to size - 1 that only computes what is asked for: a Feistel network over pairs of halves.

    A number is (left, right) in base `side`. Each round adds a hash of one half to the other. That can be undone, so no
    two numbers become the same. A result outside the range goes through once more.
    """

    def __init__(self, rng: np.random.Generator, size: int) -> None:
        self._size = size
        self._side = np.uint64(int(np.ceil(np.sqrt(size))))
        self._keys = rng.integers(0, 1 << 64, _ROUNDS, np.uint64)

    def __getitem__(self, places: slice) -> np.ndarray:
        """The numbers at these places, int64."""
        found = np.arange(*places.indices(self._size), dtype=np.uint64)
        waiting = np.arange(len(found))
        while len(waiting):
            found[waiting] = self._once(found[waiting])
            waiting = waiting[found[waiting] >= self._size]
        return found.astype(np.int64)

    def _once(self, numbers: np.ndarray) -> np.ndarray:
        left, right = np.divmod(numbers, self._side)
        for key in self._keys:
            left, right = right, (left + _mixed(right + key) % self._side) % self._side
        return left * self._side + right


def _mixed(x: np.ndarray) -> np.ndarray:
    """A 64-bit hash: the finalizer of MurmurHash3."""
    x = (x ^ (x >> np.uint64(33))) * np.uint64(0xFF51AFD7ED558CCD)
    x = (x ^ (x >> np.uint64(33))) * np.uint64(0xC4CEB9FE1A85EC53)
    return x ^ (x >> np.uint64(33))
