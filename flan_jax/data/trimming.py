"""Inputs that are too long, made to fit: fields are cut, and nothing else. No TensorFlow.

The token store, evaluation and the SeqIO tasks take it from here, so that the same record is cut at the same place in
all of them. The instruction, the options and the exemplars stay whole.
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
_LONGEST_WORD = 30  # characters; a text is cut between words where one ends within so many


class TooLongError(FlanError):
    """Exemplars, instruction and options alone take more tokens than there is room for."""


@dataclasses.dataclass(frozen=True)
class Fitted:
    """An input that fits.

    Attributes:
      inputs: its text, the prefix included.
      tokens: its ids, without BOS and EOS.
      fields: what was rendered, shortened.
      cut_tokens: how many tokens it is shorter than it was.
    """

    inputs: str
    tokens: tuple[int, ...]
    fields: Fields
    cut_tokens: int = 0


def fit(template: Template, fields: Fields, prefix: str, tokenizer: Tokenizer, room: int, side: str) -> Fitted:
    """Renders an input, with its text fields cut until it fits; the longest loses first, until the next is as long.

    Args:
      template: of the input.
      fields: as the template shows them.
      prefix: exemplars, which stand in front of the input.
      tokenizer: counts the tokens of all of it.
      room: most tokens, without BOS and EOS.
      side: which end is cut of the field that the input ends with, "start" or "end"; it is "start" where an answer goes
        on with that field. All others lose their end, whatever the style: of an article, its first words count most.

    Raises:
      TooLongError: it does not fit with all its text fields empty.
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
        # How much of a text a token takes is estimated, so that later passes ask for a little more than is missing.
        level = _level(counts, shown, (len(tokens) - room) * (1 + passes // 4))
        for name in names:
            if counts[name] > level:
                left[name] = shortened(left[name], level / counts[name], side if name == last else END)
        passes += 1


def _level(counts: Mapping[str, int], times: Mapping[str, int], over: int) -> int:
    """The most tokens that fields may keep for `over` to be saved; below the longest field, 0 or more."""
    low, high = 0, max(counts.values()) - 1
    while low < high:
        middle = (low + high + 1) // 2
        if sum(times[name] * max(0, count - middle) for name, count in counts.items()) >= over:
            low = middle
        else:
            high = middle - 1
    return low


def shortened(text: str, share: float, side: str) -> str:
    """About that share of a text, in whole words where there are words; shorter than it was.

    Args:
      text: not empty.
      share: from 0 to 1.
      side: which end is lost, "start" or "end".
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
