"""Hooks by name: "module:Name" or "module:Name(argument=value)", as the macro HOOKS takes them."""

from __future__ import annotations

import ast
import difflib
import importlib
import inspect
import sys
from collections.abc import Sequence
from typing import Any

from flan_jax.errors import FlanError, near_names
from flan_jax.training.hooks.calls import name_of

# Every method and how many arguments it is called with.
METHODS = {"start": 1, "measure": 1, "accept": 1, "pauses": 2, "after_step": 3}
METHODS |= {"before_save": 2, "after_save": 2, "end": 1}
# What a call of these gives back has not run yet.
_LATER = (inspect.iscoroutinefunction, inspect.isgeneratorfunction, inspect.isasyncgenfunction)
_LIKE = 0.85  # from this likeness on a method's name counts as misspelt


def load(hooks: Sequence[Any]) -> list[Any]:
    """Makes the hooks that a user names.

    Args:
      hooks: texts, each "module:Name" or "module:Name(argument=value)" with values as Python writes them; the module
        is found like any other, first in the working folder. Or hooks themselves.

    Raises:
      FlanError: a module or name that is not there, arguments that it does not take, or what it makes is no hook.
    """
    return [_checked(_made(hook) if isinstance(hook, str) else hook) for hook in hooks]


def parsed(text: str) -> tuple[str, str, dict[str, Any]]:
    """(module, name, arguments) of a hook's text.

    Raises:
      ValueError: it is none.
    """
    module, colon, call = text.partition(":")
    if not colon or not all(part.isidentifier() for part in module.strip().split(".")):
        raise ValueError("no module and name with a colon between them")
    try:
        node = ast.parse(call.strip(), mode="eval").body
        name, given = (node.func, node.keywords) if isinstance(node, ast.Call) else (node, [])
        arguments = {keyword.arg: ast.literal_eval(keyword.value) for keyword in given}
    except (SyntaxError, ValueError, TypeError, MemoryError, RecursionError) as error:
        raise ValueError("what follows the colon cannot be read") from error
    if not isinstance(name, ast.Name) or None in arguments or (isinstance(node, ast.Call) and node.args):
        raise ValueError("what follows the colon is no name, with or without arguments by name")
    return module.strip(), name.id, arguments


def _made(text: str) -> Any:
    start = f"HOOKS: {text!r}"
    try:
        module_name, name, arguments = parsed(text)
    except ValueError as error:
        raise FlanError(f"{start}: {error}; write 'module:Name' or 'module:Name(argument=value)'.") from error
    if "" not in sys.path:  # as `python -m` has it; a command that was installed has it not
        sys.path.insert(0, "")
    try:
        module = importlib.import_module(module_name)
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
        raise _failed(f"{start}: importing it", error) from error
    if (maker := getattr(module, name, None)) is None:
        public = [known for known in vars(module) if not known.startswith("_")]
        raise FlanError(f"{start}: {module_name} has no {name}: {near_names(name, public)}")
    if not callable(maker):
        raise FlanError(f"{start}: {name} is no class or function that makes a hook.")
    try:
        inspect.signature(maker).bind(**arguments)
    except TypeError as error:
        raise FlanError(f"{start}: it does not take these arguments ({error}).") from error
    except ValueError:  # it does not say what it takes
        pass
    try:
        return maker(**arguments)
    except FlanError as error:
        raise FlanError(f"{start}: {error}") from error
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise _failed(f"{start}: making it", error) from error


def _failed(what: str, error: BaseException) -> FlanError:
    """The line of code of a user that raised; a script that is no module ends with sys.exit."""
    reason = " ".join(str(error).split())[:200].rstrip(".")
    return FlanError(f"{what} failed ({type(error).__name__}{f': {reason}' if reason else ''}); mend it.")


def _checked(hook: Any) -> Any:
    """A hook, whose methods are those of hooks.

    Raises:
      FlanError: it has none of them, one that cannot be called as it will be, or one whose name is misspelt.
    """
    name = name_of(hook)
    if isinstance(hook, type):
        raise FlanError(f"hook {hook.__module__}:{hook.__qualname__} is a class: give one that is made.")
    attributes = {known: _attribute(hook, known) for known in dir(hook) if not known.startswith("_")}
    public = [known for known, value in attributes.items() if callable(value)]
    if not set(METHODS) & set(public):
        raise FlanError(f"hook {name} has none of a hook's methods: {', '.join(METHODS)}.")
    for known in public:
        near = difflib.get_close_matches(known, METHODS, n=1, cutoff=_LIKE)
        if known not in METHODS and near:
            raise FlanError(
                f"hook {name} has a method {known!r}, which nothing calls: did you mean {near[0]!r}? If not, let its "
                "name begin with an underscore."
            )
    for method in sorted(set(METHODS) & set(public)):
        if any(later(attributes[method]) for later in _LATER):
            raise FlanError(
                f"hook {name}: {method} is called and not awaited: make it a plain one, without async or yield."
            )
        try:
            inspect.signature(attributes[method]).bind(*range(METHODS[method]))
        except TypeError as error:
            takes = ["taken"] if method in ("measure", "accept") else ["context", "step", "values"][: METHODS[method]]
            raise FlanError(f"hook {name}: {method} has to take ({', '.join(takes)}) ({error}).") from error
        except ValueError:
            continue
    return hook


def _attribute(hook: Any, name: str) -> Any:
    try:
        return getattr(hook, name, None)
    except Exception as error:  # a property's
        if name not in METHODS:
            return None
        raise _failed(f"hook {name_of(hook)}: reading {name}", error) from error
