"""Reads a user's own JSON lines: prompts with targets, or conversations. No TensorFlow."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from flan_jax.data.chat import checked_settings
from flan_jax.data.own import conversations, templated
from flan_jax.data.own.conversations import SYSTEM
from flan_jax.data.own.records import Reading, UnusableRecord, record_of, text_of
from flan_jax.errors import FlanError
from flan_jax.files import AnyPath
from flan_jax.json_lines import read_json_lines
from flan_jax.protocol import MAX_INPUT_TOKENS
from flan_jax.templates import OPTIONS
from flan_jax.wording import counted

PAIRS = (
    ("prompt", "target"),
    ("inputs", "targets"),
    ("input", "target"),
    ("prompt", "completion"),
    ("prompt", "response"),
    ("question", "answer"),
    ("instruction", "output"),
    ("instruction", "response"),
    ("input", "output"),
)
# The text that an instruction is about, in the form of Alpaca and Dolly.
_INSTRUCTION, _BESIDE = "instruction", ("input", "context")
Asked = Callable[[Sequence[Any]], str]
_SETTINGS = ("tools", "documents", "chat_template_kwargs")  # see `checked_settings`
_ALSO = "give --input_key and --target_key"


def read(
    path: AnyPath,
    *,
    input_key: str = "",
    target_key: str = "",
    max_examples: int | None = None,
    room: int = MAX_INPUT_TOKENS,
    count: conversations.Count = lambda texts: [len(text.split()) for text in texts],
    writer: templated.Writer | None = None,
) -> Reading:
    """Reads a file.

    Args:
      path: JSON lines in UTF-8.
      input_key: the key of a prompt; by default one of the usual pairs.
      target_key: the key of its target.
      max_examples: how many records to read, from the first; each turn of a conversation counts. None for all.
      room: most tokens of an input. A conversation that is too long loses its oldest turns.
      count: returns the number of tokens of each text; by default words.
      writer: writes conversations by a chat template; None for the plain form.

    Raises:
      FlanError: the file cannot be read, or it is unclear which keys are meant.
    """
    if bool(input_key) != bool(target_key):
        raise FlanError("--input_key and --target_key belong together: give both, or neither.")
    found, keys, shorter, too_long, unweighted = Reading(unit="line"), (input_key, target_key), 0, 0, 0
    read_keys, unread, unread_of_messages = {input_key, target_key, OPTIONS}, set(), set()
    chat = False if input_key else None
    for line in read_json_lines(path):
        if max_examples is not None and len(found.records) >= max_examples:
            break
        place = f"line {line.number}"
        try:
            row = line.value
            if isinstance(row, list) and row and all(isinstance(one, dict) for one in row):
                raise UnusableRecord("it is a list of objects; write an object a line, as jq -c '.[]' does")
            if line.problem or not isinstance(row, dict):
                raise UnusableRecord(line.problem or "it is no JSON object")
            if chat is None:
                chat = conversations.is_chat(row)
                if writer is not None and not chat:
                    raise FlanError(f"{path} {place}: --chat is for conversations, and this is none: leave it out.")
                if chat:
                    read_keys = {SYSTEM, *(_SETTINGS if writer else [OPTIONS])}
                else:
                    keys = _keys_of(row, f"{path} {place}")
                    read_keys = {*keys, OPTIONS}
            given = {key for key, value in row.items() if value is not None}
            if not chat:
                found.records.append(_pair(row, str(line.number), *keys, alone=bool(input_key)))
                unread |= given - read_keys - set(_beside(keys[0], bool(input_key)))
                continue
            row = conversations.with_system(row)
            messages, key = conversations.messages_of(row)
            unread |= given - read_keys - {key}
            turns = conversations.turns_of(row, tools=writer is not None)
            unread_of_messages |= conversations.unread_of(row)
            asked: Asked = conversations.plain
            counts = count
            if writer is not None:
                if row.get(OPTIONS) is not None:
                    raise UnusableRecord('it has "options", which are asked in the plain form alone: leave --chat out')
                settings = writer.settings(_settings(row))
                turns = writer.turns(turns, messages)
                asked, counts = functools.partial(writer.asked, settings=settings), writer.count
            opening = next(n for n, (role, _) in enumerate(turns) if role == conversations.USER)
            group = asked(turns[: opening + 1])
            context_only = conversations.without_loss(row)
            for number, before in conversations.contexts(turns, room, counts, asked):
                if number in context_only:
                    unweighted += 1
                    continue
                if before is None:
                    too_long += 1
                    continue
                shorter += len(before) < number
                identity = f"{line.number}#{number}"
                if writer is None:
                    found.records.append(record_of(identity, asked(before), turns[number][1], row.get(OPTIONS), group))
                    continue
                answer = writer.answer(before, turns[number], settings)
                record = record_of(identity, answer.inputs, answer.text, None, group)
                found.records.append(dataclasses.replace(record, tokens=answer.tokens))
        except UnusableRecord as problem:
            found.bad.append((place, str(problem)))
    found.form = "chat" if chat else "text"
    if max_examples is not None:
        del found.records[max_examples:]
    if writer is not None:
        found.notes += writer.notes()
        unread_of_messages = {name for name in unread_of_messages if not writer.reads(name)}
    for names, where in ((unread, "beside what is used"), (unread_of_messages, "in messages")):
        if names:
            found.notes.append(f"{_listed(names)} {where}: not read")
    if shorter:
        found.notes.append(f"of {counted(shorter, 'answers')} the conversation is too long: its oldest turns are gone")
    if unweighted:
        found.notes.append(f"{counted(unweighted, 'answers')} of weight 0: they are context, and carry no loss")
    if too_long:
        found.notes.append(f"{counted(too_long, 'answers')} left out: the message before is too long by itself")
    return found


def _listed(names: set[str]) -> str:
    shown = [repr(name if len(name) <= 40 else f"{name[:40]}...") for name in sorted(names)]
    return ", ".join(shown[:8]) + (f" and {len(shown) - 8} more keys" if len(shown) > 8 else "")


def _beside(input_key: str, alone: bool) -> Sequence[str]:
    """The keys of texts that stand below a prompt."""
    return _BESIDE if input_key == _INSTRUCTION and not alone else ()


def _pair(row: Mapping[str, Any], identity: str, input_key: str, target_key: str, *, alone: bool) -> Any:
    for key in (input_key, target_key):
        if key not in row:
            raise UnusableRecord(f'it has no "{key}"')
    inputs, target = text_of(row[input_key], input_key), text_of(row[target_key], target_key)
    below = [text_of(row[key], key, blank=True) for key in _beside(input_key, alone) if row.get(key) is not None]
    inputs = "\n\n".join([inputs, *(text for text in below if text.strip())])
    return record_of(identity, inputs, target, row.get(OPTIONS))


def _settings(row: Mapping[str, Any]) -> dict[str, Any]:
    """The settings for a chat template in a line, as `infer --chat` reads them."""
    try:
        return checked_settings(row, "it")
    except FlanError as error:
        raise UnusableRecord(str(error).removeprefix("it: ").rstrip(".")) from error


def _keys_of(row: Mapping[str, Any], where: str) -> tuple[str, str]:
    """The pair of keys that the first object has."""
    pairs = [pair for pair in PAIRS if all(row.get(key) is not None for key in pair)]
    pairs = pairs or [pair for pair in PAIRS if all(key in row for key in pair)]
    if any(pair[0] == _INSTRUCTION for pair in pairs):  # its "input" is what the instruction is about
        pairs = [pair for pair in pairs if pair[0] not in _BESIDE]
    if len(pairs) == 1:
        return pairs[0]
    if pairs:
        shown = " and ".join("/".join(pair) for pair in pairs)
        raise FlanError(f"{where} has {shown}, and it is unclear which are meant: {_ALSO}.")
    usual = ", ".join("/".join(pair) for pair in PAIRS)
    keys = ", ".join(list(row)[:8]) or "none"
    raise FlanError(f'{where} has the keys {keys}, and neither "messages" nor a usual pair ({usual}): {_ALSO}.')
