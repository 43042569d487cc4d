"""Whether two programs call the same answers right. Otherwise the records are not the same, whatever their texts."""

from __future__ import annotations

import dataclasses
import re
import string
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from flan_jax.evaluation.figures import right_options

_NUMBER = re.compile(r"[0-9]{1,6}")


@dataclasses.dataclass(frozen=True)
class Gold:
    """The right answer of an example, as far as a program says it.

    Attributes:
      options: the options, as plain words; none where text is generated.
      right: the right answers, as plain words.
      target: what a log says is right, letter by letter; None of our predictions, and of a log that does not say it.
      is_place: whether that is the place of an option.
    """

    options: frozenset[str]
    right: frozenset[str]
    target: str | None = None
    is_place: bool = False


def of_line(line: Mapping[str, Any]) -> Gold:
    """The right answer of a prediction, of ours or of a log."""
    options: Sequence[str] = line.get("words", line.get("options", line.get("scored", ())))
    target = line.get("target")
    plain = frozenset(map(_plain, options))
    if target is not None and len(options) > 1 and _NUMBER.fullmatch(target) and int(target) < len(options):
        return Gold(plain, frozenset({_plain(options[int(target)])}), target, True)
    if "loglikelihood" in line:
        return Gold(plain, frozenset(_plain(options[place]) for place in right_options(line)), target)
    return Gold(plain, frozenset() if target is None else frozenset({_plain(target)}), target)


def _plain(text: str) -> str:
    """A text without what a wording adds: cases, white space, and marks around it. Of marks alone, the marks."""
    words = " ".join(text.lower().split())
    return words.strip(string.punctuation + " ") or words


def differ(a: Gold, b: Gold) -> bool:
    """Whether two right answers of one record are known to differ.

    Options in other words are not compared, nor the place of an option with a text that is none of them.
    """
    known = a.right and b.right and a.right | b.right <= a.options
    if known and len(a.options) > 1 and a.options == b.options:
        return not a.right & b.right
    if a.target is None or b.target is None or a.target == b.target or a.right & b.right:
        return False
    if a.is_place != b.is_place:
        place, text = (a, b) if a.is_place else (b, a)
        return text.right <= place.options
    return True


def apart(pairs: Iterable[tuple[Gold, Gold]]) -> str:
    """Why pairs of one record each cannot be compared or averaged; empty if they can.

    Example:
      >>> yes, no = (Gold(frozenset({"yes", "no"}), frozenset({word})) for word in ("yes", "no"))
      >>> apart([(yes, yes), (yes, no)])
      'other right answers: on 1 of 2 records, such as yes and no'
    """
    listed = list(pairs)
    found = [(a, b) for a, b in listed if differ(a, b)]
    if not found:
        return ""
    said = " and ".join(_said(one) for one in found[0])
    return f"other right answers: on {len(found)} of {len(listed)} records, such as {said}"


def _said(one: Gold) -> str:
    text = ", ".join(sorted(one.right)) or str(one.target)
    return text if len(text) <= 40 else f"{text[:40]}..."
