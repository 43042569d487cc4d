"""Chat templates: from messages to the text that a model was taught to read, rendered as in transformers.

A vocabulary folder keeps templates in transformers' own files, next to the special tokens that they may use:

    vocabulary/chat_template.jinja                  the default
    vocabulary/additional_chat_templates/<name>.jinja
"""

from __future__ import annotations

import dataclasses
import datetime
import functools
import json
from collections.abc import Mapping, Sequence
from typing import Any

from flan_jax.errors import FlanError, unknown_name
from flan_jax.files import AnyPath, is_remote, make_folder

DEFAULT = "default"
_WITH_TOOLS = "tool_use"  # transformers' name of the template for conversations with tools
FILE, FOLDER = "chat_template.jinja", "additional_chat_templates"  # transformers' names
# Marks the place where a message continues; unchanged by upper or lower case, JSON or lists.
_HERE = "FLAN_JAX_GOES_ON_HERE"
REASONING = ("reasoning_content", "thinking", "reasoning")  # the names under which messages hold it

Message = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Conversation:
    """What a chat template renders.

    Attributes:
      messages: each has a "role" and mostly a "content".
      settings: other values that a template may read: "tools" and "documents" (lists of objects), or for example
        "enable_thinking".
    """

    messages: Sequence[Message]
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Chat:
    """The chat templates of a model.

    Attributes:
      templates: Jinja texts by name; "default" is used if no name is given.
      special_tokens: texts that templates may use, for example {"bos_token": "<s>"}.
    """

    templates: Mapping[str, str]
    special_tokens: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def template(self, name: str | None = None) -> str:
        """The Jinja text of a template.

        Args:
          name: the template's name; None takes the default.

        Raises:
          FlanError: there is none with that name, or no default.
        """
        if name is None and DEFAULT not in self.templates:
            known = ", ".join(sorted(self.templates))
            raise FlanError(f"this model has several chat templates and no default; name one: {known}.")
        if (name or DEFAULT) not in self.templates:
            raise unknown_name("chat template", name, self.templates)
        return self.templates[name or DEFAULT]

    def render(
        self,
        messages: Sequence[Message],
        name: str | None = None,
        /,
        *,
        add_generation_prompt: bool = True,
        **more: Any,
    ) -> str:
        """The text of a conversation.

        Args:
          messages: each has a "role" and mostly a "content".
          name: the template's name; None takes the default, or "tool_use" if that exists and there are tools.
          add_generation_prompt: whether the model's answer comes next. Otherwise the last message continues.
          **more: whatever else the template reads, such as `tools` and `documents`.

        Raises:
          FlanError: the template is broken, or refuses these messages; `__cause__` has its own error.
        """
        if not messages:
            raise FlanError("a conversation needs a message: give one or more.")
        chat = [_message(message) for message in messages]
        if not add_generation_prompt:
            chat[-1] = _open(chat[-1])
        text = self._rendered(chat, name, add_generation_prompt, more)
        if add_generation_prompt:
            return text
        if _HERE not in text:
            raise FlanError("the chat template leaves the last message out, so that it cannot be continued.")
        at = text.rindex(_HERE)
        # A template that trims messages has removed the space after the mark.
        return text[:at] if text[at + len(_HERE) :].startswith(" ") else text[:at].rstrip()

    def whole(self, messages: Sequence[Message], name: str | None = None, /, **more: Any) -> str:
        """The text of a finished conversation: its last message is closed, and no answer is asked for.

        Args:
          messages: see `render`.
          name: see `render`.
          **more: see `render`.

        Raises:
          FlanError: see `render`.
        """
        return self._rendered([_message(message) for message in messages], name, False, more)

    def _rendered(self, chat: Sequence[Message], name: str | None, asks: bool, more: Mapping[str, Any]) -> str:
        if name is None and more.get("tools") is not None and _WITH_TOOLS in self.templates:
            name = _WITH_TOOLS
        read = {"tools": None, "documents": None, **self.special_tokens, **more}
        try:
            return _compiled(self.template(name)).render(read | {"messages": chat, "add_generation_prompt": asks})
        except FlanError:
            raise
        except Exception as error:  # a template is a program: it can fail in any way
            reason = " ".join(str(error).split()) or type(error).__name__
            raise FlanError(
                f"the chat template refuses these messages ({reason[:200].rstrip('.')}): change the messages, or give "
                "the text as a prompt without --chat."
            ) from error

    def save(self, folder: AnyPath) -> None:
        """Writes the templates as files of transformers.

        Raises:
          FlanError: a template's name cannot be a file name.
        """
        for name, template in self.templates.items():
            path = folder / FILE if name == DEFAULT else folder / FOLDER / f"{name}.jinja"
            if name != DEFAULT and (not name or any(mark in name for mark in "/\\\0")):
                raise FlanError(f"the chat template {name!r} has a name that cannot be a file: rename it.")
            make_folder(path.parent)
            path.write_bytes(template.encode("utf-8"))


