"""Reads gin files and `--gin.NAME=VALUE`, finds models by name, and turns errors into one line that says what to do.

Only the binaries import this module. The functions that gin configures take plain arguments.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import gin
from gin import config, config_parser

from flan_jax import macro_checks, macros, own_tasks, values
from flan_jax.errors import FlanError, near_names, unknown_name
from flan_jax.gin_files import Anything, find_gin_file, included_by, key_of, one_line, search_paths, text_of
from flan_jax.models.config import DecoderConfig

_REQUIRED = "gin.REQUIRED"  # stands for a value that has to be given
_MACRO = "gin.macro"  # gin calls this function for a macro, in a scope with the macro's name


def model_names() -> list[str]:
    """The names of all models: each has a file `models/NAME.gin` in a search path."""
    return sorted({path.stem for folder in search_paths() for path in (folder / "models").glob("*.gin")})


def model_config(name: str, overrides: Mapping[str, Any] | None = None) -> DecoderConfig:
    """The shape of a model, read from `models/NAME.gin` alone. Nothing else that gin has parsed has an effect.

    Args:
      name: a model, for example "lamda_pt_8b", or the path of a gin file like those in models/.
      overrides: fields of `DecoderConfig` to change.

    Raises:
      FlanError: there is no such model (the message has near matches), or its file or an override is wrong.
    """
    values.checked("MODEL", values.Text(), name, "a file of gin/models")
    if not name.endswith(".gin") and name not in (names := model_names()):
        raise unknown_name("model", name, names, "(one gin file each in models/)")
    file = name if name.endswith(".gin") else f"models/{name}.gin"
    fields: dict[str, Any] = {}
    with one_line(f"gin file {file}"):
        for statement in config_parser.ConfigParser(text_of(find_gin_file(file), file), _LiteralsOnly()):
            if isinstance(statement, config_parser.BindingStatement) and statement.selector == DecoderConfig.__name__:
                fields[statement.arg_name] = statement.value
            elif not isinstance(statement, config_parser.BlockDeclaration):
                raise FlanError(f"gin file {file} line {statement.location.line_num}: only DecoderConfig belongs here.")
    return DecoderConfig.from_dict(fields | dict(overrides or {}))


class _LiteralsOnly(config_parser.ParserDelegate):
    """Refuses values in a model's file that refer to anything else in gin."""

    def configurable_reference(self, scoped_configurable_name: str, evaluate: bool) -> Any:
        """Refuses @NAME."""
        raise FlanError(f"@{scoped_configurable_name} in a model's gin file: write the value itself.")

    def macro(self, macro_name: str) -> Any:
        """Refuses %NAME."""
        raise FlanError(f"%{macro_name} in a model's gin file: write the value itself.")


def split_arguments(argv: Sequence[str]) -> tuple[list[str], list[str], list[str]]:
    """Splits a command line into gin files, gin bindings and the rest.

    The forms are T5X's: `--gin_file=F` (repeatable), `--gin.NAME=VALUE` and `--gin.module.argument=VALUE`. If two set
    the same value, the later one counts.

    Raises:
      FlanError: an option has no value, or the same file is given twice.

    Example:
      >>> split_arguments(["--gin_file=runs/tune.gin", "--gin.TRAIN_STEPS=10", "--json"])
      (['runs/tune.gin'], ['TRAIN_STEPS = 10'], ['--json'])
    """
    files, bindings, rest = [], [], []
    arguments = iter(argv)
    for argument in arguments:
        option, equals, value = argument.partition("=")
        if option == "--gin_file":
            value = value if equals else next(arguments, "")
            if not value or value.startswith("--"):
                raise FlanError("--gin_file needs a file: --gin_file=runs/tune.gin.")
            if value in files:
                raise FlanError(f"--gin_file={value} is given twice: leave one out.")
            files.append(value)
        elif argument.startswith("--gin."):
            name, equals, value = (part.strip() for part in argument.removeprefix("--gin.").partition("="))
            if not equals or not value:
                raise FlanError(f"{argument}: write --gin.{name}=VALUE (a Python literal; strings in quotes).")
            bindings.append(f"{name} = {value}")
        elif option in ("--gin_bindings", "--gin_param", "--gin", "--gin_files", "--gin_config"):
            raise FlanError(f"{argument}: write --gin.NAME=VALUE for each value, and --gin_file=FILE for a file.")
        else:
            rest.append(argument)
    return files, bindings, rest


