"""The configuration reference: every macro and every argument that gin can bind, with its default and meaning.

Nothing is written twice. Macros come from `flan_jax.macros`, their defaults and sections from the shipped run files,
arguments from the functions themselves, with the lines of their docstrings.
"""

from __future__ import annotations

import dataclasses
import inspect
import io
import re
import textwrap
import tokenize
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from flan_jax import gin_files, macros
from flan_jax.errors import FlanError, unknown_name
from flan_jax.gin_files import EVALUATION, STUDY, TRAINING
from flan_jax.lazy import lazy_imports
from flan_jax.models.config import DecoderConfig
from flan_jax.values import ByName, Either, Keyed, Kind, Several

with lazy_imports():  # most of it needs no JAX
    from flan_jax.training.optimizers import schedules

# Files that declare macros.
RUN_FILES = TRAINING, EVALUATION, STUDY
REQUIRED = "required"
SCHEDULE = "schedule "  # before the name of a schedule
_GIN_REQUIRED = "%gin.REQUIRED"


@dataclasses.dataclass(frozen=True)
class Macro:
    """A macro of a run file.

    Attributes:
      name: the macro's name.
      section: its heading in the file.
      default: its default as the file writes it; "required" if there is none.
      wanted: what it may be, in words.
      keys: for a dictionary, what each of its values may be.
      meaning: what it is for.
      note: the comment beside it in the file.
      arguments: the arguments that it sets.
    """

    name: str
    section: str
    default: str
    wanted: str
    keys: Mapping[str, str]
    meaning: str
    note: str
    arguments: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Argument:
    """An argument of a function.

    Attributes:
      name: the argument's name.
      default: its default as Python writes it; "required" if there is none.
      wanted: what it may be, in words; empty if the table of macros does not say.
      keys: for a dictionary, what each of its values may be.
      meaning: its line in the docstring.
      macro: the macro of a run file that sets it; empty if there is none.
    """

    name: str
    default: str
    wanted: str
    keys: Mapping[str, str]
    meaning: str
    macro: str = ""


@dataclasses.dataclass(frozen=True)
class Function:
    """A function that gin can configure: its name in gin, its first line, and its arguments."""

    name: str
    meaning: str
    arguments: tuple[Argument, ...]


@dataclasses.dataclass(frozen=True)
class Reference:
    """Everything that can be configured.

    Attributes:
      files: the macros of each run file, in its order.
      functions: the functions whose arguments gin can bind.
      schedules: learning-rate schedules by name, with the arguments in brackets.
      shape: a model's shape, the fields of `DecoderConfig`.
    """

    files: Mapping[str, tuple[Macro, ...]]
    functions: tuple[Function, ...]
    schedules: tuple[Function, ...]
    shape: Function

    def to_dict(self) -> dict[str, Any]:
        """The reference as values that JSON can hold."""
        return dataclasses.asdict(self)

    def named(self, name: str) -> Macro | Function:
        """A macro, or a function with its arguments.

        Raises:
          FlanError: there is none with that name; the message has near matches.
        """
        found: dict[str, Macro | Function] = {one.name: one for one in (*self.functions, *self.schedules, self.shape)}
        for members in reversed([*self.files.values()]):  # a macro of both files is shown as in training
            found |= {macro.name: macro for macro in members}
        if name not in found:
            raise unknown_name("macro or function", name, found)
        return found[name]


def reference(functions: Mapping[str, Callable[..., Any]]) -> Reference:
    """Collects the reference.

    Args:
      functions: the functions whose arguments gin can bind, by their names in gin.

    Raises:
      FlanError: a run file declares a macro that is not in the table, or no run file declares one of the table.
    """
    files = {name: tuple(_macros_of(name)) for name in RUN_FILES}
    declared = {macro.name for members in files.values() for macro in members}
    if missing := [name for name in macros.BY_MACRO if name not in declared]:
        raise FlanError(f"macro {missing[0]} is in no run file: add it to one of {', '.join(RUN_FILES)}.")
    makers = {f"{SCHEDULE}{name}": maker for name, maker in schedules.MAKERS.items()}
    return Reference(
        files,
        tuple(_function(name, function) for name, function in functions.items()),
        tuple(_function(name, maker, own=schedules.KINDS, first=1) for name, maker in makers.items()),
        _function(DecoderConfig.__name__, DecoderConfig, section="Attributes"),
    )


