"""Loads what a user names by text, such as a hook or an optimizer: "module:Name" or "module:Name(argument=value)"."""

from __future__ import annotations

import ast
import contextlib
import importlib
import inspect
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from flan_jax.errors import FlanError, near_names

FORM = "'module:Name' or 'module:Name(argument=value)'"


def call(text: str) -> tuple[str, dict[str, Any]]:
    """Splits "name" or "name(argument=value)" into the name and its arguments, with values as Python writes them.

    Raises:
      ValueError: the text has another form.

    Example:
      >>> call("cosine(end=0.1)")
      ('cosine', {'end': 0.1})
    """
    try:
        node = ast.parse(text.strip(), mode="eval").body
        name, given = (node.func, node.keywords) if isinstance(node, ast.Call) else (node, [])
        arguments = {keyword.arg: ast.literal_eval(keyword.value) for keyword in given}
    except (SyntaxError, ValueError, TypeError, MemoryError, RecursionError) as error:
        raise ValueError("cannot be read") from error
    if not isinstance(name, ast.Name) or None in arguments or (isinstance(node, ast.Call) and node.args):
        raise ValueError("is neither a name nor a name with named arguments")
    return name.id, {str(key): value for key, value in arguments.items()}


def parsed(text: str) -> tuple[str, str, dict[str, Any]]:
    """Splits a text into module, name and arguments.

    Raises:
      ValueError: the text has another form.

    Example:
      >>> parsed("optax:adabelief(eps=1e-8)")
      ('optax', 'adabelief', {'eps': 1e-08})
    """
    module, colon, rest = text.partition(":")
    if not colon or not all(part.isidentifier() for part in module.strip().split(".")):
        raise ValueError("no module and name with a colon between them")
    if module.strip().endswith(".py"):
        raise ValueError(f"a module is named without its ending: {module.strip()[:-3]!r}")
    try:
        return (module.strip(), *call(rest))
    except ValueError as error:
        raise ValueError(f"what follows the colon {error}") from error


def imported(start: str, module_name: str, name: str) -> Callable[..., Any]:
    """Imports a class or function from a module. The module is looked for as usual, first in the working folder.

    Args:
      start: the start of an error message: the macro and its text.
      module_name: the module.
      name: the name of a class or function in it.

    Raises:
      FlanError: the module or name does not exist, or cannot be called.
    """
    if "" not in sys.path:  # `python -m` has it in the path; an installed command does not
        sys.path.insert(0, "")
    try:
        with working_folder_kept(f"{start}: importing it"):
            module = importlib.import_module(module_name)
    except FlanError:
        raise
    except ModuleNotFoundError as error:
        missing = error.name or module_name
        what = "it" if missing == module_name else f"a module {missing!r}, which it imports,"
        raise FlanError(
            f"{start}: {what} is not on Python's path; start the program in the folder of {module_name}.py, or add "
            "that folder to PYTHONPATH."
        ) from error
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise failed(f"{start}: importing it", error) from error
    if (maker := getattr(module, name, None)) is None:
        public = [known for known in vars(module) if not known.startswith("_")]
        raise FlanError(f"{start}: {module_name} has no {name}: {near_names(name, public)}")
    if not callable(maker):
        raise FlanError(f"{start}: {name} is no class or function.")
    return maker


def refuse_arguments(start: str, maker: Callable[..., Any], arguments: Mapping[str, Any]) -> None:
    """Raises a FlanError where a class or function does not take these arguments; one that does not say so passes."""
    try:
        inspect.signature(maker).bind(**arguments)
    except TypeError as error:
        raise FlanError(f"{start}: it does not take these arguments ({error}).") from error
    except ValueError:  # it does not say which arguments it takes
        pass


def made(start: str, maker: Callable[..., Any], arguments: Mapping[str, Any]) -> Any:
    """What a class or function gives for these arguments.

    Raises:
      FlanError: it does not take them, or fails.
    """
    refuse_arguments(start, maker, arguments)
    try:
        with working_folder_kept("making it"):
            return maker(**arguments)
    except FlanError as error:
        raise FlanError(f"{start}: {error}") from error
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise failed(f"{start}: making it", error) from error


@contextlib.contextmanager
def working_folder_kept(what: str) -> Iterator[None]:
    """A block that runs a user's code.

    It may not change the working folder, because MODEL_DIR and others may be relative.

    Raises:
      FlanError: the folder has changed. It is changed back, so that the run can end properly.
    """
    before = _working_folder()
    yield
    now = _working_folder()
    if before is not None and now != before:
        os.chdir(before)
        raise FlanError(
            f"{what} changed the working folder{f' to {now}' if now else ''}, to which paths of the run are relative: "
            "leave os.chdir out."
        )


def _working_folder() -> str | None:
    try:
        return os.getcwd()
    except OSError:  # it was removed
        return None


def failed(what: str, error: BaseException) -> FlanError:
    """The error for a user's code that raised an exception. A script that is no module may call sys.exit."""
    reason = " ".join(str(error).split())[:200].rstrip(".")
    return FlanError(f"{what} failed ({type(error).__name__}{f': {reason}' if reason else ''}); mend it.")
