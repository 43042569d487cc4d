"""gin at the edge: `--gin_file`, `--gin.NAME=VALUE`, models by name, and errors that say what to do.

Only binaries import this. The functions they configure take plain arguments.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gin
from gin import config_parser

from flan_jax.errors import FlanError, unknown_name
from flan_jax.models import DecoderConfig


def search_paths() -> list[Path]:
    """Where gin files are looked for: the working folder, then the ones that come with FLAN-JAX."""
    package = Path(__file__).parent  # gin/ lies inside it in a wheel, and beside it in a checkout
    return [Path.cwd(), *(folder for folder in (package / "gin", package.parent / "gin") if folder.is_dir())]


def find_gin_file(name: str) -> Path:
    """The path of a gin file.

    Raises:
      FlanError: it is not in any search path; the message has near matches.
    """
    for folder in search_paths():
        if (folder / name).is_file():
            return folder / name
    shipped = [str(path.relative_to(folder)) for folder in search_paths()[1:] for path in sorted(folder.rglob("*.gin"))]
    near = difflib.get_close_matches(name, shipped, n=3, cutoff=0.4) or shipped
    raise FlanError(f"no gin file {name!r} here or among the shipped ones; there are: {', '.join(near)}.")


def model_names() -> list[str]:
    """The models whose shapes are in a search path, as `models/NAME.gin`."""
    return sorted({path.stem for folder in search_paths() for path in (folder / "models").glob("*.gin")})


def model_config(name: str, overrides: Mapping[str, Any] | None = None) -> DecoderConfig:
    """The shape of a model by name, from `models/NAME.gin` alone: whatever else gin has parsed plays no part.

    Args:
      name: for example "lamda_pt_8b"; or a gin file of that kind, by its path.
      overrides: fields of `DecoderConfig` to change.

    Raises:
      FlanError: there is no such model (the message has near matches), or its file or an override is wrong.
    """
    if not name.endswith(".gin") and name not in (names := model_names()):
        raise unknown_name("model", name, names, "(one gin file each in models/)")
    file = name if name.endswith(".gin") else f"models/{name}.gin"
    values: dict[str, Any] = {}
    try:
        for statement in config_parser.ConfigParser(find_gin_file(file).read_text(encoding="utf-8"), _LiteralsOnly()):
            if isinstance(statement, config_parser.BindingStatement) and statement.selector == DecoderConfig.__name__:
                values[statement.arg_name] = statement.value
            elif not isinstance(statement, config_parser.BlockDeclaration):
                raise FlanError(f"gin file {file} line {statement.location.line_num}: only DecoderConfig belongs here.")
    except SyntaxError as error:
        raise FlanError(f"gin file {file} line {error.lineno}: {_first_line(error)}") from error
    return DecoderConfig.from_dict(values | dict(overrides or {}))


class _LiteralsOnly(config_parser.ParserDelegate):
    """Refuses the values of a model's file that would need the rest of gin."""

    def configurable_reference(self, scoped_configurable_name: str, evaluate: bool) -> Any:
        """Refuses @NAME."""
        raise FlanError(f"@{scoped_configurable_name} in a model's gin file: write the value itself.")

    def macro(self, macro_name: str) -> Any:
        """Refuses %NAME."""
        raise FlanError(f"%{macro_name} in a model's gin file: write the value itself.")


def split_arguments(argv: Sequence[str]) -> tuple[list[str], list[str], list[str]]:
    """Splits a command line into gin files, gin bindings and the rest.

    `--gin_file=F` (repeatable), `--gin.NAME=VALUE` and `--gin.module.argument=VALUE` as in T5X.

    Raises:
      FlanError: a `--gin.` argument without a value.
    """
    files, bindings, rest = [], [], []
    arguments = iter(argv)
    for argument in arguments:
        if argument.startswith("--gin_file"):
            value = argument.partition("=")[2] or next(arguments, "")
            files.append(value)
        elif argument.startswith("--gin."):
            name, equals, value = argument.removeprefix("--gin.").partition("=")
            if not equals:
                raise FlanError(f"{argument}: write --gin.{name}=VALUE (a Python literal; strings in quotes).")
            bindings.append(f"{name} = {value}")
        else:
            rest.append(argument)
    return files, bindings, rest


def parse(files: Sequence[str], bindings: Sequence[str]) -> None:
    """Parses gin files, then the bindings of the command line over them.

    A macro of the command line has to be declared in one of the files, so that a misspelt one is found.

    Raises:
      FlanError: a missing file, an unknown macro or configurable, or a value that is no literal.
    """
    for name in files:
        _parse_file(name, ())
    declared = declared_macros()
    for binding in bindings:
        name = binding.partition(" = ")[0]
        if "." not in name and name not in declared:
            raise unknown_name("macro", name, declared, f"(the files are {', '.join(files) or 'none'})")
    for binding in bindings:
        name = binding.partition(" = ")[0]
        try:
            gin.parse_config(binding)
        except (ValueError, SyntaxError) as error:
            shown = f"--gin.{binding.replace(' = ', '=', 1)}"
            if "malformed node" in str(error) or isinstance(error, SyntaxError):
                raise FlanError(
                    f"{shown}: the value is no Python literal; a string needs its own quotes (--gin.{name}=\"'text'\")."
                ) from error
            raise FlanError(f"{shown}: {_first_line(error)}") from error
    missing = [name for name in sorted(declared_macros()) if repr(macro(name)) == "%gin.REQUIRED"]
    if missing:
        raise FlanError(
            f"macro {', '.join(missing)} has no value: add "
            + " ".join(f"--gin.{name}=..." for name in missing)
            + " (strings in quotes: --gin.MODEL_DIR=\"'runs/first'\")."
        )


_INCLUDE = re.compile(r"""^include\s+(['"])(?P<name>.+)\1\s*(?:#.*)?$""")


def _parse_file(name: str, including: tuple[str, ...]) -> None:
    """Parses a gin file and, where they stand, its includes.

    gin's own includes also look for a Python package, and a folder `runs/` here, which every user has, passes for one.
    """
    if name in including:
        raise FlanError(f"gin file {name!r} includes itself: {' -> '.join((*including, name))}.")
    path = find_gin_file(name)
    waiting: list[str] = []

    def parse_waiting() -> None:
        try:
            gin.parse_config("".join(waiting))
        except (ValueError, SyntaxError) as error:
            where = re.search(r"line (\d+)", str(error))
            raise FlanError(f"gin file {name}{' line ' + where[1] if where else ''}: {_first_line(error)}") from error

    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(keepends=True), 1):
        if found := _INCLUDE.match(line.rstrip()):
            parse_waiting()
            _parse_file(found["name"], (*including, name))
            waiting = ["\n" * number]  # for the line numbers in errors
        else:
            waiting.append(line)
    parse_waiting()


def declared_macros() -> set[str]:
    """The macros that the parsed files declare."""
    return set(re.findall(r"^([A-Za-z_]\w*) = ", gin.config_str(max_line_length=10_000), re.MULTILINE))


def macro(name: str) -> object:
    """The value of a macro."""
    return gin.query_parameter(f"%{name}")


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
