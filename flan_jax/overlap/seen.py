"""Finds records of evaluation sets in other text: as a whole record, as a whole text, or by an n-gram.

The evaluated records are indexed in memory (about 20 bytes for each of their n-grams). The other text is read once.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from flan_jax import content
from flan_jax.overlap.ngrams import SHORTEST, NgramIndex

COMMON = 1000  # a text that more records than this have is part of their wording, and shows nothing
_AT_ONCE = 2000  # records whose words are in memory

_EVIDENCE, _MEMBER = 1, 2  # a text that is evidence by itself; a text that an identical record must have

WAYS = ("identical", "text", "ngram")


@dataclasses.dataclass(frozen=True)
class Record:
    """A record of an evaluation set.

    Attributes:
      hash: the hash of its content.
      texts: what a prompt shows of it, without its answer.
      listed: texts in lists, such as options, which many records may share.
      passed_over: names of entries with texts that are not searched for, because a prompt does not show them.
    """

    hash: str
    texts: tuple[str, ...]
    listed: tuple[str, ...] = ()
    passed_over: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Evaluated:
    """An evaluation set.

    Attributes:
      name: its name in tables.
      records: opens its records; they are read twice.
    """

    name: str
    records: Callable[[], Iterable[Record]]


@dataclasses.dataclass(frozen=True)
class Found:
    """What was found of R records, one flag each.

    Attributes:
      identical: all that the record shows is in one record of the other text, or the contents are equal.
      text: one of its texts is there as a whole.
      ngram: an n-gram of one of its texts is there.
    """

    identical: np.ndarray
    text: np.ndarray
    ngram: np.ndarray

    @property
    def seen(self) -> np.ndarray:
        """Whether each record was found in any way."""
        return self.identical | self.text | self.ngram

    def __or__(self, other: Found) -> Found:
        return Found(*(getattr(self, way) | getattr(other, way) for way in WAYS))

    def part(self, where: slice) -> Found:
        """The flags of some records."""
        return Found(*(getattr(self, way)[where] for way in WAYS))


def too_little(tiny: int, records: int) -> str:
    """Why a set with so many tiny records cannot be called clean; empty if it can."""
    return (
        f"most records show under {content.FEWEST} words, which only the same record matches"
        if 2 * tiny > records
        else ""
    )


class Finder:
    """The records that are searched for.

    Attributes:
      n: words of an n-gram.
      places: for each set, the slice of its records among all.
      short: whether no text of the record has n words. Then no n-gram can find it, and its texts are compared as a
        whole.
      tiny: whether the record has fewer words in all than a text that is evidence. Then only equal content finds it.
      common: whether the record has texts, and none of them shows anything (`COMMON`).
      hashes: the hashes of all records.
      passed_over: for each set, names of entries that are not searched for.
    """

    def __init__(self, sets: Sequence[Evaluated], n: int) -> None:
        """Indexes the records of some sets."""
        self.n = n
        self.index = NgramIndex.build(_batches(sets, n))
        self.lengths = self.index.lengths
        self.places: dict[str, slice] = {}
        self.passed_over: dict[str, list[str]] = {}
        hashes: list[str] = []
        keys: list[tuple[int, int, int]] = []  # (the text's key, the record, what it is good for)
        grams: dict[bool, list[np.ndarray]] = {True: [], False: []}  # by whether they are n-grams
        owners: dict[bool, list[np.ndarray]] = {True: [], False: []}
        sizes: list[int] = []  # of the longest text
        totals: list[int] = []  # of all texts
        for one in sets:
            first = len(hashes)
            passed_over: set[str] = set()
            for record in one.records():
                passed_over.update(record.passed_over)
                number = len(hashes)
                hashes.append(record.hash)
                words = _words(record)
                own: dict[int, int] = {}
                for text, fewest in words if sum(len(text) for text, _ in words) >= content.FEWEST else ():
                    if text:
                        key = content.text_key(text)
                        own[key] = own.get(key, 0) | _MEMBER | (_EVIDENCE if len(text) >= fewest else 0)
                    if (length := min(n, len(text))) >= SHORTEST or length == n:
                        found = np.unique(self.index.find(text, (length,))[1]).astype(np.int64)
                        grams[length == n].append(found)
                        owners[length == n].append(np.full(len(found), number, np.int64))
                if own and not any(use & _EVIDENCE for use in own.values()):  # each text alone says too little
                    together = content.text_key(list(itertools.chain.from_iterable(text for text, _ in words)))
                    own[together] = own.get(together, 0) | _EVIDENCE
                keys += [(key, number, use) for key, use in own.items()]
                sizes.append(max((len(text) for text, _ in words), default=0))
                totals.append(sum(len(text) for text, _ in words))
            self.places[one.name] = slice(first, len(hashes))
            self.passed_over[one.name] = sorted(passed_over)
        self.hashes = np.array(hashes, "S16")
        sizes_R = np.array(sizes, np.int64)
        self.short, self.tiny = sizes_R < n, np.array(totals, np.int64) < content.FEWEST
        self._grams = {kind: _joined(found) for kind, found in grams.items()}
        self._owners = {kind: _joined(found) for kind, found in owners.items()}
        self._set_keys(keys)
        having = np.array([record for _, record, _ in keys], np.int64)
        self.common = np.bincount(having, minlength=len(hashes)) > 0
        for found in (self._records, *self._owners.values()):
            self.common[found] = False

    def _set_keys(self, keys: list[tuple[int, int, int]]) -> None:
        """Sorts the keys of texts, each with the records that have it."""
        entries = np.array(keys, np.dtype([("key", np.uint64), ("record", np.int64), ("use", np.int8)]))
        distinct, counts = np.unique(entries["key"], return_counts=True)
        entries = entries[~np.isin(entries["key"], distinct[counts > COMMON])]
        entries = entries[np.argsort(entries["key"], kind="stable")]
        self.keys, starts = np.unique(entries["key"], return_index=True)
        self._records, self._uses = entries["record"], entries["use"]
        self._bounds = np.append(starts, len(entries))
        members = self._records[(self._uses & _MEMBER) > 0]
        self._needed = np.bincount(members, minlength=len(self.hashes))  # number of texts of a record

    def of_keys(self, found: np.ndarray) -> np.ndarray:
        """Flags of the records that have one of the texts, from flags of the texts."""
        flags = np.zeros(len(self.hashes), bool)
        tells = np.repeat(found, np.diff(self._bounds)) & ((self._uses & _EVIDENCE) > 0)
        flags[self._records[tells]] = True
        return flags

    def whole(self, documents: np.ndarray, keys: np.ndarray) -> np.ndarray:
        """The records all of whose texts are in one document.

        Args:
          documents: numbers of documents.
          keys: places in `keys` of the texts that they have, each once for each document.
        """
        counts = self._bounds[keys + 1] - self._bounds[keys]
        first = np.repeat(self._bounds[keys] - np.cumsum(counts) + counts, counts)
        places = first + np.arange(counts.sum())
        both = np.repeat(documents, counts).astype(np.int64) * len(self.hashes) + self._records[places]
        pairs, number = np.unique(both[(self._uses[places] & _MEMBER) > 0], return_counts=True)
        records = pairs % max(len(self.hashes), 1)
        return records[number == self._needed[records]]

    def of_grams(self, found: np.ndarray, n_grams: bool) -> np.ndarray:
        """Flags of the records with one of the n-grams, or with a shorter text that was found as a whole."""
        flags = np.zeros(len(self.hashes), bool)
        flags[self._owners[n_grams][found[self._grams[n_grams]]]] = True
        return flags


class Search:
    """A search through one text for the records of a finder."""

    def __init__(self, finder: Finder) -> None:
        self._finder = finder
        self._identical = np.zeros(len(finder.hashes), bool)
        self._keys = np.zeros(len(finder.keys), bool)
        self._grams = np.zeros(len(finder.index.keys), bool)

    @property
    def longest(self) -> int:
        """Words of the longest n-gram that is searched for."""
        return max(self._finder.lengths, default=1)

    def hashes(self, hashes: np.ndarray) -> None:
        """Adds the content hashes of records."""
        self._identical |= np.isin(self._finder.hashes, hashes)

    def texts(self, documents: np.ndarray, keys: np.ndarray) -> None:
        """Adds keys of whole texts, each once for each document. All texts of a document must be in one call."""
        known = self._finder.keys
        if not len(known) or not len(keys):
            return
        places = np.minimum(np.searchsorted(known, keys), len(known) - 1)
        hits = known[places] == keys
        self._keys[places[hits]] = True
        documents, places = documents[hits], places[hits]
        for part in _by_document(documents):
            self._identical[self._finder.whole(documents[part], places[part])] = True

    def words(self, words: Sequence[str]) -> None:
        """Adds running text; an empty string is a border that no n-gram spans."""
        self._grams[self._finder.index.find(words)[1]] = True

    def found(self) -> Found:
        """What was found so far."""
        text = self._finder.of_keys(self._keys) | self._finder.of_grams(self._grams, n_grams=False)
        return Found(self._identical.copy(), text, self._finder.of_grams(self._grams, n_grams=True))


def _by_document(documents: np.ndarray) -> Iterator[slice]:
    """Slices of some thousand entries that end where a document does; documents are in order."""
    start = 0
    while start < len(documents):
        stop = min(start + _AT_ONCE, len(documents))
        stop = int(np.searchsorted(documents, documents[stop - 1], side="right"))
        yield slice(start, stop)
        start = stop


def _words(record: Record) -> list[tuple[list[str], int]]:
    """(words of a text, how many it needs to be evidence by itself)."""
    texts = [(content.normalized_words(text), content.FEWEST) for text in record.texts]
    return texts + [(content.normalized_words(text), SHORTEST) for text in record.listed]


def _batches(sets: Sequence[Evaluated], n: int) -> Iterator[list[tuple[int, list[str]]]]:
    records = itertools.chain.from_iterable(one.records() for one in sets)
    while batch := list(itertools.islice(records, _AT_ONCE)):
        texts = [text for record in batch for text, _ in _words(record)]
        yield [(min(n, len(text)), text) for text in texts if len(text) >= min(n, SHORTEST)]


def _joined(parts: list[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.zeros(0, np.int64), *parts])
