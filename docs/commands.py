"""The directive `command`: a command's usage, description and options, as its own parser has them.

```{command} flan_jax.train
```
"""

from __future__ import annotations

import argparse
import importlib
import re
from collections.abc import Iterator
from typing import Any
from unittest import mock

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from flan_jax import options

SHORT = 28  # characters, which fit a line of a phone


class _Found(Exception):
    """Ends a program where it would read its command line, and has its parser."""


def parser_of(module: str) -> argparse.ArgumentParser:
    """The parser that a program reads its command line with."""

    def found(parser: argparse.ArgumentParser, *_: Any) -> None:
        raise _Found(parser)

    with mock.patch.object(options.Parser, "parse_args", found):
        try:
            importlib.import_module(module).main([])
        except _Found as end:
            return end.args[0]
    raise LookupError(f"{module} made no parser")


def _escaped(text: str) -> str:
    """Help as Markdown: what is spelled as an option or a name in angle brackets stays as it is."""
    text = re.sub(r"([*_<>\[\]$|])", r"\\\1", " ".join(text.split()))
    return re.sub(r"(?<![\w`-])(--?[a-z](?:\w|\\_)*)", lambda found: f"`{found[1]}`".replace("\\", ""), text)


def _option(parser: argparse.ArgumentParser, action: argparse.Action) -> str:
    """An option as it is written: `--steps=STEPS`."""
    if not action.option_strings:
        choices = "|".join(map(str, action.choices)) if action.choices else action.dest.upper()
        return str(action.metavar or choices)
    name = action.option_strings[-1]
    if action.nargs == 0:
        return name
    value = action.metavar or ("|".join(map(str, action.choices)) if action.choices else action.dest.upper())
    return f"{name}[={value}]" if action.nargs == "?" else f"{name}={value}"


def _description(text: str) -> Iterator[str]:
    """The description: paragraphs, and command lines in blocks that can be copied."""
    for paragraph in text.strip().split("\n\n"):
        if paragraph.startswith(("python -m", "flan-jax ")) or paragraph.startswith("    "):
            yield f"```bash\n{paragraph}\n```"
        else:
            yield re.sub(r"(?<!`)([<>$])", r"\\\1", paragraph)


def as_markdown(module: str) -> str:
    """Usage, description and options of a command, in MyST's Markdown."""
    parser = parser_of(module)
    lines = [*_description(parser.description or "")]
    if parser.epilog:
        lines += _description(parser.epilog)
    lines.append(f"```{{program}} {module}\n```")
    for action in parser._actions:
        if isinstance(action, argparse._HelpAction):
            continue
        text = (action.help or "") % {**vars(action), "prog": parser.prog}
        default = action.default
        said = default not in (None, False, "", argparse.SUPPRESS) and "default" not in text and not callable(default)
        text += f" (default: {' '.join(map(str, default)) if isinstance(default, list | tuple) else default})" * said
        lines.append(f"```{{option}} {_option(parser, action)}\n{_escaped(text)}\n```")
    return "\n\n".join(lines)


class Command(SphinxDirective):
    """A command of which only the module is named."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Parses the command's Markdown in its place."""
        return self.parse_text_to_nodes(as_markdown(self.arguments[0]))


def _mark_short_code(_: Sphinx, document: nodes.document) -> None:
    """Gives code of a few words the class `short`, for the style sheet: browsers break `--option` after its hyphens."""
    for code in document.findall(nodes.literal):
        if len(code.astext()) <= SHORT:
            code["classes"].append("short")


def _keep_options_whole(_: Sphinx, __: str, ___: str, context: dict[str, Any], ____: nodes.document | None) -> None:
    """Puts the names of options in commands into spans of class `short`."""

    def kept(block: re.Match[str]) -> str:
        return re.sub(r"(?<![\w-])--[\w.]+", lambda name: f'<span class="short">{name[0]}</span>', block[0])

    context["body"] = re.sub(r'<div class="highlight-bash.*?</pre>', kept, context.get("body", ""), flags=re.DOTALL)


def setup(app: Sphinx) -> dict[str, bool]:
    """What Sphinx calls."""
    app.add_directive("command", Command)
    app.connect("doctree-read", _mark_short_code)
    app.connect("html-page-context", _keep_options_whole)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