# ---------------------------------------------------------------------------------------------------- what is there


def _macros_of(name: str) -> list[Macro]:
    """The macros of a run file, with the comments before them as headings."""
    found, section, blank = [], "", True
    for line in gin_files.find_gin_file(name).read_text(encoding="utf-8").splitlines():
        if head := re.fullmatch(r"# (.+)", line):
            section = head[1] if blank else section
        elif (statement := re.fullmatch(r"([A-Z_0-9]+) = (.+)", line)) is not None:
            default, note = _without_comment(statement[2])
            if (setting := macros.BY_MACRO.get(statement[1])) is None:
                raise FlanError(f"{name} declares {statement[1]}, which the table of macros has not.")
            found.append(
                Macro(
                    statement[1],
                    section,
                    REQUIRED if default == _GIN_REQUIRED else default,
                    setting.kind.wanted,
                    keys_of(setting.kind),
                    setting.meaning,
                    note,
                    tuple(one for one in setting.arguments if _belongs(one, name)),
                )
            )
        blank = not line.strip()
    return found


def _belongs(argument: str, file: str) -> bool:
    """Whether an argument belongs to the program that a run file is for."""
    program = argument.partition(".")[0]
    if file == TRAINING:
        return program not in ("evaluate", "study")
    return program in ({"study"} if file == STUDY else {"evaluate", "tasks"})


def _without_comment(text: str) -> tuple[str, str]:
    """A value as it is written, and the comment after it."""
    tokens = tokenize.generate_tokens(io.StringIO(text.replace(_GIN_REQUIRED, "None")).readline)
    comment = next((token.string for token in tokens if token.type == tokenize.COMMENT), "")
    return text.removesuffix(comment).strip(), comment.lstrip("# ")


def _function(
    name: str,
    function: Callable[..., Any],
    *,
    own: Mapping[str, Kind] | None = None,
    first: int = 0,
    section: str = "Args",
) -> Function:
    doc = inspect.getdoc(function) or ""
    lines = _lines(doc, section)
    found = []
    for argument, parameter in list(inspect.signature(function).parameters.items())[first:]:
        setting = macros.BY_ARGUMENT.get(f"{name}.{argument}")
        kind = setting.kind if setting else (own or {}).get(argument)
        found.append(
            Argument(
                argument,
                REQUIRED if parameter.default is parameter.empty else repr(parameter.default),
                kind.wanted if kind else "",
                keys_of(kind) if kind else {},
                lines.get(argument) or (setting.meaning if setting else ""),
                setting.macro if setting else "",
            )
        )
    return Function(name, " ".join(doc.partition("\n\n")[0].split()), tuple(found))


def _lines(doc: str, section: str) -> dict[str, str]:
    """The lines of a docstring by argument."""
    _, _, rest = doc.partition(f"{section}:\n")
    body = textwrap.dedent(re.split(r"\n\S", rest, maxsplit=1)[0])
    entries = re.findall(r"^(\w+): (.+(?:\n[ \t]+.+)*)", body, re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in entries}


def keys_of(kind: Kind) -> dict[str, str]:
    """What each value of a dictionary may be, if the kind (or one of several) knows its keys."""
    if isinstance(kind, Keyed):
        return {name: inner.wanted for name, inner in kind.kinds.items()}
    if isinstance(kind, Either):
        return {name: wanted for one in kind.kinds for name, wanted in keys_of(one).items()}
    if isinstance(kind, Several | ByName):
        return keys_of(kind.kind)
    return {}


# --------------------------------------------------------------------------------------------------------- the page

