"""Whether two programs call the same answers right. Otherwise the records are not the same, whatever their texts."""

from __future__ import annotations

import ast
import dataclasses
import json
import re
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
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
    """The right answer of a prediction, of ours or of a log. A log's target may be a list, all of which is right."""
    options: Sequence[str] = line.get("words", line.get("options", line.get("scored", ())))
    target, form = line.get("target"), _form_of(options)
    formed = [form(option) for option in options]
    plain = frozenset(formed)
    told = [] if target is None else _listed(target)
    if told and len(options) > 1 and all(_NUMBER.fullmatch(one) and int(one) < len(options) for one in told):
        return Gold(plain, frozenset(formed[int(one)] for one in told), target, True)
    if "loglikelihood" in line:
        return Gold(plain, frozenset(formed[place] for place in right_options(line)), target)
    return Gold(plain, frozenset(map(form, told)), target)


def _form_of(options: Sequence[str]) -> Callable[[str], str]:
    """How the options of an example are compared: as plain words, or letter by letter if two would become one."""
    letters = {_letters(option) for option in options}
    return _plain if len({_plain(option) for option in options}) == len(letters) else _letters


def _letters(text: str) -> str:
    return " ".join(text.split())


def _plain(text: str) -> str:
    """A text without what a wording adds: cases, white space, marks that end a sentence, and quotes around it.

    All other marks stay, because they make another answer: -1, 50%, $5, C++. Of marks alone, the marks.
    """
    words = _letters(text.lower())
    while words:
        bare = words.rstrip(_ENDS).strip()
        if len(bare) > 1 and _QUOTES.get(bare[0]) == bare[-1] and not {bare[0], bare[-1]} & {*bare[1:-1]}:
            bare = bare[1:-1].strip()
        if bare == words:
            return words
        words = bare
    return _letters(text.lower())


_ENDS = ".,;:"
_QUOTES = {'"': '"', "'": "'", "`": "`", "\u201c": "\u201d", "\u2018": "\u2019", "\u201e": "\u201c", "\u00ab": "\u00bb"}


def _listed(target: str) -> list[str]:
    """The answers of a log's target: those of a list as JSON or Python writes it, or else the one text."""
    if not (target.startswith("[") and target.endswith("]")):
        return [target]
    try:
        found = json.loads(target)
    except (ValueError, RecursionError):
        try:
            with warnings.catch_warnings(action="ignore"):  # of strange escapes
                found = ast.literal_eval(target)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            return [target]
    return [one if isinstance(one, str) else json.dumps(one, ensure_ascii=False, default=str) for one in found]


def differ(a: Gold, b: Gold) -> bool:
    """Whether two right answers of one record are known to differ.

    Options in other words are not compared, nor the place of an option with a text that is none of them. Our records
    may have more right answers than a log says, so there one in common is enough.
    """
    known = a.right and b.right and a.right | b.right <= a.options
    if known and len(a.options) > 1 and a.options == b.options:
        return not a.right & b.right if a.target is None or b.target is None else a.right != b.right
    if a.target is None or b.target is None or a.target == b.target or a.right == b.right:
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
