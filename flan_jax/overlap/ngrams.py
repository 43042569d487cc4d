"""An index of n-grams of words with 64-bit keys, and the search for them in running text at NumPy's speed.

Every word of the examples has a number and a random 64-bit value v; all other words have number 0. The key of a window
of m words is v[0] + v[1] B + ... + v[m-1] B^(m-1) modulo 2^64, mixed with m. With P[i] as the sum of v[j] B^j over j <
i, it is (P[i+m] - P[i]) B^-i. So a window costs one subtraction and one product, whatever its length. With 10^8 n-grams
and 10^10 words of text, the chance of any false match is about 1 in 20.
"""

from __future__ import annotations

import functools
import itertools
import pickle
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from flan_jax.content import normalized_words

N = 13  # words of an n-gram (Brown et al. 2020, appendix C)
SHORTEST = 8  # words; a shorter n-gram says little (Brown et al. 2020, appendix C)

_BASE = 0xD1342543DE82EF95  # odd, 5 modulo 8
_GOLDEN = 0x9E3779B97F4A7C15
_MASK = (1 << 64) - 1
_MAX_SLOTS = 1 << 26


def passages(texts: Iterable[str], n: int) -> list[tuple[int, list[str]]]:
    """What is searched for of an example, as (length of the n-grams, words).

    N-grams do not span texts. If no text has n words, the longest text is one n-gram as a whole. If that has fewer than
    8 words, the words of all texts are taken together; if these are fewer than n, they are one n-gram.

    Args:
      texts: the texts of an example.
      n: words of an n-gram.

    Example:
      >>> passages(["one two three", "four"], 2)
      [(2, ['one', 'two', 'three'])]
    """
    found = [words for words in map(normalized_words, texts) if words]
    if long := [words for words in found if len(words) >= n]:
        return [(n, words) for words in long]
    longest = max(found, key=len, default=[])
    if len(longest) >= SHORTEST:
        return [(len(longest), longest)]
    together = list(itertools.chain.from_iterable(found))
    return [(min(n, len(together)), together)] if together else []


@functools.lru_cache(maxsize=2)
def _powers(count: int) -> tuple[np.ndarray, np.ndarray]:
    """(B^0 ... B^(count-1), their inverses), modulo 2^64."""
    both = []
    for base in (_BASE, pow(_BASE, -1, 1 << 64)):
        steps = np.full(count, base, np.uint64)
        steps[0] = 1
        both.append(np.cumprod(steps, dtype=np.uint64))
    return both[0], both[1]


def _windows(
    ids_N: np.ndarray, values_V: np.ndarray, lengths: Iterable[int]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(starts, keys) of the windows without a word of number 0, for each length."""
    count = len(ids_N)
    powers_N, inverse_N = _powers(1 << max(count, 1).bit_length())
    sums = np.zeros(count + 1, np.uint64)
    np.cumsum(values_V[ids_N] * powers_N[:count], dtype=np.uint64, out=sums[1:])
    unknown = np.where(ids_N == 0, np.arange(count), count)
    run_N = np.minimum.accumulate(unknown[::-1])[::-1] - np.arange(count)  # known words from here on
    for length in lengths:
        starts = np.flatnonzero(run_N >= length)
        keys = (sums[starts + length] - sums[starts]) * inverse_N[starts]
        keys ^= np.uint64(length * _GOLDEN & _MASK)
        keys ^= keys >> np.uint64(32)
        yield starts, keys * np.uint64(_GOLDEN)


class NgramIndex:
    """The n-grams of all examples.

    Attributes:
      keys: K distinct 64-bit keys, sorted; an n-gram's number is its place here.
      lengths: the lengths of the n-grams.
    """

    def __init__(self, vocabulary: dict[str, int], values_V: np.ndarray, keys_K: np.ndarray, lengths: tuple[int, ...]):
        self._vocabulary, self._values_V, self.keys, self.lengths = vocabulary, values_V, keys_K, lengths
        bits = max(10, min(_MAX_SLOTS, 16 * max(len(keys_K), 1)).bit_length() - 1)
        self._shift = np.uint64(64 - bits)
        self._slots = np.zeros(1 << bits, bool)  # most windows are ruled out by this table
        self._slots[keys_K >> self._shift] = True

    @classmethod
    def build(cls, batches: Iterable[Iterable[tuple[int, Sequence[str]]]]) -> NgramIndex:
        """Indexes passages.

        Args:
          batches: (length of the n-grams, words) from `passages`; one batch is in memory at a time.
        """
        vocabulary: dict[str, int] = {}
        values_V = np.zeros(1, np.uint64)
        rng = np.random.default_rng(0)
        lengths: set[int] = set()
        keys = np.empty(0, np.uint64)
        for batch in batches:
            ids: dict[int, list[int]] = {}
            for length, words in batch:
                row = ids.setdefault(length, [])
                row.extend(vocabulary.setdefault(word, len(vocabulary) + 1) for word in words)
                row.append(0)  # no n-gram spans two passages
            more = rng.integers(0, 1 << 64, len(vocabulary) + 1 - len(values_V), np.uint64, endpoint=False)
            values_V = np.concatenate([values_V, more])
            found = [keys]
            for length, row in ids.items():
                found += [k for _, k in _windows(np.asarray(row, np.int64), values_V, (length,))]
            keys = np.unique(np.concatenate(found))
            lengths |= set(ids)
        return cls(vocabulary, values_V, keys, tuple(sorted(lengths)))

    def find(self, words: Sequence[str], lengths: Sequence[int] | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Where n-grams of the index are in a text.

        Args:
          words: normalized words; an empty string is a border that no n-gram spans.
          lengths: the lengths of n-grams to search for; None for all.

        Returns:
          (starts, numbers of the n-grams), by length, then by start.
        """
        get = self._vocabulary.get
        ids_N = np.fromiter(map(get, words, itertools.repeat(0)), np.int64, len(words))
        starts, numbers = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
        for at, keys in _windows(ids_N, self._values_V, self.lengths if lengths is None else lengths):
            likely = np.flatnonzero(self._slots[keys >> self._shift])
            places = np.searchsorted(self.keys, keys[likely])
            places[places == len(self.keys)] = 0
            exact = self.keys[places] == keys[likely] if len(self.keys) else np.zeros(0, bool)
            starts.append(at[likely][exact])
            numbers.append(places[exact])
        return np.concatenate(starts), np.concatenate(numbers)

    def save(self, folder: Path) -> None:
        """Writes the index for other processes, which share its arrays."""
        np.save(folder / "keys.npy", self.keys)
        (folder / "rest.pickle").write_bytes(pickle.dumps((self._vocabulary, self._values_V, self.lengths)))

    @classmethod
    def load(cls, folder: Path) -> NgramIndex:
        """Opens an index that `save` wrote."""
        vocabulary, values_V, lengths = pickle.loads((folder / "rest.pickle").read_bytes())
        return cls(vocabulary, values_V, np.load(folder / "keys.npy", mmap_mode="r"), lengths)