_PAGE = "docs/configuration.md"
COMMAND = f"python -m flan_jax.browse --macros --markdown={_PAGE}"
_INTRODUCTION = f"""# Configuration

Written by `{COMMAND}`; a test compares it with the code.
`python -m flan_jax.browse --macros=LORA` shows one entry; `--macros --json` prints all for a program.

A run is described by its gin files and its command line. `--gin_file=runs/tune.gin` may be given several times; a
later file overrides an earlier one, and `--gin.NAME=VALUE` overrides all files. A value is a Python literal. A text
needs quotes of its own inside the shell's (`--gin.MODEL_DIR="'runs/first'"`). Names in capitals are macros; a macro
sets one or more arguments. An argument without a macro is bound by its function's name: in a file with
`adafactor.momentum = 0.9`, on the command line with `--gin.adafactor.momentum=0.9`. Names and values are checked before
anything is opened. A macro is refused if nothing reads it, or if such a binding overrides it.

`include 'base.gin'` in your own file is looked for beside that file, then in the folder where you start, then among the
files of FLAN-JAX.

In a notebook, `train.main([...])` and `eval.main([...])` start afresh each time: values of an earlier run in the same
process do not count. Bindings that you made through gin for your own functions stay. A macro or argument on this page
must not be bound through gin elsewhere; it is then refused by name. Set it in the run's files or options.

Run files for the published models, with meshes and TPU slices, are in [planning](planning.md#run-files).
"""
_HEADS = {
    TRAINING: "Macros of training",
    EVALUATION: "Macros of evaluation",
    STUDY: "Macros of studies",
}


def page(found: Reference) -> str:
    """The reference as Markdown."""
    out = [_INTRODUCTION]
    for file, members in found.files.items():
        out.append(f"## {_HEADS[file]}\n\n`gin/{file}` has them with these defaults.\n")
        for section in dict.fromkeys(macro.section for macro in members):
            rows = [_macro_row(macro) for macro in members if macro.section == section]
            out.append(f"### {section}\n\n" + _table(("macro", "default", "may be", "what it is for"), rows))
    out.append("## Arguments\n\nIf a macro sets an argument, the macro's row above says what it may be.\n")
    for function in found.functions:
        rows = [_argument_row(one) for one in function.arguments]
        heads = ("argument", "default", "may be, or macro", "what it is for")
        out.append(f"### {function.name}\n\n{_cell(function.meaning)}\n\n" + _table(heads, rows))
    out.append("## Schedules\n\nThey are written as `SCHEDULE=\"'cosine(end=0.1)'\"`.\n")
    rows = []
    for one in found.schedules:
        inside = [f"`{a.name}={a.default}`: {_cell(a.meaning)} ({_cell(a.wanted)})" for a in one.arguments]
        rows.append((f"`{one.name.removeprefix(SCHEDULE)}`", "<br>".join(inside), _cell(one.meaning)))
    out.append(_table(("name", "arguments", "what it does"), rows))
    rows = [(f"`{one.name}`", _code(one.default), _cell(one.meaning)) for one in found.shape.arguments]
    out.append(
        "## The shape of a model\n\nThe fields of `DecoderConfig`. `gin/models` has one file for each model. The last "
        "six are those of COMPUTATION: they say how a model is computed, not what it is.\n\n"
        + _table(("field", "default", "what it is"), rows)
    )
    return "\n".join(out)


def _macro_row(macro: Macro) -> tuple[str, ...]:
    said = " ".join(map(_sentence, _apart(macro.meaning, macro.note)))
    return f"`{macro.name}`", _code(macro.default), _may_be(macro.wanted, macro.keys), _cell(said)


def _apart(*texts: str) -> list[str]:
    """The texts without those most of whose words are in another one."""
    words = [set(re.findall(r"\w+", text.lower())) for text in texts]
    return [
        text
        for number, text in enumerate(texts)
        if text
        and not any(
            4 * len(words[number] & others) >= 3 * len(words[number])
            and (len(others), other) > (len(words[number]), number)
            for other, others in enumerate(words)
            if other != number
        )
    ]


def _argument_row(one: Argument) -> tuple[str, ...]:
    may_be = f"`{one.macro}`" if one.macro else _may_be(one.wanted, one.keys)
    return f"`{one.name}`", _code(one.default), may_be, _cell(_sentence(one.meaning))


def _may_be(wanted: str, keys: Mapping[str, str]) -> str:
    return "<br>".join([_cell(wanted), *(f"`{name}`: {_cell(what)}" for name, what in keys.items())])


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:].rstrip(".") + "." if text and text[0].isalpha() else f"{text.rstrip('.')}."


def _code(text: str) -> str:
    return text if text == REQUIRED else f"`{text}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("*", "\\*").replace("<", "&lt;")


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
