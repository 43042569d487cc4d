"""Describes an object in words and numbers that are the same in every start of the program.

An optimizer is made of functions inside functions. Two starts make two such objects. Whether they are the same
optimizer can only be seen from what the functions were made of.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import math
import re
import types
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import numpy as np

DESCRIPTION = "description"  # an attribute in which an object describes itself
_LIBRARIES = ("flan_jax", "jax", "optax", "chex", "numpy")  # their functions are known by their names
_DEEPEST = 40
_ADDRESS = re.compile(r"\bat 0x[0-9a-fA-F]+")


def describe(value: Any) -> Any:
    """Describes a value by dicts, lists, texts and numbers, without anything that changes from process to process.

    If an object has an attribute `description`, that is its description. Otherwise numbers, texts and arrays are
    described by their value, functions by their name and by the values they close over (a user's own function also by
    the constants and names in its code), and other objects by their class and attributes.
    """
    return _described(value, ())


def flat(value: Any, name: str = "") -> dict[str, Any]:
    """The leaves of a tree of dicts and lists, by their dotted names.

    Example:
      >>> flat({"a": {"b": 1}, "c": 2})
      {'a.b': 1, 'c': 2}
    """
    parts: Iterable[tuple[Any, Any]]
    if isinstance(value, Mapping) and value:
        parts = value.items()
    elif isinstance(value, list | tuple) and any(isinstance(one, Mapping | list | tuple) for one in value):
        parts = enumerate(value)
    else:
        return {name: list(value) if isinstance(value, tuple) else value}
    found: dict[str, Any] = {}
    for key, inner in parts:
        found |= flat(inner, f"{name}.{key}" if name else str(key))
    return found


def _described(value: Any, above: tuple[int, ...]) -> Any:
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if id(value) in above or len(above) > _DEEPEST:
        return "itself"
    inner = functools.partial(_described, above=(*above, id(value)))
    if isinstance(value, np.ndarray | np.generic | jax.Array):
        array = np.asarray(value)
        if array.ndim == 0:
            return inner(array.item())
        return f"{array.dtype}{list(array.shape)} {hashlib.sha256(array.tobytes()).hexdigest()[:16]}"
    if isinstance(said := getattr(value, DESCRIPTION, None), Mapping) and not isinstance(value, type):
        return inner(dict(said))
    if isinstance(value, Mapping):
        return {str(key): inner(one) for key, one in sorted(value.items(), key=lambda item: str(item[0]))}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return {name: inner(getattr(value, name)) for name in value._fields}
    if isinstance(value, list | tuple):
        return [inner(one) for one in value]
    if isinstance(value, set | frozenset):
        return sorted((inner(one) for one in value), key=str)
    if isinstance(value, functools.partial):
        return {"of": inner(value.func), "with": inner([*value.args, value.keywords])}
    if isinstance(value, types.MethodType):
        return {"of": inner(value.__func__), "with": inner(value.__self__)}
    if isinstance(value, types.FunctionType):
        return _of_function(value, inner)
    if isinstance(value, type | types.BuiltinFunctionType | types.ModuleType) or hasattr(value, "__qualname__"):
        wrapped = getattr(value, "__wrapped__", None)
        return inner(wrapped) if isinstance(wrapped, types.FunctionType) else _name(value)
    if isinstance(value, np.dtype):
        return value.name
    kind = {"type": _name(type(value))}
    if not hasattr(value, "__dict__") and not _ADDRESS.search(text := repr(value)):
        return kind | {"value": text}
    if dataclasses.is_dataclass(value):
        return kind | {field.name: inner(getattr(value, field.name)) for field in dataclasses.fields(value)}
    return kind | {name: inner(one) for name, one in sorted(getattr(value, "__dict__", {}).items())}


def _of_function(function: types.FunctionType, inner: Any) -> Any:
    code = function.__code__
    found: dict[str, Any] = {}
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
        try:
            found[name] = inner(cell.cell_contents)
        except ValueError:  # the variable has no value yet
            found[name] = "nothing"
    given = {f"default {i}": inner(one) for i, one in enumerate(function.__defaults__ or ())}
    given |= {f"default {name}": inner(one) for name, one in sorted((function.__kwdefaults__ or {}).items())}
    if (function.__module__ or "").partition(".")[0] in _LIBRARIES:
        return {"function": _name(function), **found} if found else _name(function)
    outside = {name: function.__globals__.get(name) for name in code.co_names}
    found |= given | {"constants": " ".join(_constants(code)), "names": " ".join(code.co_names)}
    found |= {name: one for name, one in outside.items() if isinstance(one, bool | int | float | str)}
    return {"function": _name(function), **found}


def _constants(code: types.CodeType) -> list[str]:
    """The numbers and texts in a function's code and in the functions inside it."""
    found = []
    for one in code.co_consts[1 if isinstance(code.co_consts[:1] and code.co_consts[0], str) else 0 :]:
        if isinstance(one, types.CodeType):
            found += [*_constants(one), *one.co_names]
        elif isinstance(one, bool | int | float | complex | str | bytes | tuple):
            found.append(repr(one))
    return found


def _name(value: Any) -> str:
    module = getattr(value, "__module__", None) or ""
    name = getattr(value, "__qualname__", None) or getattr(value, "__name__", "") or type(value).__qualname__
    return f"{module}:{name}"
