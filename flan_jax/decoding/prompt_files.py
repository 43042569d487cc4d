"""Prompts and answers as JSON lines."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from flan_jax.data.chat import Message, checked_messages, checked_settings
from flan_jax.decoding.completion import Completion
from flan_jax.errors import FlanError
from flan_jax.files import AnyPath, user_path
from flan_jax.json_lines import read_json_lines, refuse_same_ids, to_json


@dataclasses.dataclass(frozen=True)
class Question:
    """A line of the input.

    Attributes:
      id: any JSON value; given back as it came.
      prompt: the text to answer; empty where there are messages.
      messages: a conversation to answer, or nothing.
      settings: what a chat template reads beside messages, see `flan_jax.data.chat.Conversation`.
    """

    id: Any
    prompt: str
    messages: tuple[Message, ...] = ()
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def read(path: str | AnyPath, *, talks: bool = False) -> list[Question]:
    """Reads a file; see `parse`.

    Raises:
      FlanError: it cannot be read, or a line is broken.
    """
    try:
        with user_path(path).open("rb") as file:
            return parse(file, str(path), talks=talks)
    except OSError as error:
        raise FlanError(f"cannot read prompts from {path}: {error.strerror}.") from error


def parse(lines: Iterable[bytes], where: str, *, talks: bool = False) -> list[Question]:
    """Questions of JSON lines of {"id", "prompt"} or {"id", "messages"}; blank lines and further fields are ignored.

    Args:
      lines: UTF-8; see `flan_jax.json_lines.read_json_lines`.
      where: their place, for errors.
      talks: whether a chat template renders them, so that what it reads beside messages is no further field.

    Raises:
      FlanError: a line is broken, two have the same id, or there is none; it names place, line and field.
    """
    questions: list[Question] = []
    numbers: list[int] = []
    for line in read_json_lines(lines, where):
        at = f"{where} line {line.number}"
        if line.problem:
            raise FlanError(f"{at} is not JSON in UTF-8 that can be read: {line.problem}.")
        numbers.append(line.number)
        values = line.value
        settings = checked_settings(values, at) if talks and isinstance(values, dict) else {}
        if isinstance(values, dict) and "id" in values and "messages" in values:
            if "prompt" not in values:
                messages = checked_messages(values["messages"], at)
                questions.append(Question(values["id"], "", tuple(messages), settings))
                continue
            if talks:
                raise FlanError(f'{at} holds a "prompt" and "messages": leave one of them out.')
        if not isinstance(values, dict) or "id" not in values or not isinstance(values.get("prompt"), str):
            raise FlanError(f'{at}: give an object with an "id" and a "prompt" that is a string.')
        questions.append(Question(values["id"], values["prompt"], settings=settings))
    refuse_same_ids(zip(numbers, (question.id for question in questions), strict=True), where)
    if not questions:
        raise FlanError(f'{where} holds no prompts; give one JSON line of {{"id", "prompt"}} each.')
    return questions


def answers(questions: Sequence[Question], completions: Sequence[Completion]) -> list[str]:
    """JSON lines of {"id", "text", "finish", "tokens"}, and "score" after a beam search; in order."""
    lines = []
    for question, completion in zip(questions, completions, strict=True):
        values = {"id": question.id, "text": completion.text, "finish": completion.finish}
        values["tokens"] = completion.num_tokens
        if completion.score is not None:
            values["score"] = completion.score
        lines.append(to_json(values, ascii_only=False, what=f"the answer to {question.id!r}"))
    return lines