def as_read(template: str) -> str:
    """A template as it is read back from its file: "?" for what UTF-8 cannot hold, and lines that end as in Jinja."""
    return template.encode("utf-8", "replace").decode().replace("\r\n", "\n").replace("\r", "\n")


def templates_in(folder: AnyPath) -> dict[str, str]:
    """The templates in the files of a folder, by name; empty if there are none.

    Raises:
      FlanError: a file is not UTF-8.
    """
    if is_remote(folder) and not any(path.name in (FILE, FOLDER) for path in folder.iterdir()):
        return {}  # by one request
    paths = {DEFAULT: folder / FILE} if (folder / FILE).is_file() else {}
    paths |= {path.name.removesuffix(".jinja"): path for path in sorted((folder / FOLDER).glob("*.jinja"))}
    found = {}
    for name, path in paths.items():
        try:
            found[name] = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise FlanError(f"{path} cannot be read ({error}); get it again from where it came.") from error
    return found


def checked_messages(values: Any, where: str) -> list[dict[str, Any]]:
    """Checks messages from JSON and returns them.

    Args:
      values: should be a list of objects with a "role" and a "content".
      where: their place, for error messages.

    Raises:
      FlanError: they are not messages.
    """
    shaped = isinstance(values, list) and values and all(isinstance(m, dict) for m in values)
    if not shaped or not all(isinstance(m.get("role"), str) for m in values):
        raise FlanError(f'{where}: "messages" must be a list of objects with a "role" and a "content".')
    for number, message in enumerate(values):
        content = message.get("content")
        if not isinstance(content, str | list) and not (content is None and message.get("tool_calls") is not None):
            raise FlanError(f'{where}: "content" of message {number} must be a text, or a list of its parts.')
    return values


def checked_settings(values: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The settings for a chat template in a JSON object: "tools", "documents" and the fields of "chat_template_kwargs".

    Args:
      values: the object.
      where: its place, for error messages.

    Raises:
      FlanError: one of them has another form.
    """
    found = {}
    for name in ("tools", "documents"):
        listed = values.get(name)
        if listed is None:
            continue
        if not isinstance(listed, list) or not all(isinstance(one, dict) for one in listed):
            raise FlanError(f'{where}: "{name}" must be a list of objects.')
        found[name] = listed
    more = values.get("chat_template_kwargs") or {}
    if not isinstance(more, dict) or {"messages", "add_generation_prompt", "tools", "documents"} & set(more):
        raise FlanError(
            f'{where}: "chat_template_kwargs" must be an object of settings, such as {{"enable_thinking": false}}; '
            "messages, tools and documents stand beside it."
        )
    return found | more


def _message(message: Message) -> dict[str, Any]:
    """A message in the form that templates expect: without nulls, with its reasoning under the names that they read."""
    values = {key: value for key, value in message.items() if value is not None}
    reasoning = next((values[name] for name in REASONING if name in values), None)
    return values if reasoning is None else {"thinking": reasoning, **values, "reasoning_content": reasoning}


def _open(message: dict[str, Any]) -> dict[str, Any]:
    content = message.get("content")
    if isinstance(content, list):
        texts = [number for number, part in enumerate(content) if isinstance(part, dict) and "text" in part]
        if texts:
            last = texts[-1]
            part = {**content[last], "text": content[last]["text"] + _HERE + " "}
            return {**message, "content": [*content[:last], part, *content[last + 1 :]]}
    elif isinstance(content, str):
        return {**message, "content": content + _HERE + " "}
    raise FlanError("the last message has no text that could be continued.")


@functools.lru_cache(maxsize=32)
def _compiled(template: str) -> Any:
    """A Jinja template in transformers' sandbox and with its settings."""
    import jinja2  # not above, because most programs do not need it
    from jinja2 import ext, nodes, sandbox

    class Generation(ext.Extension):
        """`{% generation %}` marks what the model says. It renders as the text inside."""

        tags = {"generation"}  # noqa: RUF012 (Jinja reads it)

        def parse(self, parser: Any) -> Any:
            line = next(parser.stream).lineno
            body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
            return nodes.CallBlock(self.call_method("_inside"), [], [], body).set_lineno(line)

        def _inside(self, caller: Any) -> str:
            return caller()

    def raise_exception(message: str) -> None:
        raise jinja2.TemplateError(message)

    def tojson(
        value: Any,
        ensure_ascii: bool = False,
        indent: Any = None,
        separators: Any = None,
        sort_keys: bool = False,
    ) -> str:
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    environment = sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, ext.loopcontrols]
    )
    environment.filters["tojson"] = tojson
    environment.globals["raise_exception"] = raise_exception
    environment.globals["strftime_now"] = lambda form: datetime.datetime.now().strftime(form)
    return environment.from_string(template)
