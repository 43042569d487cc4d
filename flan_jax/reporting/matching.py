"""Matches documents of another program with our prompts by their text: a prompt shows the texts of its record."""

from __future__ import annotations

import collections
import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Any

from flan_jax.content import FEWEST, texts_of

ENOUGH = 5  # words of a document that a prompt must have
_KEY = 5  # words by which a text is found
_SENTENCE = 8  # words of a text that two records have in common because they are about the same
_WORD = re.compile(r"-?\d+|\w+")  # a number has its sign


def by_text(
    prompts: Sequence[str], documents: Sequence[Mapping[str, Any]], theirs: Sequence[str]
) -> list[tuple[int, int]]:
    """Pairs each prompt with the document whose texts it shows; the document with the most words in it wins.

    What the other program showed of a document has to be in our prompt too: of a shared premise alone, the records may
    be others. A prompt with two equally good documents is left out, and so is a document that is the best for two.

    Args:
      prompts: our prompts.
      documents: records of the other program, as names and values.
      theirs: its prompt of each.

    Returns:
      (number of the prompt, number of the document), in the order of the prompts.
    """
    found_by: dict[tuple[str, ...], list[tuple[int, tuple[str, ...]]]] = collections.defaultdict(list)
    for number, document in enumerate(documents):
        for text in {tuple(_words(text)) for text in texts_of(document)}:
            if len(text) >= FEWEST:
                found_by[text[:_KEY]].append((number, text))
    lengths = sorted({len(key) for key in found_by})
    shown = [_shown(document, prompt) for document, prompt in zip(documents, theirs, strict=True)]
    best: dict[int, int] = {}
    for i, prompt in enumerate(prompts):
        words = tuple(_words(prompt))
        seen: set[tuple[int, tuple[str, ...]]] = set()
        for start in range(len(words)):
            for length in lengths:
                for number, text in found_by.get(words[start : start + length], ()):
                    if words[start : start + len(text)] == text:
                        seen.add((number, text))
        counts: collections.Counter[int] = collections.Counter()
        for number, text in seen:
            counts[number] += len(text)
        first, *rest = counts.most_common(2) or [(0, 0)]
        if first[1] >= ENOUGH and not shown[first[0]] <= {text for number, text in seen if number == first[0]}:
            continue
        if first[1] >= ENOUGH and not (rest and rest[0][1] == first[1]):
            best[i] = first[0]
    taken = collections.Counter(best.values())
    return [(i, number) for i, number in best.items() if taken[number] == 1]


def _shown(document: Mapping[str, Any], prompt: str) -> set[tuple[str, ...]]:
    """The texts of a document that a prompt shows, as words."""
    words = f" {' '.join(_words(prompt))} "
    texts = {tuple(_words(text)) for text in texts_of(document)}
    return {text for text in texts if len(text) >= FEWEST and f" {' '.join(text)} " in words}


def passages(documents: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """What each document shares with others: "p" and the number of the first one with a sentence of it.

    A text that more than half of them have is their wording, and no passage.
    """
    having: dict[tuple[str, ...], list[int]] = collections.defaultdict(list)
    for number, document in enumerate(documents):
        for text in {tuple(_words(text)) for text in texts_of(document)}:
            if len(text) >= _SENTENCE:
                having[text].append(number)
    edges = [
        pair for of in having.values() if len(of) <= max(2, len(documents) // 2) for pair in itertools.pairwise(of)
    ]
    return tuple(f"p{number}" for number in joined(len(documents), edges))


def joined(count: int, edges: Sequence[tuple[int, int]]) -> list[int]:
    """For each of so many things, the first one that it is connected with."""
    first = list(range(count))

    def root(number: int) -> int:
        while first[number] != number:
            first[number] = first[first[number]]
            number = first[number]
        return number

    for a, b in edges:
        low, high = sorted((root(a), root(b)))
        first[high] = low
    return [root(number) for number in range(count)]


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())
