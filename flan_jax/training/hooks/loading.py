"""Makes hooks from texts such as "module:Name(argument=value)", the form of the macro HOOKS."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Sequence
from typing import Any

from flan_jax.errors import FlanError
from flan_jax.training import by_name
from flan_jax.training.hooks.calls import name_of

# Every method, and how many arguments it is called with.
METHODS = {"start": 1, "measure": 1, "accept": 1, "pauses": 2, "after_step": 3}
METHODS |= {"before_save": 2, "after_save": 2, "end": 1}
# Calling a function of these kinds does not run it yet.
_LATER = (inspect.iscoroutinefunction, inspect.isgeneratorfunction, inspect.isasyncgenfunction)
_LIKE = 0.85  # a method's name that is so similar to a hook's method counts as misspelt


def load(hooks: Sequence[Any]) -> list[Any]:
    """Makes the hooks that a user names.

    Args:
      hooks: hooks, or texts of the form "module:Name" or "module:Name(argument=value)", with values as Python writes
        them. The module is looked for as usual, first in the working folder.

    Raises:
      FlanError: the module or name does not exist, it does not take the arguments, or the result is not a hook.
    """
    return [_checked(_made(hook) if isinstance(hook, str) else hook) for hook in hooks]


def named(text: str) -> tuple[Callable[..., Any], dict[str, Any]]:
    """The class or function that a text names, and the arguments that it gives; nothing is made.

    Raises:
      FlanError: there is none, or it does not take them.
    """
    start = _start(text)
    try:
        module, name, arguments = by_name.parsed(text)
    except ValueError as error:
        raise FlanError(f"{start}: {error}; write {by_name.FORM}.") from error
    maker = by_name.imported(start, module, name)
    by_name.refuse_arguments(start, maker, arguments)
    return maker, arguments


def _start(text: str) -> str:
    return f"HOOKS: {text!r}"


def _made(text: str) -> Any:
    return by_name.made(_start(text), *named(text))


def _checked(hook: Any) -> Any:
    """Checks that an object is a hook.

    Raises:
      FlanError: it has no method of a hook, one that cannot be called as it will be, or one with a misspelt name.
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
    except Exception as error:  # a property can raise anything
        if name not in METHODS:
            return None
        raise by_name.failed(f"hook {name_of(hook)}: reading {name}", error) from error
