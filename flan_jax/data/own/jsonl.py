"""JSON lines of a user's own: prompts with targets, or conversations. No TensorFlow."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from flan_jax.data.chat import checked_settings
from flan_jax.data.own import conversations, templated
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
    ("question", "answer"),
)
Asked = Callable[[Sequence[Any]], str]
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
      path: of JSON lines in UTF-8.
      input_key: the key of a prompt; by default one of the usual pairs.
      target_key: of its target.
      max_examples: the first so many records, turns of conversations counted; None for all.
      room: most tokens of an input; of a conversation that is too long, the oldest turns go.
      count: how many tokens each of some texts has; words by default.
      writer: of a chat template, for conversations; None for the plain form.

    Raises:
      FlanError: the file cannot be read, or it cannot be told which keys are meant.
    """
    if bool(input_key) != bool(target_key):
        raise FlanError("--input_key and --target_key belong together: give both, or neither.")
    found, keys, shorter, too_long, unweighted = Reading(), (input_key, target_key), 0, 0, 0
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
                keys = keys if chat else _keys_of(row, f"{path} {place}")
                if chat and (also := [pair for pair in PAIRS if all(isinstance(row.get(key), str) for key in pair)]):
                    found.notes.append(f'"{"/".join(also[0])}" stand beside the conversations, and are not read')
            if not chat:
                found.records.append(_pair(row, str(line.number), *keys))
                continue
            turns = conversations.turns_of(row)
            asked: Asked = conversations.plain
            counts = count
            if writer is not None:
                if row.get(OPTIONS) is not None:
                    raise UnusableRecord('it has "options", which are asked in the plain form alone: leave --chat out')
                settings = writer.settings(_settings(row))
                turns = writer.turns(turns, row[next(key for key in conversations.KEYS if key in row)])
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
    if shorter:
        found.notes.append(f"of {counted(shorter, 'answers')} the conversation is too long: its oldest turns are gone")
    if unweighted:
        found.notes.append(f"{counted(unweighted, 'answers')} of weight 0: they are context, and carry no loss")
    if too_long:
        found.notes.append(f"{counted(too_long, 'answers')} left out: the message before is too long by itself")
    return found


def _pair(row: Mapping[str, Any], identity: str, input_key: str, target_key: str) -> Any:
    for key in (input_key, target_key):
        if key not in row:
            raise UnusableRecord(f'it has no "{key}"')
    inputs, target = text_of(row[input_key], input_key), text_of(row[target_key], target_key)
    return record_of(identity, inputs, target, row.get(OPTIONS))


def _settings(row: Mapping[str, Any]) -> dict[str, Any]:
    """What a line says to a chat template, as `infer --chat` reads it."""
    try:
        return checked_settings(row, "it")
    except FlanError as error:
        raise UnusableRecord(str(error).removeprefix("it: ").rstrip(".")) from error


def _keys_of(row: Mapping[str, Any], where: str) -> tuple[str, str]:
    """The pair of keys that the first object has."""
    pairs = [pair for pair in PAIRS if all(key in row for key in pair)]
    if len(pairs) == 1:
        return pairs[0]
    if pairs:
        shown = " and ".join("/".join(pair) for pair in pairs)
        raise FlanError(f"{where} has {shown}, and it cannot be told which are meant: {_ALSO}.")
    usual = ", ".join("/".join(pair) for pair in PAIRS)
    keys = ", ".join(list(row)[:8]) or "none"
    raise FlanError(f'{where} has the keys {keys}, and neither "messages" nor a usual pair ({usual}): {_ALSO}.')
