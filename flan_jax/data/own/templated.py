"""Conversations as a model's own chat template writes them.

Each answer is written as it would be asked for: the conversation so far, then the text that makes the model speak. What
the template adds for the answer is the target. Some templates, as those of thinking models, write earlier turns
differently from the last one. A model is thus tuned on the form in which it will be used.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from flan_jax import content
from flan_jax.data import chat
from flan_jax.data.own import store
from flan_jax.data.own.conversations import CALLS, Turn
from flan_jax.data.own.records import Tokens, UnusableRecord
from flan_jax.data.vocabularies import Tokenizer
from flan_jax.errors import FlanError
from flan_jax.values import shown
from flan_jax.wording import counted

_KNOWN_TO_TEMPLATES = ("developer",)  # roles that are not renamed, as in transformers


class Spoken(tuple):
    """A turn that keeps its whole message, for templates that read more of it."""

    message: Mapping[str, Any]

    @classmethod
    def of(cls, turn: Turn, message: Mapping[str, Any]) -> Spoken:
        """Makes it from a turn and the message that it was read from."""
        found = cls(turn)
        found.message = message
        return found


@dataclasses.dataclass(frozen=True)
class Answer:
    """A turn of the assistant.

    Attributes:
      inputs: the conversation up to where the model speaks.
      text: what it says; if it calls a tool, as the template writes it.
      tokens: the tokens of both, as a stream takes them.
    """

    inputs: str
    text: str
    tokens: Tokens


class Writer:
    """Writes conversations by a chat template of a vocabulary.

    Attributes:
      digest: identifies the template and the special tokens that it uses.
      changed: number of records in which a control token was spelled out.
      apart: number of answers whose first token would have been joined with the template's last one.
    """

    def __init__(self, tokenizer: Tokenizer, name: str) -> None:
        """Finds the template.

        Args:
          tokenizer: the model's vocabulary.
          name: the template's name; empty takes the default.

        Raises:
          FlanError: it has no chat template, or none with that name.
        """
        if tokenizer.chat is None or not tokenizer.chat.templates:
            raise FlanError(
                "--chat: this vocabulary has no chat template; give --vocabulary=CHECKPOINT/vocabulary of a model that "
                "was imported with one, or leave --chat out for the plain form."
            )
        self._tokenizer, self._name, self._chat = tokenizer, name or None, tokenizer.chat
        self._plain = store.without_control_tokens(tokenizer, written=True)
        chosen = {name: tokenizer.chat.template(self._name)}
        # Without a name, the template for tools may be used.
        said = [chosen if name else dict(tokenizer.chat.templates), dict(tokenizer.chat.special_tokens)]
        self.digest = content.digest([json.dumps(said, sort_keys=True)])
        self.changed = self.apart = 0
        self._separator: int | None = None

    def turns(self, turns: Sequence[Turn], messages: Sequence[Mapping[str, Any]]) -> list[Spoken]:
        """The turns of a conversation with their messages. Spelled control tokens stay text."""
        found, changed = [], False
        for (role, text), given in zip(turns, messages, strict=True):
            rest = {name: value for name, value in given.items() if name not in ("role", "content", "from", "value")}
            own = given.get("role") in _KNOWN_TO_TEMPLATES
            message = {"role": given["role"] if own else role, "content": text, **rest}
            if given.get(CALLS) and given.get("content", given.get("value")) is None:
                del message["content"]
            plain = _mapped(message, self._plain)
            changed = changed or plain != message
            found.append(Spoken.of((role, plain.get("content", "")), plain))
        self.changed += changed
        return found

    def reads(self, name: str) -> bool:
        """Whether a template uses a key of messages."""
        names = chat.REASONING if name in chat.REASONING else (name,)
        return any(one in template for template in self._chat.templates.values() for one in names)

    def settings(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The settings beside messages. Spelled control tokens in tools and documents stay text."""
        texts = {name: _mapped(given[name], self._plain) for name in ("tools", "documents") if name in given}
        return {**given, **texts}

    def asked(self, turns: Sequence[Spoken], settings: Mapping[str, Any]) -> str:
        """The text that asks for the turn after these.

        Raises:
          UnusableRecord: the template refuses them.
        """
        return self._rendered(self._chat.render, turns, settings)

    def answer(self, turns: Sequence[Spoken], said: Spoken, settings: Mapping[str, Any]) -> Answer:
        """A turn of the assistant after other turns.

        Raises:
          UnusableRecord: the template refuses them, or writes the answer elsewhere than it asks for it.
          FlanError: no answer can be learned with this template and vocabulary.
        """
        inputs = self.asked(turns, settings)
        whole = self._rendered(self._chat.whole, [*turns, said], settings)
        if not whole.startswith(inputs) or len(whole) == len(inputs):
            raise UnusableRecord(
                "the chat template does not write the answer after what asks for it; settings of the template, such as "
                "enable_thinking in chat_template_kwargs, may be why"
            )
        tokens = self._tokens(inputs, whole)
        text = self._tokenizer.decode(tokens.targets).strip() if said.message.get(CALLS) else said[1]
        return Answer(inputs, text, tokens)

    def notes(self) -> list[str]:
        """Lines for the user."""
        found = [f"conversations are written by the vocabulary's chat template {self._name or chat.DEFAULT!r}"]
        if self.changed:
            found.append(store.spelled(self.changed, "conversations"))
        if self.apart:
            found.append(
                f"{counted(self.apart, 'answers')} would share a token with what asks for them: they are tokens of "
                "their own, as when the model answers"
            )
        return found

    def count(self, texts: Sequence[str]) -> list[int]:
        """The number of tokens of each text that a template wrote."""
        return [len(ids) for ids in self._tokenizer.encode_written(texts)]

    def _rendered(self, render: Callable[..., str], turns: Sequence[Spoken], settings: Mapping[str, Any]) -> str:
        try:
            return render([turn.message for turn in turns], self._name, **settings)
        except FlanError as error:
            raise UnusableRecord(str(error).partition(": change the messages")[0]) from error

    def _tokens(self, inputs: str, whole: str) -> Tokens:
        tokenizer = self._tokenizer
        before, all_ids = tokenizer.encode_written([inputs, whole])
        if all_ids[: len(before)] == before:
            after = all_ids[len(before) :]
        else:
            after = tokenizer.encode_written([whole[len(inputs) :]])[0]
            self.apart += 1
        if tokenizer.bos_id is not None:
            if before[:1] != [tokenizer.bos_id]:
                raise FlanError(
                    "--chat: this vocabulary begins every text with BOS, and its chat template does not write it: "
                    "leave --chat out."
                )
            before = before[1:]
        if len(before) < 2:
            raise UnusableRecord("the chat template writes nothing before the answer")
        *before, separator = before
        if self._separator is None:
            self._separator = separator
        elif self._separator != separator:
            named = " and ".join(shown(tokenizer.decode_written([number])) for number in (self._separator, separator))
            raise FlanError(
                f"--chat: what asks for an answer ends with different tokens ({named}), and rows have one for all of a "
                "dataset: leave --chat out, or prepare these conversations as datasets of their own."
            )
        return Tokens(before, separator, _ended(after, tokenizer))


def _ended(ids: Sequence[int], tokenizer: Tokenizer) -> list[int]:
    """An answer's tokens without what the template writes after its end, and without EOS, which a row adds."""
    ends = [place for place, number in enumerate(ids) if number in tokenizer.stop_ids]
    if not ends:
        return list(ids)
    last = ends[-1]
    return list(ids[:last] if ids[last] == tokenizer.eos_id else ids[: last + 1])


def _mapped(value: Any, plain: Any) -> Any:
    """A JSON value with `plain` applied to all its texts."""
    if isinstance(value, str):
        return plain(value)
    if isinstance(value, Mapping):
        return {name: _mapped(one, plain) for name, one in value.items()}
    return [_mapped(one, plain) for one in value] if isinstance(value, list) else value