def parse(files: Sequence[str], bindings: Sequence[str]) -> None:
    """Parses gin files, then the bindings of the command line, and checks every value by `flan_jax.macros`.

    A macro on the command line must be declared in one of the files, so that a misspelt one is found. A file that is
    included several times is read once. Otherwise a later include would undo what an earlier file has set.

    A second parse in the same process (in a notebook, say) starts afresh: nothing of the first one counts. Bindings
    that a user made through gin for their own functions stay.

    Raises:
      FlanError: a missing file, an unknown macro or configurable, a value of the wrong kind, or a macro or argument of
        our table that was already bound through gin by somebody else.
    """
    with gin.unlock_config():  # a project that has finalized its own gin configuration can still call this
        kept = _start_anew()
        try:
            _parse(files, bindings, kept)
        finally:
            _last.bound = {key: value for key, value in _bound().items() if key not in kept}


@dataclasses.dataclass
class _Last:
    """What the last parse in this process has set.

    Attributes:
      bound: its values, by gin's keys (scope, function, argument).
      tasks: the modules that its macro TASKS added.
    """

    bound: dict[tuple[str, str, str], Any] = dataclasses.field(default_factory=dict)
    tasks: tuple[str, ...] = ()


_last = _Last()


def _bound() -> dict[tuple[str, str, str], Any]:
    """All values that are bound in gin. gin itself can only print them as text."""
    return {(*key, name): value for key, values in config._CONFIG.items() for name, value in values.items()}


def _start_anew() -> dict[tuple[str, str, str], Any]:
    """Removes what the last parse has set, and returns what somebody else has bound, which stays.

    Raises:
      FlanError: somebody else has bound a value that only the files and the command line may set.
    """
    own_tasks.leave(_last.tasks)
    kept = {k: v for k, v in _bound().items() if k not in _last.bound or _last.bound[k] is not v}
    _last.bound, _last.tasks = {}, ()
    for scope, function, name in kept:
        is_macro, short = function == _MACRO, function.rpartition(".")[2]
        ours = short in macros.FUNCTIONS and function.startswith(f"{__package__}.")
        if scope in macros.BY_MACRO if is_macro else ours:
            called = scope if is_macro else f"{short}.{name}"
            raise FlanError(
                f"{called} has a value in gin already, and a run is what its files and options say: write "
                f"--gin.{called}=VALUE, or call gin.clear_config() before."
            )
    if not kept:
        gin.clear_config()
    else:
        for scope, function, name in [key for key in _bound() if key not in kept]:
            del config._CONFIG[scope, function][name]
    return kept


def _parse(files: Sequence[str], bindings: Sequence[str], kept: Collection[tuple[str, str, str]]) -> None:
    read: set[Path] = set()
    for number, name in enumerate(files):
        if number and find_gin_file(name).resolve() in read:
            raise FlanError(
                f"--gin_file={name} counts already, as one that {' and '.join(files[:number])} has read: leave it out, "
                "or give it before."
            )
        _parse_file(name, read)
    declared = declared_macros()
    for binding in bindings:
        name = binding.partition(" = ")[0]
        if "." not in name and name not in declared:
            raise unknown_name("macro", name, declared, f"(the files are {', '.join(files) or 'none'})")
    for binding in bindings:
        name = binding.partition(" = ")[0]
        shown = " ".join(f"--gin.{binding.replace(' = ', '=', 1)}".split())
        with one_line(shown, name):
            parsed = [key_of(statement) for statement in config_parser.ConfigParser(binding, Anything())]
            if parsed != [name]:
                raise SyntaxError("one value is set, not several")
            gin.parse_config(binding)
    _refuse_unread_scopes(kept)
    _refuse_overruled(bindings)
    _check({scope for scope, function, _ in kept if function == _MACRO})


def _refuse_unread_scopes(kept: Collection[tuple[str, str, str]]) -> None:
    """Refuses a value in a scope that nothing enters, because it would have no effect.

    Raises:
      FlanError: for the first such value.
    """
    entered = re.findall(r"@((?:\w+/)+)", gin.config_str(max_line_length=10_000))
    for scope, function, name in (key for key in _bound() if key not in kept):
        is_macro = function == _MACRO
        if is_macro and not scope:
            raise FlanError(f"macro.{name} is of no macro: write --gin.NAME=VALUE.")
        outer, _, inner = scope.rpartition("/") if is_macro else (scope, "", function.rpartition(".")[2])
        if outer and (is_macro or not any(one.startswith(f"{outer}/") for one in entered)):
            called = inner if is_macro else f"{inner}.{name}"
            raise FlanError(f"{outer}/{called} is set in a scope {outer!r}, which nothing enters: write {called}.")


