"""Files that are written whole or not at all, JSON without NaN, and the folder that FLAN-JAX keeps for itself."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flan_jax.errors import FlanError


class NotFiniteNumber(ValueError):
    """A number in JSON that is NaN or infinite, which no result of ours is."""


def home() -> Path:
    """Where FLAN-JAX keeps what it makes for itself: $FLAN_JAX_HOME, or ~/.cache/flan_jax."""
    return Path(os.environ.get("FLAN_JAX_HOME", Path.home() / ".cache" / "flan_jax"))


def to_json(value: Any, *, indent: int | None = None, ascii_only: bool = True, what: str = "a result") -> str:
    """JSON in one line or indented. Whatever is a result goes through here.

    Args:
      value: of dicts, lists, texts and numbers.
      indent: spaces a level; None for one line.
      ascii_only: whether other letters are written as escapes.
      what: what this is, for the error.

    Raises:
      FlanError: a number is NaN or infinite; it is named by its place. JSON has no such numbers, and no result is one.
    """
    try:
        return json.dumps(value, indent=indent, ensure_ascii=ascii_only, allow_nan=False)
    except ValueError as error:
        if (found := first_not_finite(value)) is None:
            raise
        place, number = found
        raise FlanError(f"{what} is not finite ({place or 'the value'} is {number}): nothing is written.") from error


def from_json(text: str | bytes) -> Any:
    """Reads JSON.

    Raises:
      NotFiniteNumber: a number is NaN, infinite, or too large for a float.
      ValueError: it is no JSON.
    """
    return json.loads(text, parse_constant=_refuse, parse_float=_finite)


def _refuse(text: str) -> Any:
    raise NotFiniteNumber(f"{text} is no number of a result")


def _finite(text: str) -> float:
    value = float(text)
    return value if math.isfinite(value) else _refuse(text)


def first_not_finite(value: Any, place: str = "") -> tuple[str, float] | None:
    """(place, number) of the first number that is NaN or infinite in dicts and lists; None where all are finite."""
    if isinstance(value, float):
        return None if math.isfinite(value) else (place, value)
    if isinstance(value, Mapping):
        inner = value.items()
    elif isinstance(value, list | tuple):
        inner = enumerate(value)
    else:
        return None
    parts = (first_not_finite(part, f"{place}/{name}" if place else str(name)) for name, part in inner)
    return next((found for found in parts if found is not None), None)


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The JSON lines of a predictions file; the first is its header.

    Raises:
      NotFiniteNumber: a number is NaN or infinite.
      ValueError: a line is no JSON.
    """
    with path.open(encoding="utf-8") as file:  # str.splitlines would also cut at U+2028 and U+0085 inside a text
        return [from_json(line) for line in file]


def write_atomic(path: Path, text: str) -> None:
    """Writes a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
