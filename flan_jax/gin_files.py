"""gin files as a user writes them: where they are found, what they include, and one-line errors about them."""

from __future__ import annotations

import contextlib
import difflib
import re
import tokenize
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from gin import config_parser

from flan_jax import macros
from flan_jax.errors import FlanError, cannot, near_names
from flan_jax.files import is_remote, user_path

TRAINING, EVALUATION, STUDY = "runs/tune.gin", "runs/eval.gin", "studies/study.gin"  # they declare all macros

_INCLUDE = re.compile(r"""^include\s+(['"])(?P<name>.+)\1\s*(?:#.*)?$""")
_LONGEST_SHOWN = 60  # letters of a line of a file that a message shows
_LITERAL = "it has to be a Python literal, and a text needs its own quotes"
_NO_CONFIGURABLE = re.compile(r"No configurable matching (?:reference )?'@?(?P<name>[^'()]+)(?:\(\))?'")
_NO_ARGUMENT = re.compile(r"Configurable '(?P<function>[^']+)' doesn't have a parameter named '(?P<name>[^']+)'")
_TOKEN = re.compile(r"Failed to parse token '(?P<token>.*)'")


# ---------------------------------------------------------------------------------------------------------- finding


def search_paths() -> list[Path]:
    """The folders that are searched for gin files: the working folder, then the files that come with FLAN-JAX."""
    package = Path(__file__).parent  # in a wheel, gin/ lies inside the package; in a checkout, beside it
    return [Path.cwd(), *(folder for folder in (package / "gin", package.parent / "gin") if folder.is_dir())]


def find_gin_file(name: str, beside: Path | None = None, said: str = "") -> Path:
    """The path of a gin file.

    Args:
      name: the file as the user wrote it.
      beside: the folder of the file that includes it, which is searched first.
      said: where the include stands, for error messages.

    Raises:
      FlanError: it is not in any search path; the message has near matches.
    """
    given = user_path(name, "a gin file")
    if is_remote(given):
        raise FlanError(f"{said}gin files are read from this machine: copy {name} here, and give its path.")
    shipped, folders = search_paths()[1:], [beside or Path.cwd(), *search_paths()]
    for folder in folders:
        if (folder / given).is_file():
            return folder / given
    known = [str(path.relative_to(folder)) for folder in shipped for path in sorted(folder.rglob("*.gin"))]
    with contextlib.suppress(OSError):  # the name may be one that no file system allows
        own = [path for folder in dict.fromkeys(folders) for path in (folder / given).parent.glob("*.gin")]
        known = [*known, *sorted({str(given.parent / path.name) for path in own} - set(known))]
    place = "beside it, here" if beside else "here"
    raise FlanError(f"{said}no gin file {name!r} {place} or among the shipped ones; {_instead_of(given, known)}")


def _instead_of(given: Path, known: Sequence[str]) -> str:
    """The files whose own names are like that of a missing one; or else all in its folder, or all that there are."""
    by_stem: dict[str, list[str]] = {}
    for one in dict.fromkeys(known):
        by_stem.setdefault(PurePosixPath(one).stem, []).append(one)
    near = [one for stem in difflib.get_close_matches(given.stem, by_stem, n=3) for one in by_stem[stem]]
    if near:
        near.sort(key=lambda one: PurePosixPath(one).parent != PurePosixPath(given.parent))
        return f"did you mean {' or '.join(repr(one) for one in near[:3])}?"
    known = list(dict.fromkeys(known))
    beside = [one for one in known if PurePosixPath(one).parent == PurePosixPath(given.parent)]
    return f"there are: {', '.join(beside or known)}."