def _check(others: Collection[str]) -> None:
    """Checks the values of all macros and bound arguments, and puts them into normal form (1000 for 1e3).

    Args:
      others: macros that come from elsewhere than these files.

    Raises:
      FlanError: a value of the wrong kind, or two values that do not fit each other.
    """
    names = sorted(declared_macros() - set(others))
    missing = [name for name in names if repr(macro(name)) == f"%{_REQUIRED}"]
    if missing:
        several = len(missing) > 1
        raise FlanError(
            f"{'macros' if several else 'macro'} {', '.join(missing)} {'have' if several else 'has'} no value: add "
            + " ".join(f"--gin.{name}=\"'...'\"" for name in missing)
            + f", or a --gin_file=FILE that sets {'them' if several else 'it'}."
        )
    used = set(re.findall(r"%([A-Za-z_]\w*)", gin.config_str(max_line_length=10_000)))
    for name in names:
        if name not in used and name not in macros.BY_MACRO:
            raise unknown_name("macro", name, macros.BY_MACRO, "Nothing reads it.")
    if "TASKS" in names and (
        modules := macro_checks.check("tasks.modules", _resolved(macro("TASKS"), "TASKS"), "TASKS")
    ):
        before = own_tasks.named().split(",")
        # First, because other macros may name datasets of those modules.
        _last.tasks = tuple(name for name in own_tasks.use(modules) if name not in before)
    where = _resolved(macro("PREPARED_DIR"), "PREPARED_DIR") if "PREPARED_DIR" in names else None
    called: dict[str, str] = {}  # argument -> the macro that it is bound to, which is what the user typed
    given: dict[str, Any] = {}
    for name in names:
        value = _resolved(macro(name), name)
        if (setting := macros.BY_MACRO.get(name)) is not None and not _is_made(value, setting.arguments[0]):
            value = macro_checks.check(setting.arguments[0], value, name, where)
            gin.bind_parameter(f"%{name}", value)
    for function in macros.FUNCTIONS:
        try:
            bound = gin.get_bindings(function, resolve_references=False)
        except ValueError:  # this program does not use it
            continue
        for name, value in bound.items():
            argument = f"{function}.{name}"
            reference = repr(value)
            called[argument] = reference[1:] if reference[:1] == "%" else argument
            value = _resolved(value, argument)
            if not isinstance(value, gin.config.ConfigurableReference):
                given[argument] = macro_checks.check(argument, value, called[argument], where)
            elif not _is_made(value, argument):
                macro_checks.check(argument, value, called[argument])
        for macro_name in (one for one in names if one not in used and one in macros.BY_MACRO and bound):
            mine = [one for one in macros.BY_MACRO[macro_name].arguments if one.startswith(f"{function}.")]
            if mine and not any(one.partition(".")[2] in bound for one in mine):  # unless it is bound by its own name
                raise FlanError(
                    f"{macro_name} is set, and nothing reads it: include 'runs/tune.gin' or 'runs/eval.gin', or bind "
                    f"{mine[0]} = %{macro_name}."
                )
    macro_checks.check_together(given, called)


def _refuse_overruled(bindings: Sequence[str]) -> None:
    """Refuses a macro of the command line whose argument is also bound by its own name.

    That other value would count.

    Raises:
      FlanError: for the first such macro.
    """
    own = [binding.partition(" = ")[0] for binding in bindings]
    for name in own:
        for argument in macros.BY_MACRO[name].arguments if name in macros.BY_MACRO else ():
            function, _, short = argument.partition(".")
            try:
                bound = gin.get_bindings(function, resolve_references=False)
            except ValueError:  # this program does not use it
                continue
            value = bound.get(short, macro(name))
            if not isinstance(value, gin.config.ConfigurableReference) and value != macro(name):
                raise FlanError(
                    f"--gin.{name} does not count, since {argument} is bound to {value!r}: write "
                    f"--gin.{argument}=VALUE, or leave that binding out."
                )


