"""Conversations as examples: one for each turn of the assistant, with what stands before it as its input.

Messages are OpenAI's, {"messages": [{"role", "content"}]}, or ShareGPT's, {"conversations": [{"from", "value"}]}. The
plain form writes each with who says it, and ends where the assistant is to speak:

    System: Answer briefly.

    User: Who wrote Emma?

    Assistant:
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from flan_jax.data.own.records import UnusableRecord, text_of

SYSTEM, USER, ASSISTANT = "system", "user", "assistant"
KEYS = ("messages", "conversations")

_ROLES = {"system": SYSTEM, "developer": SYSTEM, "user": USER, "human": USER}
_ROLES |= {"assistant": ASSISTANT, "gpt": ASSISTANT, "model": ASSISTANT, "bot": ASSISTANT}
_SAID_BY = {SYSTEM: "System", USER: "User", ASSISTANT: "Assistant"}
_BETWEEN = "\n\n"

Turn = tuple[str, str]  # who says it, and what


def is_chat(row: Mapping[str, Any]) -> bool:
    """Whether an object of a file is a conversation."""
    return any(key in row for key in KEYS)


def turns_of(row: Mapping[str, Any]) -> list[Turn]:
    """The messages of an object.

    Raises:
      UnusableRecord: they are no messages; an unknown role; a content that is no text; no turn of the assistant after
        a user's.
    """
    key = next((key for key in KEYS if key in row), None)
    if key is None:
        raise UnusableRecord(f'it has no "{KEYS[0]}"')
    messages = row[key]
    if not isinstance(messages, list) or not all(isinstance(one, dict) for one in messages):
        raise UnusableRecord(f'"{key}" has to be a list of objects with a "role" and a "content"')
    found = []
    for number, message in enumerate(messages):
        said_by, said = ("role", "content") if "role" in message else ("from", "value")
        if said_by not in message or said not in message:
            raise UnusableRecord(f'message {number} needs a "role" and a "content"')
        role = text_of(message[said_by], f"{said_by} of message {number}")
        if role not in _ROLES:
            known = ", ".join(dict.fromkeys(_ROLES))
            raise UnusableRecord(f"message {number} has the role {role[:40]!r}; it can be {known}")
        found.append((_ROLES[role], _text(message[said], f"{said} of message {number}")))
    if not any(True for _ in answered(found)):
        raise UnusableRecord("no turn of the assistant follows one of the user")
    return found


def _text(value: Any, name: str) -> str:
    """A message's content: text, or OpenAI's list of parts that are text."""
    if isinstance(value, list):
        if not all(isinstance(part, dict) and part.get("type", "text") == "text" for part in value):
            raise UnusableRecord(f'"{name}" has a part that is no text')
        value = "".join(text_of(part.get("text"), name, blank=True) for part in value)
    return text_of(value, name)


def answered(turns: Sequence[Turn]) -> Iterator[int]:
    """Numbers of the assistant's turns that follow one of the user: these are learned.

    A greeting that nothing was said before is only context.
    """
    asked = False
    for number, (role, _) in enumerate(turns):
        if role == ASSISTANT and asked:
            yield number
        asked = asked or role == USER


def plain(turns: Sequence[Turn]) -> str:
    """What stands before an answer, in the plain form."""
    lines = [f"{_SAID_BY[role]}: {text}" for role, text in turns]
    return _BETWEEN.join([*lines, f"{_SAID_BY[ASSISTANT]}:"])


def shortened(turns: Sequence[Turn], fits: Any) -> list[Turn] | None:
    """The turns before an answer, less the oldest until they fit; system messages and the last turn stay.

    Args:
      turns: what stands before an answer.
      fits: says of turns whether there is room for them.

    Returns:
      The turns that are left, which begin with one of the user; None where not even these fit.
    """
    left = list(turns)
    while not fits(left):
        olds = [number for number, (role, _) in enumerate(left[:-1]) if role != SYSTEM]
        if not olds:
            return None
        del left[olds[0]]
        while (olds := [n for n, (role, _) in enumerate(left[:-1]) if role != SYSTEM]) and left[olds[0]][0] != USER:
            del left[olds[0]]
    return left
