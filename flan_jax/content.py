"""Identifies a record by its content: a hash of its fields, and keys of its normalized texts.

Pairing, caches, contamination and "seen" all compare content. Ids are only for people: the same id can mean another
record in another copy of the data.
"""

from __future__ import annotations

import hashlib
import html
import itertools
import json
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from flan_jax.json_lines import as_unicode

FEWEST = 3  # a shorter text ("yes", "New York") is in any data, and shows nothing by itself

_ASCII_MARKS = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"
_DELETED = {ord(mark): None for mark in _ASCII_MARKS}
_ENTITY = re.compile(r"&(?:#\d|#[xX][0-9a-fA-F]|[A-Za-z])")
# Letters of scripts without spaces between words: Thai, Lao, Tibetan, Burmese, Khmer, Japanese, Chinese. Each letter
# counts as a word. Otherwise a whole sentence would be one word, and match only an equal sentence.
_UNSPACED = (
    "\\u0e00-\\u0fff\\u1000-\\u109f\\u1780-\\u17ff"
    "\\u3040-\\u30ff\\u31f0-\\u31ff\\u3400-\\u4dbf\\u4e00-\\u9fff\\uf900-\\ufaff\\U00020000-\\U0003ffff"
)
_LETTER = re.compile(f"[{_UNSPACED}]")
_UNSEEN = ("P", "Cf")  # punctuation and invisible characters: zero-width spaces, soft hyphens, byte order marks


# --------------------------------------------------------------------------------------------------------- records


def content_hash(fields: Mapping[str, Any]) -> str:
    """A hash that identifies a record by its content, before any template: 16 hexadecimal digits.

    Args:
      fields: the record's fields, each a text or several texts. Their order has no effect. Every letter, every space
        and the label do.

    Example:
      >>> content_hash({"question": "Why?", "answer": "So."})
      '912932561f2a650f'
      >>> content_hash({"answer": "So.", "question": "Why?"}) == content_hash({"question": "Why?", "answer": "So."})
      True
    """
    text = json.dumps(as_unicode(fields), sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def digest(hashes: Iterable[str]) -> str:
    """One digest of several records in their order, made from their hashes."""
    return hashlib.sha256("\n".join(hashes).encode()).hexdigest()


def numbered(hashes: Iterable[str]) -> Iterator[str]:
    """Makes keys unique: the second "h" becomes "h#2", the third "h#3", and so on.

    Example:
      >>> list(numbered(["a", "b", "a"]))
      ['a', 'b', 'a#2']
    """
    seen: dict[str, int] = {}
    for one in hashes:
        seen[one] = seen.get(one, 0) + 1
        yield one if seen[one] == 1 else f"{one}#{seen[one]}"


def unnumbered(key: str) -> str:
    """The hash in a key that `numbered` made.

    Example:
      >>> unnumbered("a#2")
      'a'
    """
    return key.partition("#")[0]


# ----------------------------------------------------------------------------------------------------------- texts


def normalized_words(text: str) -> list[str]:
    """The words of a text in lower case, without punctuation, split at white space (Brown et al. 2020, appendix C).

    Spellings that look alike become the same: HTML entities, composed and decomposed letters, full-width letters and
    ligatures. In scripts without spaces between words, such as Chinese, Japanese and Thai, every letter is a word.

    Example:
      >>> normalized_words("It's a dog&amp;cat, isn't it?")
      ['its', 'a', 'dogcat', 'isnt', 'it']
    """
    if "&" in text and _ENTITY.search(text):
        text = html.unescape(text)
    if text.isascii():
        return text.lower().translate(_DELETED).split()
    text = unicodedata.normalize("NFKC", text).lower()
    for character in set(text):
        if not character.isascii() and unicodedata.category(character).startswith(_UNSEEN):
            text = text.replace(character, "")
    if _LETTER.search(text):
        text = _LETTER.sub(r" \g<0> ", text)
    return (
        text.encode(errors="surrogatepass")
        .translate(None, _ASCII_MARKS.encode())
        .decode(errors="surrogatepass")
        .split()
    )  # ten times faster than str.translate on text that is not ASCII


def text_key(words: Sequence[str]) -> int:
    """A 64-bit hash of a text's words. The chance that any two of a million different texts share one is about 3e-8."""
    return int.from_bytes(hashlib.sha256(" ".join(words).encode(errors="surrogatepass")).digest()[:8], "big")


def texts_of(value: Any) -> Iterator[str]:
    """All texts in a text, a list or a mapping, at any depth.

    Example:
      >>> list(texts_of({"question": "Why?", "answers": ["So.", "For."]}))
      ['Why?', 'So.', 'For.']
    """
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from texts_of(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from texts_of(inner)


def text_keys(texts: Iterable[str]) -> dict[int, int]:
    """Keys of a record's texts, and of all its texts together, each with its number of words. Empty texts have no key.

    Returns:
      {key: number of words}.
    """
    found = [words for words in map(normalized_words, texts) if words]
    keys = {text_key(words): len(words) for words in found}
    if len(found) > 1:
        together = list(itertools.chain.from_iterable(found))
        keys.setdefault(text_key(together), len(together))
    return keys
