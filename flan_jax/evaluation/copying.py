"""What an answer has that only repeats what was given: a baseline for generated texts, as guessing is for options.

ROUGE, BLEU and F1 count shared words, and a prompt often holds most of the answer's words: a sentence from given words,
a translation full of names. A model that learned to repeat its input then looks as if it had learned the task.
"""

from __future__ import annotations

import collections
import re
import unicodedata
from collections.abc import Mapping, Sequence

from flan_jax import catalog
from flan_jax.templates import placeholders

# What stands between words, or around them: white space, and signs that no word or number needs.
_BETWEEN = re.compile(r"[\s;|、。，；]+|,(?!\d)|(?<!\d),")
_AROUND = "\"'“”‘’«»()[]{}<>:.,!?…*•·"


def given(record: catalog.Dataset, fields: Mapping[str, object]) -> str:
    """A record's input without any instruction (`Dataset.bare`): its fields, with a space between them.

    It is the same for all templates and styles, and whole, even if a prompt is cut.

    Args:
      record: the dataset.
      fields: of a record.
    """
    return " ".join(str(fields.get(name, "")) for name in dict.fromkeys(placeholders(record.bare)))


def is_copy(answer: str, text: str, references: Sequence[str] = ()) -> bool:
    """Whether an answer is the given words and no others, in any order and case, and is wrong.

    Where a reference has the given words too, as a sentence with its case restored, an answer of them may be right, and
    is no copy.

    >>> is_copy("Fish, hole, ice.", "ice, hole, fish"), is_copy("Hole, fish and ice", "ice, hole, fish")
    (True, False)
    >>> is_copy("A red fox.", "a red fox.", references=["A red fox."])
    False
    """
    words = _words(answer)
    return bool(words) and words == _words(text) and not any(words == _words(one) for one in references)


def _words(text: str) -> collections.Counter[str]:
    parts = _BETWEEN.split(unicodedata.normalize("NFC", text).casefold())
    return collections.Counter(word for part in parts if (word := part.strip(_AROUND)) and word != "-")
