"""Matches documents of another program with our prompts by their text: a prompt shows the texts of its record."""

from __future__ import annotations

import collections
import re
from collections.abc import Mapping, Sequence
from typing import Any

from flan_jax.content import FEWEST, texts_of

ENOUGH = 5  # words of a document that a prompt must have
_KEY = 5  # words by which a text is found
_WORD = re.compile(r"\w+")


def by_text(prompts: Sequence[str], documents: Sequence[Mapping[str, Any]]) -> list[tuple[int, int]]:
    """Pairs each prompt with the document whose texts it shows; the document with the most words in it wins.

    A prompt with two equally good documents is left out, and so is a document that is the best for two prompts.

    Args:
      prompts: our prompts.
      documents: records of the other program, as names and values.

    Returns:
      (number of the prompt, number of the document), in the order of the prompts.
    """
    found_by: dict[tuple[str, ...], list[tuple[int, tuple[str, ...]]]] = collections.defaultdict(list)
    for number, document in enumerate(documents):
        for text in {tuple(_words(text)) for text in texts_of(document)}:
            if len(text) >= FEWEST:
                found_by[text[:_KEY]].append((number, text))
    lengths = sorted({len(key) for key in found_by})
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
        if first[1] >= ENOUGH and not (rest and rest[0][1] == first[1]):
            best[i] = first[0]
    taken = collections.Counter(best.values())
    return [(i, number) for i, number in best.items() if taken[number] == 1]


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())
