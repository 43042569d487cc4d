"""Makes inputs that are too long fit. Only text fields are cut. No TensorFlow.

The token store, evaluation and the SeqIO tasks all use this, so a record is cut at the same place in all of them. The
instruction, the options and the exemplars stay whole.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Mapping

from flan_jax import templates
from flan_jax.data.vocabularies import Tokenizer
from flan_jax.errors import FlanError
from flan_jax.protocol import END, START
from flan_jax.templates import Fields, Template

_WHOLE = (templates.OPTIONS, templates.LETTERED)  # fields that are never cut
_LONGEST_WORD = 30  # characters; a text is cut between words if a word ends within so many


class TooLongError(FlanError):
    """Exemplars, instruction and options alone have more tokens than there is room for."""


@dataclasses.dataclass(frozen=True)
class Fitted:
    """An input that fits.

    Attributes:
      inputs: its text, with the prefix.
      tokens: its ids, without BOS and EOS.
      fields: the rendered fields, shortened.
      cut_tokens: how many tokens it has lost.
    """

    inputs: str
    tokens: tuple[int, ...]
    fields: Fields
    cut_tokens: int = 0


def fit(template: Template, fields: Fields, prefix: str, tokenizer: Tokenizer, room: int, side: str) -> Fitted:
    """Renders an input, and cuts its text fields until it fits.

    The longest field loses first, until the next one is as long.

    Args:
      template: the input's template.
      fields: the fields as the template shows them.
      prefix: the exemplars in front of the input.
      tokenizer: counts the tokens of everything.
      room: most tokens, without BOS and EOS.
      side: which end of the last field is cut, "start" or "end". It is "start" if an answer continues that field. All
        other fields lose their end in every style, because the first words of an article matter most.

    Raises:
      TooLongError: it does not fit even with all its text fields empty.
      FlanError: a placeholder names no field.
    """
    left = dict(fields)
    shown = collections.Counter(name for name in templates.placeholders(template.input) if name not in _WHOLE)
    last = templates.pieces(template.input)[-2][1] if template.input.endswith("}") and shown else None
    full: int | None = None
    passes = 0
    while True:
        inputs = prefix + templates.fill(template.input, left)
        tokens = tuple(tokenizer.encode([inputs])[0])
        full = len(tokens) if full is None else full
        if len(tokens) <= room:
            return Fitted(inputs, tokens, left, full - len(tokens))
        names = [name for name in shown if left[name]]
        if not names:
            raise TooLongError(
                f"exemplars, instruction and options take {len(tokens)} tokens without any field's text, in "
                f"{template.input[:50]!r}; there is room for {room}."
            )
        counts = dict(zip(names, map(len, tokenizer.encode([left[name] for name in names])), strict=True))
        # How much text a token takes is estimated, so later passes ask for a little more than is missing.
        level = _level(counts, shown, (len(tokens) - room) * (1 + passes // 4))
        for name in names:
            if counts[name] > level:
                left[name] = shortened(left[name], level / counts[name], side if name == last else END)
        passes += 1


def _level(counts: Mapping[str, int], times: Mapping[str, int], over: int) -> int:
    """The most tokens that a field may keep so that `over` tokens are saved; below the longest field, at least 0."""
    low, high = 0, max(counts.values()) - 1
    while low < high:
        middle = (low + high + 1) // 2
        if sum(times[name] * max(0, count - middle) for name, count in counts.items()) >= over:
            low = middle
        else:
            high = middle - 1
    return low


def shortened(text: str, share: float, side: str) -> str:
    """About that share of a text, in whole words if there are words; always shorter than the text.

    Args:
      text: not empty.
      share: from 0 to 1.
      side: which end is lost, "start" or "end".

    Example:
      >>> shortened("It was a dark and stormy night.", 0.5, "end")
      'It was a dark'
    """
    keep = min(int(len(text) * share), len(text) - 1)
    if side == START:
        return _beginning(text[::-1], keep)[::-1]
    return _beginning(text, keep)


def _beginning(text: str, keep: int) -> str:
    kept = text[:keep]
    if not text[keep].isspace():
        words = kept.rsplit(maxsplit=1)
        if kept[-1:].isspace() or (len(words) == 2 and len(words[1]) <= _LONGEST_WORD):
            kept = kept if kept[-1:].isspace() else kept[: -len(words[1])]
        elif len(words) == 1 and kept[:1].isspace() and len(words[0]) <= _LONGEST_WORD:
            kept = ""
    return kept.rstrip()
