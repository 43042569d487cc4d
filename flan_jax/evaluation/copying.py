"""What an answer has that only repeats what was given: a baseline for generated texts, as guessing is for options.

ROUGE, BLEU and F1 count shared words, and a prompt often holds most of the answer's words: a sentence from given words,
a translation full of names. A model that learned to repeat its input then looks as if it had learned the task.
"""

from __future__ import annotations

import collections
import re
from collections.abc import Mapping, Sequence

from flan_jax.protocol import Protocol
from flan_jax.templates import placeholders

_WORD = re.compile(r"\w+")


def given(asked: Protocol, number: int, records: Sequence[Mapping[str, object]]) -> list[str]:
    """The texts of each record that a template shows, in its order, with a space between them.

    Neither the template's own words nor exemplars are among them, nor what is the same in all records: the name of a
    language is wording. Long texts are whole, even if the prompt is cut.

    Args:
      asked: the protocol of a dataset without options.
      number: of the template.
      records: the fields of each.
    """
    shown = dict.fromkeys(placeholders(asked.templates[number].input))
    texts = {name: [str(fields.get(name, "")) for fields in records] for name in shown}
    texts = {name: values for name, values in texts.items() if len(set(values)) > 1} or texts
    return [" ".join(values) for values in zip(*texts.values(), strict=True)] if texts else [""] * len(records)


def is_copy(answer: str, text: str) -> bool:
    """Whether an answer is the given text's words and no others, in any order.

    >>> is_copy("Hole, fish and ice", "ice, hole, fish"), is_copy("Fish, hole, ice.", "ice, hole, fish")
    (False, True)
    """
    words = _words(answer)
    return bool(words) and words == _words(text)


def _words(text: str) -> collections.Counter[str]:
    return collections.Counter(_WORD.findall(text.casefold()))
