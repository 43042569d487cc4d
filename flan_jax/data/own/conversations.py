"""Conversations as examples: one for each turn of the assistant, with everything before it as its input.

Messages are OpenAI's, {"messages": [{"role", "content"}]}, or ShareGPT's, {"conversations": [{"from", "value"}]}. A
"system" beside them becomes the first message. The plain form writes who says each message, and ends where the
assistant is to speak:

    System: Answer briefly.

    User: Who wrote Emma?

    Assistant:
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from flan_jax.data.own.records import UnusableRecord, text_of

SYSTEM, USER, ASSISTANT, TOOL = "system", "user", "assistant", "tool"
KEYS = ("messages", "conversations")

_ROLES = {"system": SYSTEM, "developer": SYSTEM, "user": USER, "human": USER}
_ROLES |= {"assistant": ASSISTANT, "gpt": ASSISTANT, "model": ASSISTANT, "bot": ASSISTANT}
_SAID_BY = {SYSTEM: "System", USER: "User", ASSISTANT: "Assistant", TOOL: "Tool"}
_BETWEEN = "\n\n"
_WEIGHT, CALLS = "weight", "tool_calls"
_READ = {"role", "content", "from", "value", _WEIGHT}

_FAR = 2  # the tokens of single turns add up to about those of the whole; turns with twice as many as fit never fit

Turn = tuple[str, str]  # who says it, and what
Count = Callable[[Sequence[str]], list[int]]  # numbers of tokens of texts


def is_chat(row: Mapping[str, Any]) -> bool:
    """Whether an object of a file is a conversation."""
    return any(row.get(key) is not None for key in KEYS)


def with_system(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """The object with the "system" beside its messages as their first message.

    Raises:
      UnusableRecord: it is not text, or the messages begin with another one.
    """
    said, (messages, key) = row.get(SYSTEM), messages_of(row)
    if said is None or not isinstance(messages, list):
        return row
    text_of(said, SYSTEM, blank=True)
    first = messages[0] if messages and isinstance(messages[0], dict) else {}
    if first.get("role", first.get("from")) in (SYSTEM, "developer"):
        if said.strip() and said != first.get("content", first.get("value")):
            raise UnusableRecord(f'"{SYSTEM}" stands beside messages that begin with another one')
        return row
    return row if not said.strip() else {**row, key: [{"role": SYSTEM, "content": said}, *messages]}


def unread_of(row: Mapping[str, Any]) -> set[str]:
    """The keys of messages that the plain form does not write."""
    return {name for one in messages_of(row)[0] for name, value in one.items() if value is not None} - _READ


def turns_of(row: Mapping[str, Any], tools: bool = False) -> list[Turn]:
    """The messages of an object.

    Args:
      row: the object.
      tools: whether a tool may speak and the assistant may call one. The plain form cannot write that.

    Raises:
      UnusableRecord: they are not messages, have an unknown role or a content that is not text, or no turn of the
        assistant follows one of the user.
    """
    messages, key = messages_of(row)
    if not isinstance(messages, list) or not all(isinstance(one, dict) for one in messages):
        raise UnusableRecord(f'"{key}" has to be a list of objects with a "role" and a "content"')
    found, roles = [], _ROLES | ({TOOL: TOOL} if tools else {})
    for number, message in enumerate(messages):
        said_by, said = ("role", "content") if "role" in message else ("from", "value")
        calls = tools and bool(message.get(CALLS))
        if said_by not in message or (said not in message and not calls):
            raise UnusableRecord(f'message {number} needs a "role" and a "content"')
        role = text_of(message[said_by], f"{said_by} of message {number}")
        if role not in roles:
            also = ", and with --chat tool" if not tools else ""
            raise UnusableRecord(f"message {number} has the role {role[:40]!r}; it can be {', '.join(roles)}{also}")
        if not tools and message.get(CALLS):
            raise UnusableRecord(f'message {number} has "{CALLS}", which --chat alone can write')
        blank = roles[role] == SYSTEM or calls  # many files have empty system messages
        text = "" if calls and message.get(said) is None else message[said]
        found.append((roles[role], _text(text, f"{said} of message {number}", blank)))
    if not any(True for _ in answered(found)):
        raise UnusableRecord("no turn of the assistant follows one of the user")
    return found


def messages_of(row: Mapping[str, Any]) -> tuple[Any, str]:
    """The value of the first usual key that the object has, and that key.

    Raises:
      UnusableRecord: there is none.
    """
    key = next((key for key in KEYS if row.get(key) is not None), None)
    if key is None:
        raise UnusableRecord(f'it has no "{KEYS[0]}"')
    return row[key], key


def without_loss(row: Mapping[str, Any]) -> frozenset[int]:
    """The numbers of messages with OpenAI's "weight" 0. They are not learned, but stay in the context.

    Raises:
      UnusableRecord: a weight other than 0 and 1.
    """
    weights = [1 if message.get(_WEIGHT) is None else message[_WEIGHT] for message in messages_of(row)[0]]
    for number, weight in enumerate(weights):
        if isinstance(weight, bool) or weight not in (0, 1):
            raise UnusableRecord(f'"{_WEIGHT}" of message {number} has to be 0 or 1')
    return frozenset(number for number, weight in enumerate(weights) if not weight)


def _text(value: Any, name: str, blank: bool) -> str:
    """A message's content: text, or OpenAI's list of text parts."""
    if isinstance(value, list):
        if not all(isinstance(part, dict) and part.get("type", "text") == "text" for part in value):
            raise UnusableRecord(f'"{name}" has a part that is no text')
        value = "".join(text_of(part.get("text"), name, blank=True) for part in value)
    return text_of(value, name, blank=blank)


def answered(turns: Sequence[Turn]) -> Iterator[int]:
    """The numbers of the assistant's turns that follow one of the user. These are learned.

    A greeting before any other turn is only context.
    """
    asked = False
    for number, (role, _) in enumerate(turns):
        if role == ASSISTANT and asked:
            yield number
        asked = asked or role == USER


def plain(turns: Sequence[Turn]) -> str:
    r"""The text before an answer, in the plain form.

    Example:
      >>> plain([("user", "Who wrote Emma?")])
      'User: Who wrote Emma?\n\nAssistant:'
    """
    said = [_line(turn) for turn in turns if turn[1].strip()]
    return _BETWEEN.join([*said, f"{_SAID_BY[ASSISTANT]}:"])


def _line(turn: Turn) -> str:
    role, text = turn
    return f"{_SAID_BY[role]}: {text}"


def contexts(
    turns: Sequence[Turn], room: int, count: Count, write: Callable[[Sequence[Turn]], str] = plain
) -> Iterator[tuple[int, list[Turn] | None]]:
    """What stands before each answer that is learned, without the oldest turns if it would be too long.

    System messages at the beginning stay, and the rest begins with a turn of the user. The time for a long conversation
    is proportional to what is kept.

    Args:
      turns: the turns of a conversation.
      room: most tokens of an input.
      count: returns the number of tokens of each text.
      write: makes the text that asks for the turn after the given ones.

    Yields:
      The number of an answer, and the turns before it; None if not even the last of them fits.
    """
    sizes = count([_line(turn) + _BETWEEN for turn in turns])
    head = next(number for number, (role, _) in enumerate(turns) if role != SYSTEM)
    least = sum(sizes[:head]) + count([plain(())])[0]
    oldest = head  # turns that were too much before one answer are too much before the next
    for answer in answered(turns):
        start, total = answer, least
        while start > oldest and (start == answer or total + sizes[start - 1] <= room):
            start -= 1
            total += sizes[start]
        while True:
            if start > head:
                start = next((n for n in range(start, answer - 1) if turns[n][0] == USER), answer - 1)
            left = [*turns[:head], *turns[start:answer]]
            if total <= room * _FAR and count([write(left)])[0] <= room:
                yield answer, left
                oldest = start
                break
            if start == answer - 1:
                yield answer, None
                break
            total -= sizes[start]
            start += 1