def text_of(path: Path, name: str) -> str:
    """Reads a gin file.

    Args:
      path: the file.
      name: the file as the user wrote it, for error messages.

    Raises:
      FlanError: it cannot be read, or is not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise FlanError(f"gin file {name} is not UTF-8 text: save it as such.") from error
    except OSError as error:
        raise cannot("read the gin file", name, error) from error


# ---------------------------------------------------------------------------------------------------------- looking


def included_by(line: str) -> str:
    """The file that a line includes; empty if the line is no include.

    Example:
      >>> included_by("include 'runs/tune.gin'")
      'runs/tune.gin'
    """
    found = _INCLUDE.match(line.rstrip())
    return found["name"] if found else ""


class Anything(config_parser.ParserDelegate):
    """Accepts every value, for code that only looks at which names a file sets."""

    def configurable_reference(self, scoped_configurable_name: str, evaluate: bool) -> Any:
        """Accepts @NAME."""
        return scoped_configurable_name

    def macro(self, macro_name: str) -> Any:
        """Accepts %NAME."""
        return macro_name


def key_of(statement: Any) -> str:
    """The name that a gin statement sets, as it is written; empty for other statements."""
    if not isinstance(statement, config_parser.BindingStatement):
        return ""
    whole = f"{statement.scope}/{statement.selector}" if statement.scope else statement.selector
    return f"{whole}.{statement.arg_name}" if statement.arg_name else whole


# ----------------------------------------------------------------------------------------------------------- errors


@contextlib.contextmanager
def one_line(where: str, option: str = "") -> Iterator[None]:
    """A block that parses gin. Exceptions of gin and of imported modules become a FlanError with one line.

    Args:
      where: the file, or the option of the command line.
      option: the name that the option sets; empty for a file.
    """
    try:
        yield
    except FlanError as error:  # gin has appended lines about the place
        raise FlanError(_first_line(error)) from error
    except Exception as error:
        text = str(error)
        if option and ("malformed node" in text or isinstance(error, SyntaxError | tokenize.TokenError)):
            setting = macros.BY_MACRO.get(option) or macros.BY_ARGUMENT.get(option)
            wanted = f"; {option} has to be {setting.kind.wanted}" if setting else ""
            raise FlanError(
                f"{where}: the value is no Python literal; a string needs its own quotes (--gin.{option}=\"'text'\")"
                f"{wanted}."
            ) from error
        line = "" if option else _line(error)
        raise FlanError(f"{where}{line}: {_reason(error)}") from error


def _line(error: Exception) -> str:
    """Where in the file an error is, and the text of that line."""
    if not isinstance(error, SyntaxError):
        found = re.search(r"line (\d+)", str(error))
        return f" line {found[1]}" if found else ""
    shown = " ".join((error.text or "").split())
    shown = shown if len(shown) <= _LONGEST_SHOWN else f"{shown[:_LONGEST_SHOWN]}..."
    return f" line {error.lineno}" + (f" ({shown})" if shown.isprintable() and shown else "") if error.lineno else ""


_NO_VALUE = ("Unable to parse value", "unterminated string literal", "invalid character")  # the last two: Python 3.12


def _reason(error: Exception) -> str:
    """gin's reason; near matches or a remedy are added if it has none."""
    text = _first_line(error)
    if any(told in text for told in _NO_VALUE):
        return f"there is no value that can be read: {_LITERAL}."
    if isinstance(error, tokenize.TokenError):
        return "a bracket, or a text in three quotes, is opened and never closed."
    if found := _NO_ARGUMENT.search(text):
        known = [name.partition(".")[2] for name in macros.BY_ARGUMENT if name.startswith(f"{found['function']}.")]
        return f"{found['function']} has no argument {found['name']!r}: {near_names(found['name'], known)}"
    if found := _NO_CONFIGURABLE.search(text):
        if found["name"] in macros.FUNCTIONS:
            program = "eval" if found["name"] == "evaluate" else "train"
            return f"this program does not call {found['name']!r}: the file is one for python -m flan_jax.{program}."
        return f"nothing here is called {found['name']!r}: {near_names(found['name'], macros.FUNCTIONS)}"
    if "malformed node" in text:
        found = _TOKEN.search(str(error))
        value = found["token"] if found else "the value"
        return f"{value[:_LONGEST_SHOWN]} is no value: {_LITERAL}."
    if "integer string conversion" in text:
        return "a number has too many digits."
    if isinstance(error, SyntaxError):
        text = re.sub(r"\s*\((?:<tokenize>, )?line \d+\)$", "", text)
        if text.startswith("Expected newline"):
            return "something follows where the line should end: write NAME = VALUE, a literal and no sum."
        if text.startswith(("Couldn't parse statement", "Unexpected token")):
            return "this is no line of a gin file: write NAME = VALUE, function.argument = VALUE, or include 'FILE'."
        if text.startswith("Expected file path"):
            return "write include 'FILE', the file in quotes."
    return text if text.endswith((".", "?")) else f"{text}."


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
