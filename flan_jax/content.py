"""What a record is, wherever it stands: a hash of its fields, and keys of its texts as a reader would compare them.

Pairing, caches, contamination and "seen" go by content; ids are for people, since equal ids of other data say nothing.
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

FEWEST = 3  # words of a text that is evidence by itself; "yes" or "New York" stands in any data

_ASCII_MARKS = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"
_DELETED = {ord(mark): None for mark in _ASCII_MARKS}
_ENTITY = re.compile(r"&(?:#\d|#[xX][0-9a-fA-F]|[A-Za-z])")
# Letters of scripts that put no spaces between words: Thai, Lao, Tibetan, Burmese, Khmer, Japanese, Chinese. As one
# "word", a sentence of them would match the same sentence only.
_UNSPACED = (
    "\\u0e00-\\u0fff\\u1000-\\u109f\\u1780-\\u17ff"
    "\\u3040-\\u30ff\\u31f0-\\u31ff\\u3400-\\u4dbf\\u4e00-\\u9fff\\uf900-\\ufaff\\U00020000-\\U0003ffff"
)
_LETTER = re.compile(f"[{_UNSPACED}]")
_UNSEEN = ("P", "Cf")  # punctuation, and characters without a look of their own: zero-width spaces, soft hyphens, BOM


# --------------------------------------------------------------------------------------------------------- records


def content_hash(fields: Mapping[str, Any]) -> str:
    """16 hexadecimal digits that name a record by its content, before any template.

    Args:
      fields: name to text or texts. Their order does not count; a letter, a space or the label does.

    Example:
      >>> content_hash({"question": "Why?", "answer": "So."})
      '912932561f2a650f'
      >>> content_hash({"answer": "So.", "question": "Why?"}) == content_hash({"question": "Why?", "answer": "So."})
      True
    """
    text = json.dumps(as_unicode(fields), sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def digest(hashes: Iterable[str]) -> str:
    """A digest of records in their order, from their hashes."""
    return hashlib.sha256("\n".join(hashes).encode()).hexdigest()


def numbered(hashes: Iterable[str]) -> Iterator[str]:
    """Keys that tell equal records apart by how often they came before: "h", "h#2", "h#3", ...

    Example:
      >>> list(numbered(["a", "b", "a"]))
      ['a', 'b', 'a#2']
    """
    seen: dict[str, int] = {}
    for one in hashes:
        seen[one] = seen.get(one, 0) + 1
        yield one if seen[one] == 1 else f"{one}#{seen[one]}"


def unnumbered(key: str) -> str:
    """The hash of a key of `numbered`."""
    return key.partition("#")[0]


# ----------------------------------------------------------------------------------------------------------- texts


def normalized_words(text: str) -> list[str]:
    """The words of a text: lower case, punctuation removed, cut at white space (Brown et al. 2020, appendix C).

    Spellings that look alike are one: HTML entities, composed and decomposed letters, full-width and ligature forms.
    In scripts without spaces between words, such as Chinese, Japanese and Thai, every letter is a word.

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
    )  # str.translate takes ten times as long on text that is not ASCII


def text_key(words: Sequence[str]) -> int:
    """A 64-bit number that is the same for texts of the same words; of a million texts, two meet by chance in 4e-8."""
    return int.from_bytes(hashlib.sha256(" ".join(words).encode(errors="surrogatepass")).digest()[:8], "big")


def texts_of(value: Any) -> Iterator[str]:
    """All texts in a text, a list or a mapping, however deep.

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
    """Keys of a record's texts with their numbers of words, and of all of them together; empty texts have none."""
    found = [words for words in map(normalized_words, texts) if words]
    keys = {text_key(words): len(words) for words in found}
    if len(found) > 1:
        together = list(itertools.chain.from_iterable(found))
        keys.setdefault(text_key(together), len(together))
    return keys