def _is_made(value: Any, argument: str) -> bool:
    """Whether the value is a reference to a function whose result may be the argument: a model or an optimizer."""
    if not isinstance(value, gin.config.ConfigurableReference) or not value.evaluate:
        return False
    kinds = getattr(macros.BY_ARGUMENT[argument].kind, "kinds", ())
    return any(isinstance(kind, values.Made) for kind in kinds)


def _resolved(value: Any, name: str, through: tuple[str, ...] = ()) -> Any:
    """A value with its %MACROS filled in.

    Raises:
      FlanError: a macro that does not exist, or that refers to itself.
    """
    if isinstance(value, Mapping):
        return {_resolved(k, name, through): _resolved(v, name, through) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_resolved(part, name, through) for part in value)
    text = repr(value) if isinstance(value, gin.config.ConfigurableReference) else ""
    if not text.startswith("%"):
        return value
    other = text[1:]
    if other in through:
        raise FlanError(f"{name} is %{other}, which is set to itself: {' -> '.join((*through, other))}.")
    if value.config_key[1] != _MACRO:
        return value.scoped_configurable_fn()  # a constant
    if other not in declared_macros():
        raise FlanError(f"{name} is %{other}, and no file sets a macro {other}: {near_names(other, declared_macros())}")
    return _resolved(macro(other), name, (*through, other))


def _parse_file(
    name: str, read: set[Path], within: tuple[tuple[str, Path], ...] = (), beside: Path | None = None, said: str = ""
) -> None:
    """Parses a gin file; each include is parsed where it stands.

    We do not use gin's own includes: they also look for a Python package, and would take a user's folder `runs/` for
    one.

    Args:
      name: the file as the user wrote it.
      read: the files that have been read; they are skipped.
      within: (name, path) of the files that include it, outermost first.
      beside: the folder of the file that includes it.
      said: where the include stands, for error messages.

    Raises:
      FlanError: the file is missing or wrong, includes itself, or sets a value twice.
    """
    path = find_gin_file(name, beside, said)
    if path.resolve() in [one.resolve() for _, one in within]:
        raise FlanError(f"gin file {name!r} includes itself: {' -> '.join((*(one for one, _ in within), name))}.")
    if path.resolve() in read:
        return
    waiting: list[str] = []
    lines: dict[str, int] = {}

    def parse_waiting() -> None:
        text = "".join(waiting)
        with one_line(f"gin file {name}"):
            for statement in config_parser.ConfigParser(text, Anything()):
                if isinstance(statement, config_parser.IncludeStatement):
                    raise SyntaxError("an include stands on a line of its own", statement.location)
                key, line = key_of(statement), statement.location.line_num
                if key in lines:
                    raise FlanError(f"gin file {name} line {line}: {key} is set in line {lines[key]} already.")
                if key:
                    lines[key] = line
            gin.parse_config(text)

    for number, line in enumerate(text_of(path, name).splitlines(keepends=True), 1):
        if included := included_by(line):
            parse_waiting()
            _parse_file(included, read, (*within, (name, path)), path.parent, f"gin file {name} line {number}: ")
            waiting = ["\n" * number]  # keeps the line numbers right in error messages
        else:
            waiting.append(line)
    parse_waiting()
    read.add(path.resolve())


def set_in(file: str) -> dict[str, Any]:
    """The macros that a gin file sets itself, with their values; without those that need one, and parsing nothing.

    Raises:
      FlanError: there is no such file, or gin cannot read it.
    """
    with one_line(f"gin file {file}"):
        found = {
            statement.selector: statement.value
            for statement in config_parser.ConfigParser(text_of(find_gin_file(file), file), Anything())
            if isinstance(statement, config_parser.BindingStatement) and not statement.scope and not statement.arg_name
        }
    return {name: value for name, value in found.items() if value != _REQUIRED}


def declared_macros() -> set[str]:
    """The names of the macros that the parsed files declare."""
    return set(re.findall(r"^([A-Za-z_]\w*) = ", gin.config_str(max_line_length=10_000), re.MULTILINE))


def macro(name: str) -> Any:
    """The value of a macro of the parsed files."""
    return gin.query_parameter(f"%{name}")


def arguments(function: str) -> dict[str, Any]:
    """The arguments that the parsed files bind to a function. References are replaced by the objects that they make."""
    with one_line(function):
        return gin.get_bindings(function)
